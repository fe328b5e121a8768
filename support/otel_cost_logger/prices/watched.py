"""The price book of a running process: read again when its file changes."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from otel_cost_logger.prices.book import PriceBook
from otel_cost_logger.prices.reading import PriceBookError, read_book

_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class WatchedBook:
    """The price book in the file at ``path``, as it is now; its file is looked at once a second at most.

    Raises `PriceBookError` when the file cannot be used at the beginning. A later change that cannot be used is logged
    once, and the last good book stays in force. Replace the file as a whole (write another, then rename it): what is
    read from a file that is half written may look whole. Reading takes about a millisecond per entry, in the thread
    that asks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._stat()
        self._book = read_book(path)
        self._next_look = time.monotonic() + _LOOK_SECONDS

    def book(self) -> PriceBook:
        """The book in force."""
        now = time.monotonic()
        if now >= self._next_look and self._lock.acquire(blocking=False):  # one thread looks, the others need not wait
            try:
                self._next_look = now + _LOOK_SECONDS
                self._look()
            finally:
                self._lock.release()
        return self._book

    def _look(self) -> None:
        seen = self._stat()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._book = read_book(self._path)
        except PriceBookError as error:
            _log.error("%s\nthe price book read before (%s) stays in force", error, self._book.version)
        else:
            _log.warning("price book %s: version %s is in force", self._path, self._book.version)

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
