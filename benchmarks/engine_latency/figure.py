"""The figure of `engine_latency`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness.figures import caption, error_bars, require, when_and_where
from benchmarks.harness.results import Result
from workbook.figures import OKABE_ITO, STYLE

_REAL, _MOCK = OKABE_ITO[0], OKABE_ITO[5]
_PANELS = (("ttft_ms", "ttft", "Time to first token"), ("tpot_ms", "tpot", "Time per output token"))


def draw(result: Result) -> Figure:
    """The real engine and the mock fitted to it: time to first token, and per output token, against concurrency.

    Points are medians over rounds, bars their intervals, the line is the fitted model. ``result`` is one of
    `engine_latency`; raises ValueError for any other.
    """
    require(result, "engine_latency")
    summary: Any = result.summary
    with mpl.rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure: Figure
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.3))
        for axes, (name, line, title) in zip(panels, _PANELS, strict=True):
            _panel(axes, summary["curves"], name, summary["fit"][line])
            axes.set_title(title)
            axes.set_ylabel("milliseconds, median")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
        caption(figure, result, _latency_text(result))
    plt.close(figure)
    return figure


def _panel(axes: Any, curves: Mapping[str, Any], name: str, line: Mapping[str, float]) -> None:
    concurrencies = [point["concurrency"] for point in curves["engine"]]
    axis = np.geomspace(concurrencies[0], concurrencies[-1], 200)
    axes.plot(
        axis,
        line["base_ms"] + line["per_other_ms"] * (axis - 1),
        color="#666666",
        linewidth=1,
        linestyle="--",
        label="fitted model",
    )
    # Told apart without colour too: a filled circle against an open square, side by side.
    for arm, label, colour, marker, fill, shift in (
        ("engine", "real vLLM", _REAL, "o", _REAL, 0.97),
        ("mock", "mock with the fitted model", _MOCK, "s", "white", 1.03),
    ):
        points = [point[name] for point in curves[arm]]
        medians = np.array([point["median"] for point in points])
        ends = np.array([[point["low"], point["high"]] for point in points]).T
        axes.errorbar(
            shift * np.array(concurrencies),
            medians,
            np.abs(ends - medians),
            fmt=marker,
            color=colour,
            markerfacecolor=fill,
            markersize=6,
            markeredgewidth=1.4,
            capsize=3,
            linewidth=1.2,
            label=label,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(concurrencies, [str(concurrency) for concurrency in concurrencies])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("requests under way at once")


def _latency_text(result: Result) -> str:
    parameters = result.parameters
    summary: Any = result.summary
    engine = summary["engine"]
    lengths = sorted({length for sample in result.samples for length in _lengths(sample)})
    return (
        f"{when_and_where(result)}. vLLM {engine['version']} ({engine['kind']}), {engine['shape']} model "
        f"with random weights; {'-'.join(map(str, lengths))} prompt and {parameters['max_tokens']} output tokens, "
        f"streamed, closed loop. {error_bars(summary['curves']['engine'][0]['ttft_ms'])}"
    )


def _lengths(sample: Mapping[str, Any]) -> list[int]:
    return sample["prompt_tokens_each"] if sample["arm"] == "engine" else []
