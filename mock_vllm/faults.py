"""Failures on request: what a client, a gateway or a cost record must survive. Off without `--enable-faults`."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from mock_vllm.connection import Client, ConnectionCut
from mock_vllm.engine import Engine
from mock_vllm.errors import ApiError, EngineDead, Unauthorized, bad_parameter, queue_full

HEADER = "x-mock-fault"
BODY_FIELD = "mock_fault"

_FAULT = re.compile(r"(401|429|500|503)|(hang)(?::(\d{1,9}))?|(cut|die|crash):(\d{1,9})")

Kind = Literal["hang", "cut", "die", "crash"]


@dataclass(frozen=True, slots=True)
class Fault:
    """`after` is the number of events of a stream that still arrive; other answers fail at once.

    `die` spoils one answer as the death of the engine would; with `crash` the engine dies for everybody, and the
    server follows it, as vLLM's does.
    """

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
            "mock_fault must be 401, 429, 500, 503, hang, hang:K, cut:K, die:K or crash:K with a whole number K",
            BODY_FIELD,
            asked,
        )
    status, hang, hang_after = match.group(1, 2, 3)
    kind: Any = match[4]
    if status is not None:
        raise _error(int(status))
    if hang is not None:
        return Fault("hang", int(hang_after or 0))
    return Fault(kind, int(match[5]))


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
    events: AsyncGenerator[str, None], fault: Fault, client: Client, engine: Engine
) -> AsyncGenerator[str, None]:
    """The stream until the fault strikes. Raises `EngineDead` when it is to look as if the engine had died."""
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
    if fault.kind == "crash":
        engine.crash()
    raise EngineDead
