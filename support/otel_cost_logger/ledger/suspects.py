"""Spans that a collector answers with an error of its own, and whether that is their doing.

OTLP counts HTTP 500 and its like among the answers that are not to be retried, but they say nothing about who is to
blame. A collector in trouble gives them to every span, and then the spans must wait; a defect in the collector that one
span sets off gives them to that one forever, and then it must not hold up the others. So when the same batch has failed
in this way often and for long, it is sifted (`otlp.sending.sift`). If the collector takes some of it, a span that fails
alone is suspect: it goes by itself from then on, and once it has failed again and again, each time with other spans
taken after it, it is refused for good. As long as the collector takes nothing, nobody is suspected.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from otel_cost_logger.otlp.decoding import Payload

_FAILURES = 10  # of one batch, in a row
_FAILING_SECONDS = 300.0
_TRIALS = 4  # of one span alone
_TRIAL_PAUSE_SECONDS = 30.0


@dataclass(slots=True)
class Suspect:
    """A span that failed alone ``trials`` times, the last time with ``reason``, when ``exported`` spans had been
    taken."""

    payload: Payload
    reason: str
    trials: int
    exported: int
    not_before: float  # monotonic seconds

    @property
    def convicted(self) -> bool:
        """True when it has failed often enough."""
        return self.trials >= _TRIALS


class Suspects:
    """The spans under suspicion in one file, by id."""

    def __init__(self) -> None:
        self._suspects: dict[int, Suspect] = {}
        self._failures = 0
        self._failing_since = 0.0

    def __len__(self) -> int:
        return len(self._suspects)

    def __contains__(self, id_: int) -> bool:
        return id_ in self._suspects

    def batch_failed(self, *, doubtful: bool) -> None:
        """The batch whose turn it is was not taken; ``doubtful`` as in `otlp.answers.Unavailable`."""
        if not doubtful:
            self._failures = 0
            return
        if self._failures == 0:
            self._failing_since = time.monotonic()
        self._failures += 1

    def batch_taken(self) -> None:
        """The collector is not in trouble."""
        self._failures = 0

    @property
    def sifting(self) -> bool:
        """True when the next batch is to be sifted."""
        if not self._failures:
            return False
        long = time.monotonic() - self._failing_since >= _FAILING_SECONDS
        return bool(self._suspects) or (self._failures >= _FAILURES and long)

    def accuse(self, payload: Payload, reason: str, exported: int) -> None:
        """``payload`` has failed alone, once more or for the first time."""
        known = self._suspects.get(payload.id)
        trials = known.trials + 1 if known else 1
        not_before = time.monotonic() + _TRIAL_PAUSE_SECONDS
        self._suspects[payload.id] = Suspect(payload, reason, trials, exported, not_before)

    def due(self, exported: int) -> list[Suspect]:
        """Those whose turn it is: a while after their last failure, and other spans were taken since."""
        now = time.monotonic()
        return [one for one in self._suspects.values() if one.exported < exported and one.not_before <= now]

    def dismiss(self, payload: Payload) -> None:
        """Its case is settled."""
        self._suspects.pop(payload.id, None)
