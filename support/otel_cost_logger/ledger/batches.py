"""How many spans go to the collector together."""

from __future__ import annotations

_MOST = 16  # times the usual number
_QUICK_SECONDS = 2.0  # so that twice as many are answered well within an exporter's time-out of 10 s


class BatchSize:
    """``usual`` spans, and with a backlog twice as many after each full batch that was answered quickly.

    A collector that takes its time over each request, however much is in it, is then asked less often for the same.
    """

    def __init__(self, usual: int) -> None:
        self._usual = usual
        self.now = usual

    def delivered(self, count: int, seconds: float) -> None:
        """A batch of ``count`` was dealt with in ``seconds``."""
        if count < self._usual:
            self.now = self._usual
        elif count >= self.now and seconds < _QUICK_SECONDS:
            self.now = min(2 * self.now, _MOST * self._usual)

    def failed(self) -> None:
        """A batch was not taken: a collector in trouble is not asked for more than usual."""
        self.now = self._usual
