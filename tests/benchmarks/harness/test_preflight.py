"""Before a measurement: what is refused, what is a reason against the result, and that both are let go of again."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness import benchmark as benchmark_module
from benchmarks.harness import preflight as preflight_module
from benchmarks.harness import run as run_module
from benchmarks.harness.benchmark import Benchmark, Measurement, Parameters
from benchmarks.harness.preflight import LEAST_FREE_MIB, Preflight, preflight, swapped_mib
from benchmarks.harness.results import load_result

Measure = Callable[..., int]


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Run a benchmark through the command line on a quiet machine; it counts how often it was measured."""
    times: list[int] = []

    def once(parameters: Parameters) -> Measurement:
        times.append(1)
        return Measurement([{"round": 0}], {}, ["It was measured."])

    def command(*words: str) -> int:
        benchmark = Benchmark("example", "Does it measure?", (), once, (benchmark_module,))
        monkeypatch.setattr(command_line, "BENCHMARKS", {"example": benchmark})
        monkeypatch.setattr(run_module, "cores_used_by_others", lambda: 0.0)
        monkeypatch.setattr(preflight_module, "swapped_mib", lambda: 0)
        code = command_line.main(["run", "example", "--out", str(tmp_path / "results"), *words])
        assert len(times) == len(list(tmp_path.glob("results/*/*.json")))
        return code

    return command


def look(folder: Path, others: float = 0.0) -> Preflight:
    with preflight("example", folder, others) as found:
        return found


def test_a_running_rival_is_refused(measure: Measure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with preflight("survival", tmp_path, 0.0) as found:
        assert not found.refusals
        assert measure() == 1
        told = capsys.readouterr().err
        assert "example was not measured: another measurement runs on this machine: survival" in told
        assert f"process {os.getpid()}" in told
    assert measure() == 0


def test_anyway_makes_a_reason_of_it(measure: Measure, tmp_path: Path) -> None:
    with preflight("survival", tmp_path, 0.0):
        assert measure("--anyway") == command_line.NOT_FOR_QUOTING
    (path,) = tmp_path.glob("results/*/*.json")
    (reason,) = load_result(path).validity.reasons
    assert reason.startswith("another measurement runs on this machine: survival")


def hold(folder: Path, ready: Callable[[bool], None]) -> None:
    with preflight("survival", folder, 0.0):
        ready(True)
        multiprocessing.Event().wait()


def test_a_rival_that_was_killed_is_none(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    rival = context.Process(target=hold, args=(tmp_path, there.send))
    rival.start()
    assert here.poll(30)
    assert look(tmp_path).refusals
    rival.kill()
    rival.join()
    assert not look(tmp_path).refusals


def test_low_disk_is_refused(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=(LEAST_FREE_MIB - 1) * 2**20))
    assert measure() == 1
    assert measure("--anyway") == command_line.NOT_FOR_QUOTING
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=LEAST_FREE_MIB * 2**20))
    assert measure() == 0


def test_a_busy_machine_is_flagged(tmp_path: Path) -> None:
    flags = ["busy machine: others used 0.70 cores before the start, more than 0.15"]
    assert look(tmp_path, others=0.7).flags == flags


def test_swap_is_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nSwapTotal:  4194304 kB\nSwapFree:  3145728 kB\n")
    monkeypatch.setattr(preflight_module, "_PROC", tmp_path)
    assert swapped_mib() == 1024
    assert look(tmp_path).flags == ["swap in use: 1024 MiB, more than 256: memory may come from disk"]


def test_a_machine_without_swap_has_none_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\n")
    monkeypatch.setattr(preflight_module, "_PROC", tmp_path)
    assert swapped_mib() == 0


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "lock").symlink_to(victim)
    monkeypatch.setattr(preflight_module, "LOCK", tmp_path / "lock")
    assert "cannot be opened" in look(tmp_path).refusals[0]
    assert victim.read_text() == "precious"
