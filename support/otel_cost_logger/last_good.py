"""A file of the operator's in memory, read again whenever it changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class LastGood(Generic[_T]):
    """What the file at ``path`` says, as ``read`` understands it; ``described`` says it in a few words. Thread-safe.

    ``read`` raises ValueError for a file that it cannot use. At first that error is the caller's: a proxy should not
    start with half of its settings. Later the last good state stays in force, and the error is logged, once per change.
    The file is looked at whenever it is asked for, but not more often than every ``look_seconds``. Replace it as a
    whole (write another, then rename it): what is read from a file that is half written may look whole.
    """

    def __init__(
        self, path: Path, read: Callable[[Path], _T], described: Callable[[_T], str], *, look_seconds: float = 0.0
    ) -> None:
        self._path = path
        self._read = read
        self._described = described
        self._look_seconds = look_seconds
        self._lock = threading.Lock()
        self._version = self._stat()
        self._value = read(path)
        self._next_look = time.monotonic() + look_seconds

    @property
    def value(self) -> _T:
        """What the file says now, or said when it could last be used."""
        if not self._look_seconds or time.monotonic() >= self._next_look:
            self._look()
        return self._value

    def _look(self) -> None:
        version = self._stat()
        self._next_look = time.monotonic() + self._look_seconds
        if version == self._version:
            return
        with self._lock:
            if version == self._version:  # another thread was quicker
                return
            self._version = version
            try:
                self._value = self._read(self._path)
            except ValueError as error:
                _log.error("%s; what was read before stays in force: %s", error, self._described(self._value))
            else:
                _log.info("%s has changed; now in force: %s", self._path, self._described(self._value))

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
