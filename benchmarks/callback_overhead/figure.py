"""The figure of `callback_overhead`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.callback_overhead.findings import NAMES
from benchmarks.callback_overhead.names import (
    ASYNC,
    BARE_SPAN,
    CONCURRENCY,
    JSON_LINE,
    NAIVE,
    OTEL_V1,
    OTEL_V2,
    OURS,
    OURS_BATCH,
    OURS_DURABLE,
    OURS_SIMPLE,
    STREAM,
    SYNC,
)
from benchmarks.harness.comparable import require_comparable
from benchmarks.harness.figures import caption, error_bars, log_x, points_panel, require, when_and_where
from benchmarks.harness.results import Result
from workbook.figures import HATCHES, OKABE_ITO, STYLE

_ROW_NAMES = {
    BARE_SPAN: "a bare SDK span,\nsame attributes",
    NAIVE: "the tutorial's\nnaive callback",
    OTEL_V1: "LiteLLM's own\nOpenTelemetry, v1",
    OTEL_V2: "LiteLLM's own\nOpenTelemetry, v2",
}
_ROWS = (JSON_LINE, BARE_SPAN, OURS, NAIVE, OTEL_V1, OTEL_V2)
# Marker, and filled or not: told apart without colour too.
_MODES = (
    (ASYNC, f"async, {CONCURRENCY} at a time", OKABE_ITO[0], "o"),
    (SYNC, "synchronous", OKABE_ITO[1], "s"),
    (STREAM, f"streamed, {CONCURRENCY} at a time", OKABE_ITO[5], "D"),
)
_EXPORTING = {arm: NAMES[arm] for arm in (OURS, OURS_BATCH, OURS_DURABLE, OURS_SIMPLE)}
_COSTS = (
    ("hooks_cpu", "caller's CPU time, in the hooks", OKABE_ITO[0], "o"),
    ("process_cpu_beyond_noop", "of the process, background threads too", OKABE_ITO[5], "D"),
)
_PARTS = {
    "before_the_call": "noted before the call",
    "record": "record from LiteLLM's payload",
    "attributes": "record to attributes",
    "span": "finished span, to the processors",
    "rest": "the rest",
}


def draw(result: Result) -> Figure:
    """What each callback adds to a call, what exporting adds, and where the CPU time of ours goes.

    Points are medians over rounds, bars their intervals. ``result`` is one of `callback_overhead`; raises ValueError
    for any other.
    """
    require(result, "callback_overhead")
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x", "axes.titlesize": 10}):
        figure: Figure
        figure, panels = plt.subplot_mosaic(
            [["costs", "exporting"], ["parts", "parts"]], figsize=(11, 7.6), width_ratios=(3, 2), height_ratios=(3, 1)
        )
        _costs_panel(panels["costs"], [result])
        _exporting_panel(panels["exporting"], result)
        _parts_panel(panels["parts"], result)
        caption(figure, result, _text(result))
    plt.close(figure)
    return figure


def draw_beside(stored: Result, measured: Result) -> Figure:
    """What each callback adds to an async call, in a stored result and in one measured now.

    Raises ValueError for a result of another benchmark, and `NotComparable` where they may not stand beside each other.
    """
    for result in (stored, measured):
        require(result, "callback_overhead")
    require_comparable([stored, measured])
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x", "axes.titlesize": 10}):
        figure: Figure
        figure, axes = plt.subplots(figsize=(9, 4.6))
        _costs_panel(axes, [stored, measured])
        caption(figure, measured, f"Measured now: {_text(measured)}")
    plt.close(figure)
    return figure


def _costs_panel(axes: Any, results: Sequence[Result]) -> None:
    """Rows are callbacks. Of one result every mode is shown, of two the async mode of each."""
    shown = []
    for result, (mode, label, colour, marker) in (
        [(results[0], look) for look in _MODES]
        if len(results) == 1
        else [(result, (ASYNC, name, *look[2:])) for result, name, look in zip(results, _BESIDE, _MODES, strict=False)]
    ):
        summary: Any = result.summary
        shown.append((summary["microseconds_per_call"][mode], label, colour, marker))
    for number, (arms, label, colour, marker) in enumerate(shown):
        rows = [(place, arms[arm]["hooks_cpu"]) for place, arm in enumerate(_ROWS) if arm in arms]
        medians = np.array([point["median"] for _, point in rows])
        ends = np.array([[point["low"], point["high"]] for _, point in rows]).T
        places = np.array([place for place, _ in rows]) + 0.22 * (number - (len(shown) - 1) / 2)
        bars = {"fmt": marker, "color": colour, "markersize": 5, "capsize": 3, "label": label}
        axes.errorbar(medians, places, xerr=np.abs(ends - medians), **bars)
        for median, end, place in zip(medians, ends[1], places, strict=True):
            axes.annotate(f"{median:.3g}", (end, place), (6, 0), textcoords="offset points", va="center", fontsize=8)
    log_x(axes)
    axes.margins(x=0.15)
    axes.set_yticks(range(len(_ROWS)), [_ROW_NAMES.get(arm, NAMES[arm]) for arm in _ROWS])
    axes.set_ylim(len(_ROWS) - 0.5, -0.5)
    axes.set_title("CPU time in the hooks, without an exporter")
    axes.set_xlabel("microseconds for each call (logarithmic)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.14), fontsize=8, ncols=3)


_BESIDE = ("stored", "measured now")


def _exporting_panel(axes: Any, result: Result) -> None:
    summary: Any = result.summary
    points_panel(axes, summary["microseconds_per_call"][ASYNC], _EXPORTING, _COSTS)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title("Ours with each span processor")
    axes.set_xlabel("microseconds for each call (logarithmic)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.14), fontsize=8)


def _parts_panel(axes: Any, result: Result) -> None:
    summary: Any = result.summary
    breakdown = summary["breakdown"]
    left = 0.0
    for (part, label), colour, hatch in zip(_PARTS.items(), OKABE_ITO, HATCHES, strict=False):
        width = max(0.0, breakdown[part]["median"])
        bar = axes.barh(0, width, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
        axes.bar_label(bar, [f"{width:.1f}"], label_type="center", fontsize=8, bbox={"facecolor": "white", "pad": 1})
        left += width
    axes.set_yticks([])
    axes.set_xlim(left=0)
    axes.set_title("Where the CPU time of ours goes (async, without an exporter)")
    axes.set_xlabel("microseconds for each call")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.5), fontsize=8, ncols=len(_PARTS))


def _text(result: Result) -> str:
    packages = result.packages
    summary: Any = result.summary
    return (
        f"{when_and_where(result)}. LiteLLM {packages['litellm']}, OpenTelemetry {packages['opentelemetry-sdk']}; "
        f"calls that LiteLLM answers itself; CPU time beyond hooks that do nothing. Our span has "
        f"{summary['setting']['attributes']} attributes, the naive one nine. "
        f"{error_bars(summary['targets']['hooks_cpu_ours_over_bare_span']['measured'])}"
    )
