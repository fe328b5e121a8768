"""A lock between processes, on a file of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_SECONDS = 0.005


class FileLock:
    """A lock between processes that ends with its holder, however that ends. Its file stays behind, empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self) -> bool:
        """Take it if nobody else holds it; True when we hold it. Raises `OSError` when its file cannot be made."""
        try:
            fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let go. A forked child that calls this drops its copy alone: the parent's lock holds."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        return self._descriptor


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Hold the lock on the file ``path``. Raises `TimeoutError` when others have held it for ``seconds``, and
    `OSError` when its file cannot be made."""
    with FileLock(path) as lock:
        deadline = time.monotonic() + seconds
        while not lock.take():
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held {path} for {seconds:g} s")
            time.sleep(_POLL_SECONDS)
        yield
