"""CPU time is counted for a program with its descendants, and for everybody else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.harness.machine import CpuMeter, cores_used_by_others

WaitUntil = Callable[[Callable[[], bool]], None]

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
# Starts a descendant that burns, and waits for its own stdin to close.
PARENT = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {BURN + 'input()'!r}], stdin=0)\ninput()\n"


def test_a_program_counts_with_its_descendants(wait_until: WaitUntil) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        try:
            meter = CpuMeter({"program": parent.pid})
            wait_until(lambda: meter.read()["program"] >= 0.3)
        finally:
            parent.communicate()


def test_our_own_work_is_not_that_of_others(wait_until: WaitUntil) -> None:
    cores = os.cpu_count() or 1
    meter = CpuMeter({"ours": os.getpid()})
    started, before = time.monotonic(), meter.read()
    burners = [
        subprocess.Popen([sys.executable, "-c", f"{BURN}input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(cores)
    ]
    try:
        wait_until(lambda: meter.read()["ours"] - before["ours"] >= 0.3 * cores)
        after, seconds = meter.read(), time.monotonic() - started
    finally:
        for burner in burners:
            burner.communicate()
    ours, others = after["ours"] - before["ours"], after["others"] - before["others"]
    # Our programs kept the cores busy, so there is no room for the same work a second time.
    assert others <= seconds * cores - ours + 0.05 * cores


def test_what_is_not_our_child_belongs_to_others(tmp_path: Path, wait_until: WaitUntil) -> None:
    done = tmp_path / "done"
    meter = CpuMeter({})
    before = meter.read()["others"]
    # The shell ends at once, so that the program behind it gets another parent.
    program = f"{BURN}open({str(done)!r}, 'w').close()"
    subprocess.run(["setsid", "sh", "-c", f'"{sys.executable}" -c "$0" &', program], check=True)
    wait_until(done.exists)
    assert meter.read()["others"] - before >= 0.2


def test_a_program_that_has_ended_is_an_error() -> None:
    program = subprocess.Popen([sys.executable, "-c", ""])
    program.wait()
    with pytest.raises(ProcessLookupError, match=f"process {program.pid} is not there"):
        CpuMeter({"program": program.pid}).read()


def test_looking_on_gives_a_number_of_cores() -> None:
    assert 0 <= cores_used_by_others(0.1) <= 2 * (os.cpu_count() or 1)
