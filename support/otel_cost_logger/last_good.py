"""A file of the operator's in memory, read again whenever it changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class LastGood(Generic[_T]):
    """What the file at ``path`` says, as ``read`` understands it. Thread-safe.

    ``read`` raises ValueError for a file that it cannot use. At first that error is the caller's: a proxy should not
    start with half of its settings. Later the last good state stays in force, and the error is logged, once per change.
    """

    def __init__(self, path: Path, read: Callable[[Path], _T]) -> None:
        self._path = path
        self._read = read
        self._lock = threading.Lock()
        self._version = self._stat()
        self._value = read(path)

    @property
    def value(self) -> _T:
        """What the file says now, or said when it could last be used."""
        version = self._stat()
        if version != self._version:
            with self._lock:
                if version != self._version:
                    self._version = version
                    self._reload()
        return self._value

    def _reload(self) -> None:
        try:
            self._value = self._read(self._path)
        except ValueError as error:
            _log.error("%s; what it said before stays in force", error)

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
