"""One record per call, whatever hooks fire.

LiteLLM reports some calls twice (a rejected key fires the async and the sync failure hook) and some failures
too early (a failed attempt that the router then repeats with success). This module decides which reports become
records. It keeps only keys and a few waiting failures, in bounded memory.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from otel_cost_logger.progress import Progress
from otel_cost_logger.record import CallRecord, after_attempts

_REMEMBERED = 65_536  # calls; both reports of one call come within milliseconds of each other
_WAIT_SECONDS = 900.0  # longer than any attempt and its retries: LiteLLM's default request timeout is 600 s


class Seen:
    """Remembers the last 65,536 calls reported. Thread-safe: hooks come from the event loop and from threads."""

    def __init__(self, capacity: int = _REMEMBERED) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()

    def first_time(self, record: CallRecord) -> bool:
        """True the first time a call is seen.

        The key holds the start time beside the call id: a caller may choose the id with a header, and two calls
        under one id are still two calls to pay for.
        """
        return self.first((record.call_id, record.start_ns))

    def first(self, key: Hashable) -> bool:
        """True the first time ``key`` is seen."""
        with self._lock:
            if key in self._keys:
                return False
            self._keys[key] = None
            if len(self._keys) > self._capacity:
                self._keys.popitem(last=False)
            return True


@dataclass(slots=True)
class _Waiting:
    record: CallRecord
    progress: Progress
    since: float

    def final(self) -> CallRecord:
        return after_attempts(self.record, self.progress.attempts)


class PendingFailures:
    """Failed attempts that may still be retried, by call id and API key.

    Behind the proxy, the router may repeat a failed attempt under the same call id. `settle` is called when the
    call is over: the failure is recorded only if the proxy says that the call failed. One that is never settled
    is given out by `overdue`.
    """

    def __init__(self, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._waiting: dict[Hashable, _Waiting] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def hold(self, key: Hashable, record: CallRecord, progress: Progress) -> CallRecord | None:
        """Keep ``record`` until its call is settled; returns the one it displaces, if any. ``progress`` is that of its
        call, which may go on."""
        with self._lock:
            displaced = self._waiting.pop(key, None)
            self._waiting[key] = _Waiting(record, progress, time.monotonic())
        return displaced.final() if displaced else None

    def settle(self, key: Hashable) -> CallRecord | None:
        """The failure held under ``key``, if there is one, with its call's attempts; it is held no longer."""
        if not self._waiting:  # the usual case costs no lock
            return None
        with self._lock:
            waiting = self._waiting.pop(key, None)
        return waiting.final() if waiting else None

    def overdue(self, *, everything: bool = False) -> list[CallRecord]:
        """Failures that nobody settled in time (with ``everything``: all of them); held no longer."""
        if not self._waiting:
            return []
        limit = time.monotonic() - self._wait_seconds
        with self._lock:
            keys = [key for key, waiting in self._waiting.items() if everything or waiting.since < limit]
            return [self._waiting.pop(key).final() for key in keys]
