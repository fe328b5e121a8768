from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from workbook import figures
from workbook.traces import PHASES

START = pd.Timestamp("2026-01-01T00:00:00Z")


@pytest.fixture
def spans() -> pd.DataFrame:
    """Six calls: the two of acme overlap, the second of globex failed."""
    rows = [
        ("acme", "m1", 10, 5, 2_000, 0.0, 1.0, True),
        ("acme", "m2", 20, 6, 3_000, 0.5, 2.0, True),
        ("globex", "m1", 30, 7, 4_000, 0.2, 0.4, True),
        ("globex", "m1", 40, 0, 0, 0.6, 0.7, False),
        ("initech", "m2", 50, 9, 1_500, 1.0, 1.5, True),
        ("initech", "m1", 60, 10, 500, 1.6, 1.7, True),
    ]
    names = ["tenant_id", "model", "prompt_tokens", "completion_tokens", "cost_nano_usd", "begin", "until", "success"]
    frame = pd.DataFrame(rows, columns=names)
    for moment, seconds in (("start", "begin"), ("end", "until")):
        frame[moment] = START + pd.to_timedelta(frame.pop(seconds), unit="s")
    frame["duration_ms"] = (frame["end"] - frame["start"]).dt.total_seconds() * 1e3
    frame["time_to_first_token_ms"] = pd.Series([250.0, None, None, None, None, None], dtype="Float64")
    return frame


@pytest.fixture
def traced(spans: pd.DataFrame) -> pd.DataFrame:
    """The first three calls, as `traces.join` gives them, in milliseconds."""
    calls = spans.head(3).assign(call_id=["one", "two", "three"], outcome="success")
    parts = [(10, 20, 5, 100, 800, 15, 50), (30, 0.5, 0.02, 200, 1200, 0, 69.48), (1, 2, 3, 100, 90, 2, 2)]
    return calls.assign(**dict(zip(PHASES, zip(*parts, strict=True), strict=True)))


def heights(figure: Figure, panel: int) -> dict[str, list[float]]:
    """Bar heights by model, in the order of the tenants."""
    axes = figure.axes[panel]
    return {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}


def texts(figure: Figure, panel: int) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].texts]


def tick_labels(figure: Figure, panel: int = 0) -> list[str]:
    return [label.get_text() for label in figure.axes[panel].get_xticklabels()]


def test_token_bars_are_the_sums(spans: pd.DataFrame) -> None:
    figure = figures.tokens(spans)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Prompt tokens", "Completion tokens"]
    assert heights(figure, 0) == {"m1": [10, 70, 60], "m2": [20, 0, 50]}
    assert heights(figure, 1) == {"m1": [5, 7, 10], "m2": [6, 0, 9]}
    assert texts(figure, 0) == ["30", "70", "110"]
    assert tick_labels(figure) == ["acme", "globex", "initech"]
    assert figure.axes[0].get_ylabel() == "tokens"
    assert figure.axes[0].get_ylim()[0] == 0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["m1", "m2"]


def test_bars_stand_on_each_other(spans: pd.DataFrame) -> None:
    lower, upper = figures.tokens(spans).axes[0].containers
    assert [bar.get_y() for bar in upper] == [bar.get_height() for bar in lower]


def test_no_bar_and_no_label_is_cut_off(spans: pd.DataFrame) -> None:
    """The tallest bar is in the second panel, and the panels share their axis."""
    tall = spans.assign(completion_tokens=spans["completion_tokens"] * 100)
    for figure in (figures.tokens(spans), figures.tokens(tall), figures.cost(spans)):
        for axes in figure.axes:
            tops = [bar.get_y() + bar.get_height() for bars in axes.containers for bar in bars]
            assert axes.get_ylim()[1] > 1.1 * max(tops)


@pytest.mark.parametrize(
    ("times", "unit", "label"),
    [(1, "micro-USD", "5"), (1_000, "milli-USD", "5"), (10**6, "USD", "5"), (10**9, "USD", "5,000")],
)
def test_cost_is_drawn_in_a_readable_unit(spans: pd.DataFrame, times: int, unit: str, label: str) -> None:
    figure = figures.cost(spans.assign(cost_nano_usd=spans["cost_nano_usd"] * times))
    assert figure.axes[0].get_ylabel() == f"cost ({unit})"
    assert texts(figure, 0)[0] == label
    assert figure.axes[0].get_ylim()[0] == 0


def test_cost_bars_are_the_sums_in_that_unit(spans: pd.DataFrame) -> None:
    assert heights(figures.cost(spans), 0) == {"m1": [2, 4, 0.5], "m2": [3, 0, 1.5]}


def test_a_free_model_still_has_its_axis(spans: pd.DataFrame) -> None:
    figure = figures.cost(spans.assign(cost_nano_usd=0))
    assert figure.axes[0].get_ylabel() == "cost (nano-USD)"
    assert texts(figure, 0) == ["0", "0", "0"]


def test_models_differ_without_colour(spans: pd.DataFrame) -> None:
    lower, upper = figures.cost(spans).axes[0].containers
    assert lower[0].get_hatch() != upper[0].get_hatch()
    assert lower[0].get_facecolor() != upper[0].get_facecolor()


def test_one_call_is_split_at_its_first_token(spans: pd.DataFrame) -> None:
    figure = figures.call_timeline(spans.iloc[0])
    bars = [bar for container in figure.axes[0].containers for bar in container]
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0, 250), (250, 750)]
    assert texts(figure, 0) == ["first token\n250.0 ms", "end\n1000.0 ms"]
    assert "(ms)" in figure.axes[0].get_xlabel()


def test_a_call_without_a_stream_is_one_piece(spans: pd.DataFrame) -> None:
    figure = figures.call_timeline(spans.iloc[1])
    assert [bar.get_width() for bar in figure.axes[0].containers[0]] == [1500]
    assert texts(figure, 0) == ["end\n1500.0 ms"]


def test_many_calls_are_bars_from_start_to_end_by_tenant(spans: pd.DataFrame) -> None:
    figure = figures.calls_timeline(spans)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["acme", "globex", "initech"]
    drawn = [[(bar.get_x(), bar.get_x() + bar.get_width()) for bar in row] for row in axes.containers]
    assert drawn == [
        [pytest.approx((0.0, 1.0)), pytest.approx((0.5, 2.0))],
        [pytest.approx((0.2, 0.4)), pytest.approx((0.6, 0.7))],
        [pytest.approx((1.0, 1.5)), pytest.approx((1.6, 1.7))],
    ]
    acme, globex, initech = axes.containers
    assert acme[0].get_y() + acme[0].get_height() <= acme[1].get_y()  # they overlap in time
    assert initech[0].get_y() == initech[1].get_y()  # these do not
    assert [bar.get_hatch() for bar in globex] == [None, "xxxx"]
    assert "(s)" in axes.get_xlabel()


def test_a_traced_call_is_drawn_part_by_part(traced: pd.DataFrame) -> None:
    figure = figures.call_trace(traced.iloc[0])
    bars = [bar for container in figure.axes[0].containers for bar in container]
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [
        *((0, 10), (10, 20), (30, 5), (35, 100), (135, 800), (935, 15), (950, 50)),
    ]
    assert bars[0].get_facecolor() == bars[-1].get_facecolor()  # the gateway, there and back
    assert bars[1].get_facecolor() == bars[-2].get_facecolor()  # the engine beside its model
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == 5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "gateway: 60.00 ms",
        "engine, beside the model: 35.00 ms",
        "queue: 5.00 ms",
        "prefill: 100.00 ms",
        "decode: 800.00 ms",
    ]
    assert "(ms)" in figure.axes[0].get_xlabel()


def test_traced_calls_lie_below_each_other_from_their_own_beginning(traced: pd.DataFrame) -> None:
    figure = figures.call_traces(traced)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["acme", "acme", "globex"]
    bars = [bar for container in axes.containers for bar in container]
    assert [bar.get_x() for bar in bars[:: len(PHASES)]] == [0, 0, 0]
    ends = [bar.get_x() + bar.get_width() for bar in bars[len(PHASES) - 1 :: len(PHASES)]]
    assert ends == pytest.approx([1000, 1500, 200])
    assert axes.yaxis_inverted()  # the first on top
    named = figures.call_traces(traced, ["plain", "streamed", "two choices"])
    assert [label.get_text() for label in named.axes[0].get_yticklabels()] == ["plain", "streamed", "two choices"]


def test_what_cannot_be_drawn_of_a_trace_is_said(traced: pd.DataFrame) -> None:
    aborted = traced.iloc[0].copy()
    aborted[["queue_ms", "outcome"]] = [pd.NA, "client_disconnected"]
    with pytest.raises(ValueError, match=r"call one \(client_disconnected\) has no engine span to draw"):
        figures.call_trace(aborted)
    elsewhere = traced.iloc[0].copy()
    elsewhere["gateway_after_ms"] = -3.0
    with pytest.raises(ValueError, match=r"lies 3\.0 ms outside of it; the clocks"):
        figures.call_trace(elsewhere)


def test_no_text_leaves_the_picture_or_covers_another(spans: pd.DataFrame, traced: pd.DataFrame) -> None:
    drawn = (
        figures.tokens(spans),
        figures.cost(spans),
        figures.call_timeline(spans.iloc[0]),
        figures.calls_timeline(spans),
        figures.call_trace(traced.iloc[0]),
        figures.call_traces(traced),
    )
    for figure in drawn:
        figure.draw_without_rendering()
        drawn_box, frame = figure.get_tightbbox(), figure.bbox_inches.padded(0.01)
        assert frame.x0 <= drawn_box.x0
        assert drawn_box.x1 <= frame.x1
        assert frame.y0 <= drawn_box.y0
        assert drawn_box.y1 <= frame.y1
        labels = [text.get_window_extent() for text in figure.axes[0].texts]
        assert not any(a.overlaps(b) for index, a in enumerate(labels) for b in labels[index + 1 :])


def test_nothing_to_draw_is_said(spans: pd.DataFrame) -> None:
    for draw in (figures.tokens, figures.cost, figures.calls_timeline, figures.call_traces):
        with pytest.raises(ValueError, match="no spans to draw"):
            draw(spans.iloc[:0])


def test_figures_are_saved_the_same_each_time(build: Path, spans: pd.DataFrame) -> None:
    path = figures.save(figures.cost(spans), "04_cost")
    assert path == build / "figures" / "04_cost.png"
    first = path.read_bytes()
    assert b"Software" not in first
    assert figures.save(figures.cost(spans), "04_cost").read_bytes() == first


def test_a_figure_is_shown_once_and_leaves_no_setting(spans: pd.DataFrame) -> None:
    size = mpl.rcParams["font.size"], mpl.rcParams["hatch.linewidth"]
    figures.cost(spans)
    assert plt.get_fignums() == []
    assert (mpl.rcParams["font.size"], mpl.rcParams["hatch.linewidth"]) == size


def test_a_budget_goes_down_to_where_calls_are_refused(spans: pd.DataFrame) -> None:
    calls = spans.assign(budget_remaining_usd=[0.5, 0.4, 0.3, 0.3, 0.1, -0.1])
    (axes,) = figures.budget_left(calls, 0.6).axes
    stairs, answered, refused = axes.lines
    assert list(stairs.get_ydata()) == [0.6, 0.5, 0.4, 0.3, 0.3, 0.1, -0.1]
    assert list(answered.get_xdata()) == [1, 2, 3, 5, 6]
    assert (list(refused.get_xdata()), list(refused.get_ydata())) == ([4], [0.3])
    assert axes.get_ylim()[0] < -0.1
