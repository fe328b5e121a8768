"""What has arrived in a ledger of `workbook.receiver`, read by the standard library alone: pandas may not be there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROMPT, _COMPLETION = "llm.prompt_tokens", "llm.completion_tokens"


class SpanCount:
    """How many spans are in a ledger, one to a line, reading only what is new."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._offset = 0
        self._lines = 0

    def so_far(self) -> int:
        """The number of spans by now."""
        with self._ledger.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        self._offset += len(new)
        self._lines += new.count(b"\n")
        return self._lines

    def wait_for(self, lines: int, seconds: float = 30.0) -> None:
        """Return when there are ``lines``, or in the end without them: a lost span is a finding, not an error."""
        deadline = time.monotonic() + seconds
        while self.so_far() < lines and time.monotonic() < deadline:
            time.sleep(0.02)


@dataclass(frozen=True)
class Recorded:
    """The sums over a ledger's cost spans."""

    spans: int
    prompt_tokens: int
    completion_tokens: int


def recorded(ledger: Path, since: int = 0) -> Recorded:
    """What the cost spans in ``ledger``, from the byte ``since`` on, add up to.

    Other spans, and an incomplete last line, are left out.
    """
    spans = [attributes for attributes in _attributes(ledger, since) if _PROMPT in attributes]
    return Recorded(
        spans=len(spans),
        prompt_tokens=sum(int(attributes[_PROMPT]) for attributes in spans),
        completion_tokens=sum(int(attributes.get(_COMPLETION, 0)) for attributes in spans),
    )


def _attributes(ledger: Path, since: int) -> Iterator[dict[str, Any]]:
    with ledger.open("rb") as file:
        file.seek(since)
        lines = file.read()
    for line in lines.split(b"\n")[:-1]:
        span = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
        # OTLP JSON has an attribute's value as an object with one key, its type.
        yield {entry["key"]: next(iter(entry["value"].values()), None) for entry in span.get("attributes", [])}
