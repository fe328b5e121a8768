"""What an answer says of the tokens that it took, in whichever of the forms that vLLM and LiteLLM speak."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_MAX_BODY = 64 * 2**20  # bytes; an answer that is longer and no stream is not read
_MARKS = (b'"usage', b'"billed_units"')
_NAMED = b"event:"
_PIECES = (b"_block_delta", b".delta")  # the ends of names, in the forms whose events have names
_BROKEN = (b'data: {"error"', b'data:{"error"', b"event: error")
_DELTAS = (b'"delta"', b'"text"', b'"candidates"')

# Where the counts are, by form; the first name that is there counts.
_PROMPT = ("prompt_tokens", "input_tokens", "total_input_tokens", "promptTokenCount")
_COMPLETION = ("completion_tokens", "output_tokens", "total_output_tokens", "candidatesTokenCount")
_TOTAL = ("total_tokens", "totalTokenCount")
_CACHED = ("cache_read_input_tokens", "cachedContentTokenCount")
_REASONING = ("thoughtsTokenCount",)


class Usage(NamedTuple):
    """Token counts. ``cached`` of the prompt's and ``reasoning`` of the completion's are None where nobody says."""

    prompt: int
    completion: int
    cached: int | None = None
    reasoning: int | None = None

    @property
    def total(self) -> int:
        """Prompt plus completion."""
        return self.prompt + self.completion


def usage_in(document: object) -> Usage | None:
    """The usage in an answer, or in one event of a stream; None where it has none."""
    found = next(_usages(document), None)
    if found is None:
        return None
    prompt, completion = _first(found, _PROMPT), _first(found, _COMPLETION)
    if prompt is None and completion is None:
        prompt = _first(found, _TOTAL)  # of what generates nothing some say only how much it read
        if prompt is None:
            return None
    cached = _detail(found, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    reasoning = _detail(found, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens")
    thoughts = _first(found, _REASONING)
    return Usage(
        prompt or 0,
        # Google's form counts thoughts apart.
        (completion or 0) + (thoughts or 0),
        cached if cached is not None else _first(found, _CACHED),
        reasoning if reasoning is not None else thoughts,
    )


def merged(one: Usage | None, other: Usage | None) -> Usage | None:
    """Of two counts of one answer the larger: counts of a stream grow, and one event may know half of them."""
    if one is None or other is None:
        return one or other
    return Usage(
        max(one.prompt, other.prompt),
        max(one.completion, other.completion),
        _larger(one.cached, other.cached),
        _larger(one.reasoning, other.reasoning),
    )


class AnswerReader:
    """Reads an answer as it passes: `feed` its bytes, then ask. A stream is never kept; events that carry no usage are
    not parsed, and of those that do the first and the last are enough."""

    __slots__ = ("_first", "_last", "_pieces", "_rest", "_size", "_stream", "deltas", "failed", "uncounted")

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._pieces: list[bytes] = []
        self._size = 0
        self._rest = b""
        self._first = b""
        self._last = b""
        self.deltas = 0  # events with a piece of text, as far as can be told without parsing them
        self.uncounted = 0  # of those, how many came after the engine's last count
        self.failed = False  # the engine broke off: it says so in an event, and ends the stream in good order

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the answer."""
        if self._stream:
            events, self._rest = split_events(self._rest + chunk)
            for event in events:
                self.event(event)
        elif self._size <= _MAX_BODY:
            self._size += len(chunk)
            self._pieces.append(chunk)

    def event(self, event: bytes) -> None:
        """The next whole event of a stream."""
        if event.startswith(_BROKEN):
            self.failed = True
        elif _has_piece(event):
            self.deltas += 1
            self.uncounted += 1
        if any(mark in event for mark in _MARKS):
            self.uncounted = 0
            self._first = self._first or event
            self._last = event

    def last_document(self) -> Mapping[str, Any]:
        """The answer, or the last event that carried usage, as far as it is a JSON object."""
        if self._stream:
            return event_data(self._last) or {}
        whole = b"".join(self._pieces) if self._size <= _MAX_BODY else b""
        return _object(whole) or {}

    def usage(self) -> Usage | None:
        """What the answer said so far of its tokens."""
        if not self._stream:
            return usage_in(self.last_document())
        return merged(usage_in(event_data(self._first)), usage_in(event_data(self._last)))


def split_events(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole server-sent events in ``data``, each with its end, and the rest."""
    end = b"\r\n\r\n" if b"\r\n\r\n" in data else b"\n\n"
    *events, rest = data.split(end)
    return [event + end for event in events], rest


def _has_piece(event: bytes) -> bool:
    if event.startswith(_NAMED):
        return event.split(b"\n", 1)[0].rstrip().endswith(_PIECES)
    return any(mark in event for mark in _DELTAS)


def event_data(event: bytes) -> dict[str, Any] | None:
    """The JSON object of a server-sent event; None where it has none."""
    lines = (line[5:] for line in event.splitlines() if line.startswith(b"data:"))
    return _object(b"\n".join(lines))


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(text) if text.strip() else None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _usages(document: object) -> Iterator[Mapping[str, Any]]:
    """Where an answer may keep its usage: in itself, or in the answer that an event carries."""
    if not isinstance(document, Mapping):
        return
    for holder in (document, document.get("response"), document.get("message"), document.get("interaction")):
        if isinstance(holder, Mapping):
            meta = holder.get("meta")
            nested = (meta.get("tokens"), meta.get("billed_units")) if isinstance(meta, Mapping) else ()
            for found in (holder.get("usage"), holder.get("usageMetadata"), *nested):
                if isinstance(found, Mapping):
                    yield found


def _first(counts: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := _count(counts.get(name))) is not None), None)


def _detail(counts: Mapping[str, Any], groups: tuple[str, ...], name: str) -> int | None:
    held = (counts.get(group) for group in groups)
    return next((_count(group.get(name)) for group in held if isinstance(group, Mapping) and name in group), None)


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        return None
    return int(value)


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)
