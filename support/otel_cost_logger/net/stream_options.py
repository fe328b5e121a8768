"""An engine's stream that goes through as it is, and still says what it costs.

Of a streamed chat or text completion vLLM says how many tokens it took only when asked, and how many so far only when
asked for that too. Both are put into the request, and what comes of it is taken out of the answer again: the caller
gets the bytes that it would have got.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from otel_cost_logger.deployments import vllm_addresses
from otel_cost_logger.net.usage import AnswerReader, event_data, split_events

_AT_THE_END = {"include_usage": True}
_ALL_THE_TIME = {**_AT_THE_END, "continuous_usage_stats": True}  # vLLM's own; others may refuse it
_STREAMS = ("chat/completions", "completions")
# vLLM's own order: the usage ends an event, and only an answer's last event has something after it.
_USAGE = re.compile(rb',"usage":(?:null|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})(?=[,}])')
_FINGERPRINT = re.compile(rb',"system_fingerprint":"[^"\\]*"')


def counting(body: Mapping[str, Any], engine: str) -> dict[str, Any] | None:
    """``body`` so that the stream which it asks for counts; None where it asks for none, or where there is nothing to
    ask. ``engine`` is the engine's address, or the end of it."""
    openai = engine.endswith(_STREAMS) and ("messages" in body or "prompt" in body)
    if body.get("stream") is not True or not openai:
        return None
    given = body.get("stream_options")
    asked = _ALL_THE_TIME if _is_vllm(engine) else _AT_THE_END
    return {**body, "stream_options": {**(given if isinstance(given, Mapping) else {}), **asked}}


def _is_vllm(engine: str) -> bool:
    """Whether an address without a host, or this host, is one of the vLLMs that the proxy knows."""
    host = urlsplit(engine).netloc
    return not host or host in {urlsplit(base).netloc for base in vllm_addresses()}


class Unasked:
    """Takes out of a stream what only `counting` asked for, and shows each event to ``reader`` before."""

    __slots__ = ("_choices", "_held", "_include", "_reader", "_rest", "_running")

    def __init__(self, body: Mapping[str, Any], reader: AnswerReader) -> None:
        given = body.get("stream_options")
        options = given if isinstance(given, Mapping) else {}
        self._include = bool(options.get("include_usage"))
        self._running = self._include and bool(options.get("continuous_usage_stats"))
        self._choices = body.get("n")
        self._reader = reader
        self._rest = b""
        self._held = b""

    def passed(self, chunk: bytes, *, last: bool) -> bytes:
        """What of ``chunk`` the caller gets now; with ``last``, also what was still held back."""
        events, self._rest = split_events(self._rest + chunk)
        out = b"".join(map(self._event, events))
        if last:
            out += self._released() + self._rest
            self._rest = b""
        return out

    def _event(self, event: bytes) -> bytes:
        self._reader.event(event)
        if self._running or b'"usage"' not in event:
            return self._released() + event
        if b'"choices":[]' in event:
            return self._released() + event if self._include else self._released(event)
        if self._include:
            return self._released() + _USAGE.sub(b"", event)
        event = _USAGE.sub(b"", event)
        if b'"finish_reason":null' in event or self._choices not in (None, 1):
            return self._released() + event
        before, self._held = self._released(), event  # the event that follows has what belongs into this one
        return before

    def _released(self, usage_event: bytes = b"") -> bytes:
        """The event that was held back. Without its usage event an answer ends with the engine's fingerprint there."""
        held, self._held = self._held, b""
        fingerprint = _FINGERPRINT.search(usage_event)
        if not held or fingerprint is None or _FINGERPRINT.search(held) or event_data(held) is None:
            return held
        end = held.rindex(b"}")
        return held[:end] + fingerprint.group() + held[end:]
