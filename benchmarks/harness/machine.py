"""CPU time: of single programs, and of everything on the machine that is not ours. Linux only."""

from __future__ import annotations

import ctypes
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

_libc = ctypes.CDLL(None)
_PROC = Path("/proc")
# proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; user and nice include the guest columns.
_AT_WORK = (0, 1, 2, 5, 6, 7)

QUIET_CORES = 0.15
"""Others may use this much of the machine, in cores, while something is measured; beyond it the machine is busy."""


class CpuMeter:
    """Reads CPU seconds used so far, with the kernel's full resolution, by each program with all its descendants."""

    def __init__(self, programs: Mapping[str, int]) -> None:
        self._programs = dict(programs)

    def read(self) -> dict[str, float]:
        """CPU seconds by program, and ``others``.

        ``others`` is the time of all cores that went neither to this process nor to its descendants: other
        programs, the kernel's own work, and on a virtual machine other guests (steal). The kernel counts it in
        ticks, so a short difference may come out a little below zero. Only differences between two readings mean
        something. Raises ProcessLookupError when a program has ended.
        """
        children = _children()
        return {
            **{name: _tree_seconds(pid, children) for name, pid in self._programs.items()},
            "others": _machine_seconds() - _tree_seconds(os.getpid(), children),
        }


def cores_used_by_others(seconds: float = 1.0) -> float:
    """How many cores everybody else keeps busy, looking on for ``seconds``."""
    meter = CpuMeter({})
    before = meter.read()["others"]
    time.sleep(seconds)
    return max(0.0, meter.read()["others"] - before) / seconds


def _machine_seconds() -> float:
    with (_PROC / "stat").open() as file:
        fields = [int(field) for field in file.readline().split()[1:]]
    return float(sum(fields[column] for column in _AT_WORK) / os.sysconf("SC_CLK_TCK"))


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = defaultdict(list)
    for process in _PROC.glob("[0-9]*"):
        try:
            after_name = (process / "stat").read_text().rpartition(")")[2]
        except OSError:
            continue  # it ended meanwhile
        children[int(after_name.split()[1])].append(int(process.name))
    return children


def _tree_seconds(pid: int, children: Mapping[int, list[int]]) -> float:
    total = _process_seconds(pid)
    for child in children.get(pid, ()):
        try:
            total += _tree_seconds(child, children)
        except ProcessLookupError:
            continue  # it ended meanwhile
    return total


def _process_seconds(pid: int) -> float:
    """User and system time of all threads of a process, also of those that have ended; clock_getcpuclockid(3)."""
    clock = ctypes.c_int()
    if error := _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise ProcessLookupError(error, f"process {pid} is not there")
    try:
        return time.clock_gettime(clock.value)
    except OSError as gone:
        raise ProcessLookupError(gone.errno, f"process {pid} is not there") from gone
