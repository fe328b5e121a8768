"""Figures show what the stored results hold, and say where it comes from."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from benchmarks.harness.results import RESULTS, Result, Validity, load_result
from benchmarks.throughput.figure import draw_latency as draw


@pytest.fixture(scope="module")
def stored() -> Result:
    return load_result(sorted(RESULTS.glob("*/*-engine_latency*.json"))[0])


def drawn(figure: Figure, panel: int, label: str) -> list[float]:
    """The heights of the points with that label."""
    axes = figure.axes[panel]
    (container,) = (
        found for found in axes.containers if isinstance(found, ErrorbarContainer) and found.get_label() == label
    )
    points: Any = container.lines[0].get_ydata()
    return [float(value) for value in points]


def caption(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


@pytest.mark.parametrize(("panel", "name"), [(0, "ttft_ms"), (1, "tpot_ms")])
def test_the_points_are_the_results(stored: Result, panel: int, name: str) -> None:
    figure = draw(stored)
    curves: Any = stored.summary["curves"]
    for arm, label in (("engine", "real vLLM"), ("mock", "mock with the fitted model")):
        assert drawn(figure, panel, label) == [point[name]["median"] for point in curves[arm]]
    axes = figure.axes[panel]
    assert "milliseconds" in axes.get_ylabel()
    assert axes.get_ylim()[0] == 0


def test_the_caption_says_where_it_comes_from(stored: Result) -> None:
    text = caption(draw(stored))
    assert f"{stored.started:%Y-%m-%d}" in text
    assert stored.machine.cpu_model in text
    assert "random weights" in text
    assert "CPU" in text
    assert "NOT FOR QUOTING" not in text


def test_a_result_that_is_not_valid_says_so_in_the_picture(stored: Result) -> None:
    busy = stored.model_copy(update={"validity": Validity(valid=False, reasons=["busy machine"], caveats=[])})
    assert "NOT FOR QUOTING: busy machine" in caption(draw(busy))


def test_another_benchmarks_result_is_refused(result: Result) -> None:
    with pytest.raises(ValueError, match="shows the phase latency of throughput, which a example has not"):
        draw(result)
