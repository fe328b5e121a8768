"""Whether a process that wrote to the ledger still runs.

Each process holds a lock for its row of the table ``processes``: one byte of a file beside the ledger. The kernel
releases it when the process ends, however it ends. So it does not matter which host name or process id the process had:
a container has others after each restart, or the same ones. The locks are those of an open file, not POSIX's: two
connections in one process do not release each other's.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct

_LOCKS = ".process-locks"  # this file's name, behind the ledger's
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, process id


class Presence:
    """Shows other processes that this one lives. A forked child that calls `end` drops its copy alone."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def show(self, connection: sqlite3.Connection, process: int) -> bool:
        """Hold the lock of row ``process`` of the ledger behind ``connection``, and no other; False when the system has
        no such locks."""
        self.end()
        try:
            self._descriptor = os.open(_lock_file(connection), os.O_CREAT | os.O_RDWR, 0o600)
            # Shared: a process whose ledger was replaced may still hold this row of the former one.
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_RDLCK, process))
        except OSError:
            self.end()
            return False
        return True

    def end(self) -> None:
        """Let go."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_gone(
    connection: sqlite3.Connection, process: int, pid: int | None, pid_started: int | None, ended_ns: int | None
) -> bool:
    """True when the process of row ``process`` of the ledger's table ``processes`` has ended, as far as can be told.

    ``pid_started`` marks one that holds no lock: an earlier version of the plugin wrote it, or the system has none.
    """
    if ended_ns is not None or pid is None:
        return True
    return pid_started is None and not _is_held(connection, process)


def _is_held(connection: sqlite3.Connection, process: int) -> bool:
    try:
        descriptor = os.open(_lock_file(connection), os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it may live
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, process))
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _flock(kind: int, process: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, process, 1, 0)


def _lock_file(connection: sqlite3.Connection) -> str:
    (path,) = (row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main")
    return f"{path}{_LOCKS}"
