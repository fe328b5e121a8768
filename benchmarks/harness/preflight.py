"""A look at the machine before anything is measured: what forbids a measurement, and what spoils it.

Refused are a second measurement beside a running one, which would spoil both, and a disk on which the result might not
fit. Whoever measures all the same (``--anyway``) gets these as reasons in the result's verdict. What merely spoils the
numbers (a busy machine, swapped memory) is a reason from the start: the run goes on, and its result says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness.machine import QUIET_CORES

LOCK = Path(tempfile.gettempdir()) / "llm-cost-attribution-benchmarks.lock"
"""Held by whoever measures: one file for the whole machine, whichever checkout it is measured from."""

LEAST_FREE_MIB = 512
"""A result is a megabyte; logs and ledgers of a measurement are more."""

MOST_SWAPPED_MIB = 256
_PROC = Path("/proc")


class Refused(RuntimeError):
    """Nothing should be measured now; the message says why. ``--anyway`` measures all the same."""


@dataclass
class Preflight:
    """``refusals`` forbid a measurement, ``flags`` are reasons not to quote its result."""

    refusals: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


@contextlib.contextmanager
def preflight(name: str, folder: Path, others: float) -> Iterator[Preflight]:
    """What speaks against measuring the benchmark ``name`` now; while the block runs, others are told that it does.

    ``folder`` is where the result will be stored, ``others`` how many cores are busy with something else.
    """
    with _turn(name) as rival:
        found = Preflight()
        if rival:
            found.refusals.append(f"another measurement runs on this machine: {rival}")
        for what, where in (("results", folder), ("temporary files", Path(tempfile.gettempdir()))):
            free = shutil.disk_usage(where).free // 2**20
            if free < LEAST_FREE_MIB:
                found.refusals.append(f"low disk: {free} MiB are free for {what}, less than {LEAST_FREE_MIB}")
        if others > QUIET_CORES:
            found.flags.append(
                f"busy machine: others used {others:.2f} cores before the start, more than {QUIET_CORES}"
            )
        swapped = swapped_mib()
        if swapped > MOST_SWAPPED_MIB:
            found.flags.append(f"swap in use: {swapped} MiB, more than {MOST_SWAPPED_MIB}: memory may come from disk")
        yield found


def swapped_mib() -> int:
    """Memory of this machine that is on disk now, in MiB."""
    kib = dict(re.findall(r"^(Swap(?:Total|Free)):\s+(\d+) kB$", (_PROC / "meminfo").read_text(), re.MULTILINE))
    return (int(kib.get("SwapTotal", 0)) - int(kib.get("SwapFree", 0))) // 1024


@contextlib.contextmanager
def _turn(name: str) -> Iterator[str]:
    """Hold the lock if it can be had; gives what its holder wrote of itself otherwise, and an empty text if it could.

    The kernel lets go of the lock when its holder ends, however it ends.
    """
    try:
        file = os.fdopen(os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+", encoding="utf-8")
    except OSError as error:  # somebody else's file
        yield f"perhaps; {LOCK.name} cannot be opened: {error.strerror}"
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield file.read().strip() or "it has just begun"
            return
        file.truncate()
        file.write(f"{name}, process {os.getpid()}, since {time.strftime('%H:%M', time.gmtime())} UTC\n")
        file.flush()
        yield ""
        file.seek(0)
        file.truncate()
