"""`python -m benchmarks gpu`: the order, what is left out and why, and what is stored when it is cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.gpu import command
from benchmarks.gpu.smoke import START
from benchmarks.gpu.steps import NAMES, STEPS
from benchmarks.harness.backends import ATTEMPTS
from benchmarks.harness.benchmark import Measurement, NotMeasured
from benchmarks.harness.results import Result
from workbook.paths import BUILD_VARIABLE, ROOT

GOOD = [{"step": START + ATTEMPTS[1].name, "outcome": "ok"}, {"step": "calls through the proxy", "outcome": "ok"}]
COMPILED = {"step": "calls to the compiled engine", "outcome": "ok"}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replaces every benchmark's measuring: the parameters of each step end up here."""
    seen: list[dict[str, Any]] = []

    def measure(parameters: Any) -> Measurement:
        seen.append(dict(parameters))
        return Measurement(samples=[*GOOD, COMPILED], summary={}, findings=["found"])

    for benchmark in {id(step.benchmark): step.benchmark for step in STEPS}.values():
        monkeypatch.setitem(benchmark.__dict__, "measure", measure)
    return seen


@pytest.fixture(autouse=True)
def handlers() -> Any:
    """The command takes hold of signals; the tests give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def take(tmp_path: Path, *, minutes: float = 100.0, engine: str = "vllm", chosen: Any = NAMES) -> list[command.Taken]:
    return command.take_all(
        **{"engine": engine, "shape": "default", "minutes": minutes, "chosen": chosen, "root": tmp_path},
        **{"label": "a-gpu", "argv": ["gpu"], "report": _told, "not_measured": (NotMeasured,)},
    )


def _told(_path: Path, result: Result) -> str:
    return result.benchmark


def test_all_steps_are_taken_as_the_smoke_test_found_out(tmp_path: Path, measured: list[dict[str, Any]]) -> None:
    taken = take(tmp_path)
    assert [one.step for one in taken] == list(NAMES)
    assert {one.outcome for one in taken} <= {command.MEASURED, command.NOT_FOR_QUOTING}
    assert len(list((tmp_path / "a-gpu").glob("*.json"))) == len(NAMES)
    by_step = dict(zip(NAMES, measured, strict=True))
    assert {parameters["attempt"] for parameters in measured if "attempt" in parameters} == {1}
    assert by_step["sweep"]["eager"] == "default"
    assert by_step["eager"]["eager"] == "yes"
    assert (by_step["sweep"]["lengths"], by_step["sweep-2048"]["lengths"]) == ("128/128,1024/128", "2048/2048")
    assert 0 < by_step["sweep"]["limit_minutes"] <= 100


def test_a_rehearsal_is_smaller_and_eager(tmp_path: Path, measured: list[dict[str, Any]]) -> None:
    take(tmp_path, engine="vllm-cpu")
    by_step = dict(zip(NAMES, measured, strict=True))
    assert by_step["sweep-2048"]["lengths"] == "128/32"
    assert by_step["smoke"]["compiled"] == "no"


def test_without_time_the_most_valuable_is_measured(tmp_path: Path, measured: list[dict[str, Any]]) -> None:
    taken = take(tmp_path, minutes=5)
    assert [one.outcome == command.NOT_BEGUN for one in taken] == [
        step.minutes / 2 >= 5 and step.name != "smoke" for step in STEPS
    ]
    assert "minutes are left" in taken[-3].text or taken[-3].outcome != command.NOT_BEGUN


def test_without_litellm_the_engine_alone_is_measured(
    tmp_path: Path, measured: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "proxy_is_there", lambda: False)
    taken = {one.step: one for one in take(tmp_path)}
    for step in STEPS:
        assert (taken[step.name].outcome == command.NOT_BEGUN) == step.proxied
    assert taken["attribution"].text == "this Python has no LiteLLM"


def test_an_engine_that_does_not_start_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Measurement(samples=[{"step": "device", "outcome": "failed"}], summary={}, findings=["no"], faults=["no"])
    monkeypatch.setitem(STEPS[0].benchmark.__dict__, "measure", lambda _: failed)
    taken = take(tmp_path)
    assert [one.outcome for one in taken] == [command.NOT_FOR_QUOTING, *[command.NOT_BEGUN] * (len(NAMES) - 1)]
    assert {one.text for one in taken[1:]} == {"the engine did not start"}


def test_a_step_that_fails_and_one_that_is_interrupted(
    tmp_path: Path, measured: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(parameters: Any) -> Measurement:
        if parameters["lengths"] == "128/128,1024/128":
            raise NotMeasured("the client gave no result\nand a log")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("the signal came to nothing")

    monkeypatch.setitem(STEPS[1].benchmark.__dict__, "measure", measure)
    taken = take(tmp_path, chosen=("sweep", "attribution", "proxy-scale"))
    assert [(one.outcome, one.text) for one in taken[1:]] == [
        (command.NOT_MEASURED, "the client gave no result"),
        (command.NOT_MEASURED, "interrupted"),
        (command.NOT_BEGUN, "we were asked to end"),
    ]


def test_bad_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--steps", "sweep,nothing"], ["--minutes", "0"], ["--engine", "mock"]):
        with pytest.raises(SystemExit) as ended:
            command_line.main(["gpu", *words])
        assert ended.value.code == 2
        assert words[0] in capsys.readouterr().err


def test_where_nothing_is_installed_the_children_find_our_packages_too(tmp_path: Path) -> None:
    """As on a bare host: the checkout is on PYTHONPATH and nowhere else."""
    code = (
        "from workbook.services import Mock, Receiver\n"
        "with Receiver('bare') as receiver, Mock('bare_mock') as mock: print('both', receiver.running, mock.running)"
    )
    entries = ["support", ".", os.path.relpath(sysconfig.get_path("purelib"), ROOT)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(entries), BUILD_VARIABLE: str(tmp_path)}
    # Not the environment's own Python, which has the packages installed.
    python = os.path.realpath(sys.executable)
    said = subprocess.run(
        [python, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert said.stdout.strip() == "both True True", said.stderr
