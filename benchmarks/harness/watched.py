"""A measurement started from a notebook: in a process of its own, with its progress bar where the reader looks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.results import Result, load_result, stored_results
from workbook.paths import ROOT

_MEASURED = (0, 3)  # valid, and stored but not for quoting


class MeasurementFailed(RuntimeError):
    """Nothing was stored; what the measurement printed says why."""


def measure(benchmark: str, options: Sequence[str], root: Path) -> tuple[Path, Result]:
    """``python -m benchmarks run BENCHMARK OPTIONS --out ROOT``; returns the new file and what is in it.

    What it prints, its progress included, is printed here as it comes. Raises `MeasurementFailed` when it stores
    nothing.
    """
    before = set(stored_results(root))
    command = [sys.executable, "-m", "benchmarks", "run", benchmark, *options, "--out", str(root)]
    code = _run_in_terminal(command)
    new = sorted(set(stored_results(root)) - before)
    if code not in _MEASURED or not new:
        raise MeasurementFailed(f"{benchmark} was not measured: exit code {code}; the reason is printed above")
    return new[-1], load_result(new[-1])


def _run_in_terminal(command: Sequence[str]) -> int:
    """Run ``command`` with a terminal of its own for its output, without which it would show no progress."""
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    finally:
        os.close(theirs)
    try:
        while True:
            try:
                written = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not written:
                break
            print(written.decode(errors="replace").replace("\r\n", "\n"), end="", flush=True)
        return process.wait()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
