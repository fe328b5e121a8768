"""Which calls have begun and have no record yet: what is neither in flight nor recorded is a lost record."""

from __future__ import annotations

import threading
from collections import Counter


class Expected:
    """Calls seen before they were dispatched, by call id, until their record is written. Thread-safe."""

    def __init__(self) -> None:
        self._due: Counter[str] = Counter()  # a caller may choose the id, and choose it twice
        self._seen = 0
        self._lock = threading.Lock()

    @property
    def seen(self) -> int:
        """How many calls have begun."""
        return self._seen

    def __len__(self) -> int:
        """How many of them have no record yet."""
        with self._lock:
            return self._due.total()

    def begin(self, call_id: str) -> None:
        """A call is about to be dispatched."""
        with self._lock:
            self._seen += 1
            self._due[call_id] += 1

    def recorded(self, call_id: str) -> None:
        """A record was written. Not every record was expected: a rejected key never gets as far as `begin`."""
        if not self._due:
            return
        with self._lock:
            if self._due.get(call_id, 0) > 1:
                self._due[call_id] -= 1
            else:
                self._due.pop(call_id, None)
