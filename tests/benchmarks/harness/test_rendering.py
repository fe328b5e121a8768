"""Figures of stored results through the command line, and what is said where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness.rendering import NotDrawn, figure_of
from benchmarks.harness.results import (
    RESULTS,
    Result,
    ResultError,
    current_results,
    load_result,
    newest_result,
    write_result,
)
from workbook.paths import ROOT

SURVIVAL = RESULTS / "2-core-amd-epyc" / "2026-11-24-survival.json"


def test_a_stored_result_is_drawn_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert command_line.main(["render", str(SURVIVAL), "--out", str(tmp_path / folder)]) == 0
    one, two = ((tmp_path / folder / f"2-core-amd-epyc-{SURVIVAL.stem}.png").read_bytes() for folder in ("one", "two"))
    assert one.startswith(b"\x89PNG")
    assert one == two


def test_without_a_name_the_newest_of_each_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["render", "--out", str(tmp_path)]) == 0
    assert any(path.name.endswith("survival.png") for path in tmp_path.glob("*.png"))
    assert "mock_headroom.json: not drawn" in capsys.readouterr().out


def test_a_named_result_without_a_figure_is_an_error(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_result(result, tmp_path)
    assert command_line.main(["render", str(path), "--out", str(tmp_path)]) == 1
    assert "2026-11-23-example.json: example has no figure" in capsys.readouterr().err


def test_a_summary_that_the_figure_does_not_know_is_told(result: Result) -> None:
    other = result.model_copy(update={"benchmark": "survival"})
    with pytest.raises(NotDrawn, match=f"another version of survival.*commit {'a' * 40}"):
        figure_of(other)


def test_a_banner_hides_no_key() -> None:
    seen = 0
    for path in current_results():
        try:
            figure = figure_of(load_result(path))
        except NotDrawn:
            continue
        figure.draw_without_rendering()
        told = figure._suptitle
        if told is not None and figure.legends:
            seen += 1
            at = told.get_window_extent()
            assert not [legend for legend in figure.legends if at.overlaps(legend.get_window_extent())], path
    assert seen


def test_nothing_but_drawing_needs_matplotlib() -> None:
    """A bare GPU host measures and compares without it."""
    code = "import sys; import benchmarks.__main__; print('matplotlib' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == "False\n"


def test_the_newest_is_the_one_that_started_last(result: Result, tmp_path: Path) -> None:
    written = [
        write_result(result, tmp_path),
        write_result(result.model_copy(update={"benchmark": "example-2"}), tmp_path),
    ]
    later = result.model_copy(update={"started": result.ended})
    written.append(write_result(later, tmp_path))
    assert newest_result("example", tmp_path) == (written[-1], later)
    assert newest_result("example", tmp_path, "2-core-example")[0] == written[-1]
    with pytest.raises(ResultError, match=r"no result of example; measure one: python -m benchmarks run example"):
        newest_result("example", tmp_path, "another")
