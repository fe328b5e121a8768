"""From a run of tokens to what a client sees of it: where it stops, and which text each token brings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mock_vllm import tokenizer


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a sequence ends before the writer ends it. `max_tokens` counts every token, the EOS token too."""

    max_tokens: int
    min_tokens: int = 0
    strings: tuple[str, ...] = ()
    token_ids: frozenset[int] = frozenset()
    include_string: bool = False


class Token(NamedTuple):
    """One generated token. `delta` is the text it makes visible, often not its own: see `decode`."""

    piece: str
    delta: str
    finish_reason: str | None
    stop_reason: str | int | None


def decode(pieces: Iterable[str], rule: StopRule) -> Iterator[Token]:
    """Tokens up to and including the one that ends the sequence.

    While stop strings are looked for, the last characters are held back, one fewer than the longest of them
    has, so that no part of a stop string is ever shown. A token may so bring no text, or an earlier token's.
    """
    held_back = 0 if rule.include_string else max(map(len, rule.strings), default=1) - 1
    text = ""
    shown = 0
    for count, piece in enumerate(pieces, 1):
        if piece == tokenizer.EOS:
            yield Token(piece, text[shown:], "stop", None)
            return
        text += piece
        finish_reason: str | None = None
        stop_reason: str | int | None = None
        visible = max(shown, len(text) - held_back)
        if rule.strings and count > rule.min_tokens and (cut := _find_stop(text, shown, rule)):
            stop_reason, visible = cut
            finish_reason = "stop"
        elif rule.token_ids and count > rule.min_tokens and tokenizer.token_id(piece) in rule.token_ids:
            finish_reason, stop_reason, visible = "stop", tokenizer.token_id(piece), len(text)
        elif count == rule.max_tokens:
            finish_reason, visible = "length", len(text)
        yield Token(piece, text[shown:visible], finish_reason, stop_reason)
        if finish_reason is not None:
            return
        shown = visible


def _find_stop(text: str, shown: int, rule: StopRule) -> tuple[str, int] | None:
    """The stop string that ends first, and where the visible text ends."""
    # What is shown can hold the start of a match only where nothing is held back.
    start = max(0, shown - max(map(len, rule.strings)) + 1)
    found = [(at, string) for string in rule.strings if (at := text.find(string, start)) >= 0]
    if not found:
        return None
    at, string = min(found, key=lambda match: match[0] + len(match[1]))
    return string, at + len(string) if rule.include_string else at
