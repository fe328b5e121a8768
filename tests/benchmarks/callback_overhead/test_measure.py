"""The real thing, small: LiteLLM, every callback, a receiver in another process, and a record of each call."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.callback_overhead import callbacks, figure
from benchmarks.callback_overhead.measure import SIZES, _lines
from benchmarks.callback_overhead.names import ARMS, NONE, OURS_PARTS, PLANTED
from benchmarks.harness.benchmark import NotMeasured
from benchmarks.harness.results import Result, load_result, newest_result


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A smoke run, stored by the command line."""
    folder = tmp_path_factory.mktemp("overhead")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD_DIR", str(folder / "build"))
        patch.setattr("benchmarks.harness.preflight.LOCK", folder / "lock")
        words = ["run", "callback_overhead", "--size", "smoke", "--out", str(folder / "results")]
        assert command_line.main(words) == command_line.NOT_FOR_QUOTING
    assert not list((folder / "build" / "runs").glob("*"))
    (path,) = folder.glob("results/*/*.json")
    return load_result(path)


def test_every_callback_leaves_a_record_of_every_call(smoke: Result) -> None:
    size = SIZES["smoke"]
    assert sorted((s["round"], s["mode"], s["arm"]) for s in smoke.samples) == sorted(
        (number, mode, arm) for number in range(size.rounds) for mode, arms in ARMS.items() for arm in arms
    )
    for sample in smoke.samples:
        assert sample["calls"] == size.calls[str(sample["mode"])]
        assert sample["records"] == (None if sample["arm"] == NONE else sample["calls"])
        assert float(str(sample["process_cpu_seconds"])) > 0
        assert (float(str(sample.get("hooks_cpu_seconds", 0))) > 0) == (sample["arm"] != NONE)


def test_the_parts_are_less_than_the_whole(smoke: Result) -> None:
    timed = [sample for sample in smoke.samples if sample["arm"] == OURS_PARTS]
    assert timed
    for sample in timed:
        parts = [float(str(sample[f"{name}_cpu_seconds"])) for name in ("record", "span", "hooks_before")]
        assert all(part > 0 for part in parts)
        assert sum(parts) < float(str(sample["hooks_cpu_seconds"]))
        assert float(str(sample["attributes_cpu_seconds"])) < parts[1]


def test_a_smoke_run_is_not_for_quoting_and_says_what_it_left_out(smoke: Result) -> None:
    assert any(reason.startswith("a short measurement") for reason in smoke.validity.reasons)
    assert not any("records of" in reason for reason in smoke.validity.reasons)
    assert any(caveat.startswith("not measured: memory") for caveat in smoke.validity.caveats)


def test_it_can_be_drawn(smoke: Result) -> None:
    drawn = figure.draw(smoke)
    assert "NOT FOR QUOTING" in drawn.get_supxlabel()
    assert [axes.get_xlabel() for axes in drawn.axes] == [
        "microseconds for each call (logarithmic)",
        "microseconds for each call (logarithmic)",
        "microseconds for each call",
    ]
    beside = figure.draw_beside(smoke, smoke)
    assert [text.get_text() for text in beside.axes[0].get_legend().get_texts()] == ["stored", "measured now"]


def test_a_figure_of_something_else_is_refused(smoke: Result) -> None:
    other = smoke.model_copy(update={"benchmark": "survival"})
    with pytest.raises(ValueError, match="of callback_overhead, not of survival"):
        figure.draw(other)


def test_results_of_two_machines_are_not_drawn_together(smoke: Result) -> None:
    other = smoke.model_copy(update={"machine": smoke.machine.model_copy(update={"label": "another"})})
    with pytest.raises(ValueError, match="different machines"):
        figure.draw_beside(smoke, other)


def test_the_stored_result_can_be_drawn() -> None:
    figure.draw(newest_result("callback_overhead")[1])


def test_a_measuring_process_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('{}'); raise SystemExit('no such luck')"]
    with pytest.raises(NotMeasured, match="exit code 1: no such luck"):
        list(_lines(command, tmp_path / "log", {}))


@pytest.mark.parametrize("clock_ns", [0, 50, 600])
def test_the_planted_tenth_is_a_tenth_with_its_clocks(clock_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0

    def read() -> int:
        nonlocal now
        now += clock_ns or 1
        return now

    monkeypatch.setattr(callbacks.time, "thread_time_ns", read)
    debt, before = callbacks.Debt(), now
    for _ in range(100):
        began = read()
        now += 30_000
        debt.spin(began)
    assert now - before == pytest.approx(100 * 30_000 * (1 + PLANTED), rel=0.005)
