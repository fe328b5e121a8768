"""Failures on request: what a client, a gateway or a cost record must survive. Off without `--enable-faults`."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from mock_vllm.connection import Client, ConnectionCut
from mock_vllm.errors import ApiError, Unauthorized, bad_parameter, queue_full

HEADER = "x-mock-fault"
BODY_FIELD = "mock_fault"

_FAULT = re.compile(r"(401|429|500|503)|(hang)(?::(\d{1,9}))?|(cut|die):(\d{1,9})")

Kind = Literal["hang", "cut", "die"]


@dataclass(frozen=True, slots=True)
class Fault:
    """`after` is the number of events of a stream that still arrive; other answers fail at once."""

    kind: Kind
    after: int = 0


def requested_fault(body: dict[str, Any], headers: Mapping[str, str]) -> Fault | None:
    """The fault a request asks for: the header wins over the body field, which passes through a proxy.

    Raises the `ApiError` that is asked for, or a 400 for a fault that does not exist.
    """
    asked = headers.get(HEADER) or body.get(BODY_FIELD)
    if asked is None:
        return None
    match = _FAULT.fullmatch(str(asked).strip())
    if match is None:
        raise bad_parameter(
            "mock_fault must be 401, 429, 500, 503, hang, hang:K, cut:K or die:K with a whole number K",
            BODY_FIELD,
            asked,
        )
    status, hang, hang_after, kind, after = match.groups()
    if status is not None:
        raise _error(int(status))
    if hang is not None:
        return Fault("hang", int(hang_after or 0))
    return Fault("cut" if kind == "cut" else "die", int(after))


def _error(status: int) -> ApiError:
    if status == 401:
        return Unauthorized()
    if status == 503:
        return queue_full()
    if status == 429:
        # vLLM itself never answers 429; gateways and clients must cope with one all the same.
        return ApiError(429, "Too Many Requests", "Too many requests, please slow down.")
    return ApiError(500, "InternalServerError", "Internal server error")


async def spoil(
    events: AsyncGenerator[str, None], fault: Fault, client: Client, last_words: list[str]
) -> AsyncGenerator[str, None]:
    """The stream until the fault strikes. `last_words` are the events of a stream whose engine died."""
    async with aclosing(events):
        remaining = fault.after
        while remaining and (event := await anext(events, None)) is not None:
            yield event
            remaining -= 1
        if remaining:
            return
    if fault.kind == "cut":
        raise ConnectionCut
    if fault.kind == "hang":
        await client.until_gone()
    for event in last_words:
        yield event
