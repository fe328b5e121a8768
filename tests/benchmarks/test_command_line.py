"""``python -m benchmarks``: what it offers, what it refuses, what it stores, and one real run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness import benchmark as benchmark_module
from benchmarks.harness import run as run_module
from benchmarks.harness.benchmark import Benchmark, Measurement, NotMeasured, Parameter, Parameters
from benchmarks.harness.results import Result, load_result
from workbook.paths import ROOT

Offer = Callable[..., int]


def example(faults: list[str] | None = None, error: BaseException | None = None) -> Benchmark:
    def measure(parameters: Parameters) -> Measurement:
        if error:
            raise error
        return Measurement([dict(parameters)], {"sum": 3}, ["It was measured."], faults or [])

    parameters = (Parameter("rounds", 20, 2, "pairs"), Parameter("pause_seconds", 1.5, 0, "between them"))
    return Benchmark("example", "Does it measure?", parameters, measure, (benchmark_module,))


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Offer:
    """Offer one benchmark on a quiet machine; returns a function that runs the command line."""

    def offer(benchmark: Benchmark, *words: str) -> int:
        monkeypatch.setattr(command_line, "BENCHMARKS", {benchmark.name: benchmark})
        monkeypatch.setattr(run_module, "cores_used_by_others", lambda: 0.0)
        return command_line.main(["run", benchmark.name, "--out", str(tmp_path), *words])

    return offer


def stored(tmp_path: Path) -> Result:
    (path,) = tmp_path.glob("*/*.json")
    return load_result(path)


def test_the_module_runs_and_lists() -> None:
    listed = subprocess.run([sys.executable, "-m", "benchmarks", "list"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0
    for name, parameter in (("throughput", "--block-seconds 1.0"), ("callback_overhead", "--size full")):
        assert name in listed.stdout
        assert parameter in listed.stdout
    assert "what does it lose" in listed.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: COMMAND"),
        (["run"], "required: NAME"),
        (["run", "guesswork"], "invalid choice: 'guesswork'"),
        (["run", "processors", "--round", "20"], "unrecognized arguments: --round 20"),
        (["run", "processors", "--rounds", "1"], "--rounds: must be a whole number, at least 2, got '1'"),
        (["run", "processors", "--rounds", "2.5"], "--rounds: must be a whole number, at least 2, got '2.5'"),
        (
            ["run", "throughput", "--block-seconds", "nan"],
            "--block-seconds: must be a number, at least 0.05, got 'nan'",
        ),
        (
            ["run", "throughput", "--block-seconds", "inf"],
            "--block-seconds: must be a number, at least 0.05, got 'inf'",
        ),
        (["run", "processors", "--machine", "../mine"], "--machine: must be lower-case letters"),
        (["gpu", "--engine", "cuda"], "--engine: must be one of vllm-cpu, vllm, got 'cuda'"),
        (["run", "throughput", "--counts", "8,4"], "--counts: must be 1 or more whole numbers"),
    ],
)
def test_bad_input_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command_line.main(words)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_run_is_stored(offer: Offer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert offer(example(), "--machine", "my-kind", "--pause-seconds", "0.25") == 0
    result = stored(tmp_path)
    assert result.machine.label == "my-kind"
    assert result.parameters == {"rounds": 20, "pause_seconds": 0.25}
    assert result.samples == [{"rounds": 20, "pause_seconds": 0.25}]
    assert result.argv == ["run", "example", "--out", "<path>", "--machine", "my-kind", "--pause-seconds", "0.25"]
    assert result.started <= result.ended
    assert result.started.utcoffset() is not None
    assert result.validity.valid
    printed = capsys.readouterr().out
    assert "It was measured." in printed
    assert "NOT FOR QUOTING" not in printed


def test_a_name_alone_is_short_for_run(tmp_path: Path, offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(example())  # makes it the only one
    assert command_line.main(["example", "--out", str(tmp_path / "short")]) == 0
    (path,) = (tmp_path / "short").glob("*/*.json")
    assert load_result(path).argv == ["example", "--out", "<path>"]


def test_the_folders_of_packages_mean_the_same_to_children(
    tmp_path: Path, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "support:.")
    assert offer(example()) == 0
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [os.path.abspath("support"), os.path.abspath(".")]


def test_a_faulty_run_is_stored_and_says_so(offer: Offer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert offer(example(faults=["half of it failed"])) == command_line.NOT_FOR_QUOTING
    assert stored(tmp_path).validity.reasons == ["half of it failed"]
    assert "NOT FOR QUOTING: half of it failed" in capsys.readouterr().out


def test_a_busy_machine_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "cores_used_by_others", lambda: 0.7)
    _, result = run_module.run(example(), {"rounds": 20}, root=tmp_path, label="busy", argv=[])
    (reason,) = result.validity.reasons
    assert reason.startswith("busy machine: others used 0.70 cores before the start, more than 0.15")


@pytest.mark.parametrize(
    ("commit", "caveat"),
    [
        (("a" * 40, True), ["the code differs from any commit"]),
        ((None, None), ["no git checkout: the commit is not known"]),
        (("a" * 40, False), []),
    ],
)
def test_code_that_nobody_else_has_is_a_caveat(
    commit: tuple[str | None, bool | None], caveat: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module.provenance, "commit", lambda: commit)
    _, result = run_module.run(example(), {"rounds": 20}, root=tmp_path, label="here", argv=[])
    assert result.validity.caveats == caveat


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConnectionError("the mock is gone"), 1, "example was not measured: the mock is gone"),
        (NotMeasured("no answer came"), 1, "example was not measured: no answer came"),
        (KeyboardInterrupt(), command_line.INTERRUPTED, "example was interrupted; nothing is stored"),
    ],
)
def test_a_run_that_fails_stores_nothing(
    error: BaseException, code: int, message: str, offer: Offer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offer(example(error=error)) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.glob("*/*")) == []


def test_a_folder_that_cannot_be_written_is_told_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    never = example(error=AssertionError("it was measured"))
    monkeypatch.setattr(command_line, "BENCHMARKS", {"example": never})
    assert command_line.main(["run", "example", "--out", str(tmp_path / "file")]) == 1
    assert "example was not measured" in capsys.readouterr().err
