"""The figure of the proxy shows what became of the records, and says where it comes from."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from benchmarks.harness.results import Result, Validity
from benchmarks.harness.rounds import Sample
from benchmarks.processors.figure import draw
from benchmarks.processors.findings import records as evaluate


def caption(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


@pytest.fixture
def survived(result: Result, survival_samples: list[Sample]) -> Result:
    parameters = {"calls": 1000, "outage_seconds": 60.0, "at_a_time": 16}
    return result.model_copy(
        update={
            "benchmark": "survival",
            "parameters": parameters,
            "packages": {"litellm": "1.106.2", "opentelemetry-sdk": "1.45.2"},
            "summary": evaluate(survival_samples, parameters).summary,
        }
    )


def widths(figure: Figure, panel: int) -> dict[str, list[float]]:
    return {bars.get_label(): [bar.get_width() for bar in bars] for bars in figure.axes[panel].containers}


def test_the_parts_of_a_bar_are_what_became_of_the_records(survived: Result) -> None:
    figure = draw(survived)
    assert widths(figure, 0) == {
        "exported at once": [984, 700, 830, 984, 500, 500],
        "exported later, from the file": [0, 0, 150, 0, 0, 500],
        "still pending": [0, 0, 0, 0, 0, 0],
        "dropped": [0, 284, 4, 6, 500, 0],
    }
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(widths(figure, 0))
    assert all(handle.get_visible() for handle in legend.legend_handles if handle)
    fates = figure.axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in fates.containers[-1]]
    assert ends == [984, 984, 984, 990, 1000, 1000]
    assert [label.get_text() for label in fates.get_yticklabels()] == ["simple", "batch", "durable"] * 2
    texts = [text.get_text() for text in fates.texts]
    assert texts == [
        *("284 dropped", "4 dropped", "6 dropped", "500 dropped"),
        *("proxy killed with kill -9, and started again", "collector gone for 60 s"),
    ]
    assert fates.get_xlim()[0] == 0
    assert fates.get_xlim()[1] > max(ends)


def test_the_rates_are_those_of_the_outage(survived: Result) -> None:
    rates = draw(survived).axes[1]
    (bars,) = rates.containers
    assert [bar.get_width() for bar in bars] == [0.1, 100, 100]
    assert [text.get_text() for text in rates.texts] == ["0.1", "100", "100"]
    assert "per second" in rates.get_xlabel()
    assert rates.get_xlim()[0] == 0


def test_the_survival_figure_says_where_it_comes_from(survived: Result) -> None:
    text = caption(draw(survived))
    assert text.startswith(f"{survived.started:%Y-%m-%d}, {survived.machine.cores} cores of ")
    assert "1,000 calls for each bar, 16 at a time, to the LiteLLM 1.106.2 proxy" in text
    assert "OpenTelemetry 1.45.2" in text
    busy = survived.model_copy(update={"validity": Validity(valid=False, reasons=["busy machine"], caveats=[])})
    assert "NOT FOR QUOTING: busy machine" in caption(draw(busy))


def test_a_survival_figure_of_something_else_is_refused(result: Result) -> None:
    with pytest.raises(ValueError, match="example has no phase that is drawn"):
        draw(result)
