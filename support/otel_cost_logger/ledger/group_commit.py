"""Making what has been written survive a power failure, without making an event loop wait for the disk.

SQLite's ``synchronous=NORMAL`` leaves a committed transaction in the operating system's cache: it survives the
process, not the machine. A thread of its own flushes the write-ahead log; one flush serves everything that was
committed before it began.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from pathlib import Path

_PATIENCE_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_log = logging.getLogger(__name__)


class GroupCommit:
    """Flushes the write-ahead log of the database at ``path`` whenever something was committed to it."""

    def __init__(self, path: Path) -> None:
        self._wal = path.with_name(path.name + "-wal")
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Begin anew: the thread is the parent's."""
        self._changed = threading.Condition()
        self._committed = 0
        self._flushed = 0
        self._stopping = False
        self._failed = False
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        """A transaction was committed. Returns when it is on the disk; on an event loop at once, with the flush under
        way."""
        with self._changed:
            self._committed += 1
            ticket = self._committed
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledger-group-commit", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            if not (self._failed or _on_event_loop()):
                self._changed.wait_for(lambda: self._flushed >= ticket or self._stopping, _PATIENCE_SECONDS)

    def wait(self, seconds: float) -> bool:
        """True when everything committed so far is on the disk within ``seconds``."""
        with self._changed:
            ticket = self._committed
            return self._changed.wait_for(lambda: self._flushed >= ticket, seconds)

    def stop(self) -> None:
        """Flush what is left and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_PATIENCE_SECONDS)
        self._stopping = False

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._committed > self._flushed or self._stopping)
                if self._committed == self._flushed:
                    return
                ticket = self._committed
            flushed = self._flush()
            with self._changed:
                if flushed:
                    self._flushed = ticket
                    self._changed.notify_all()
                elif self._stopping:
                    return
                else:
                    self._changed.wait(_RETRY_SECONDS)  # nobody is told that it is on the disk

    def _flush(self) -> bool:
        try:
            # A descriptor of our own: flushing is a matter of the file, and needs none of SQLite's locks.
            descriptor = os.open(self._wal, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            pass  # the last connection has closed, and with that moved everything into the database, and flushed it
        except OSError as error:
            if not self._failed:
                _log.error("the ledger could not be flushed to the disk: %s", error)
            self._failed = True
            return False
        self._failed = False
        return True


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
