"""What others have published, as data in ``published.json``: nothing measured by us, and no figure draws it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """One published figure, whether it can be compared with our runs of Mistral-7B's shape, and why not.

    ``date`` is that of the publication or of the version that it names; ``unit`` belongs to ``value``.
    """

    source: str
    date: str
    device: str
    model: str
    precision: str
    engine: str
    shape: str
    value: float
    unit: str
    comparable: bool
    because: str


@dataclass(frozen=True)
class ThinkTime:
    """A published rate of closed-loop callers who wait between an answer and their next request.

    ``think_seconds`` is the mean pause (LiteLLM's locust file pauses between 0.5 and 1 s), ``response_seconds`` the
    median published beside the rate; where a page tells none, the mean that it tells for four instances.
    """

    source: str
    what: str
    callers: int
    think_seconds: float
    response_seconds: float
    published_per_second: float

    @property
    def most_per_second(self) -> float:
        """What so many callers can ask at most, whoever answers: the interactive response-time law N / (Z + R)."""
        return self.callers / (self.think_seconds + self.response_seconds)


_DATA = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
PUBLISHED = tuple(Published(**one) for one in _DATA["published"])
THINK_TIMES = tuple(ThinkTime(**one) for one in _DATA["think_times"])
