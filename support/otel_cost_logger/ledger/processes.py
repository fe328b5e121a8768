"""Whether a process that wrote to the ledger still runs.

A process id alone does not tell: in a container the proxy has the same one after each restart. So the ledger also holds
when the process started, as the kernel counts it.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path

_STARTED = 19  # among the fields of /proc/PID/stat behind the program's name, see proc(5)


def started(pid: int) -> int | None:
    """When the process ``pid`` of this host started, in clock ticks since the host did; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[_STARTED])
    except (OSError, ValueError, IndexError):
        return None


def is_gone(pid: int | None, pid_started: int | None, host: str | None, ended_ns: int | None) -> bool:
    """True when the process of a row of the ledger's table ``processes`` has ended; one on another host may live."""
    if ended_ns is not None or pid is None:
        return True
    if host != socket.gethostname() or (pid, pid_started) == this_process():
        return False
    return not _exists(pid) if pid_started is None else started(pid) != pid_started


def this_process() -> tuple[int, int | None]:
    """The id of this process, and when it started."""
    return _with_start(os.getpid())


@lru_cache(maxsize=1)
def _with_start(pid: int) -> tuple[int, int | None]:
    return pid, started(pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
