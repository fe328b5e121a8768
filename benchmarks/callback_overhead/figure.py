"""The figure of `callback_overhead`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.callback_overhead import names
from benchmarks.callback_overhead.findings import NAMES
from benchmarks.harness.comparable import require_comparable
from benchmarks.harness.figures import error_bars, page, points_panel, require
from benchmarks.harness.results import Result
from workbook.figures import HATCHES, OKABE_ITO

_ROW_NAMES = {
    names.BARE_SPAN: "a bare SDK span,\nsame attributes",
    names.NAIVE: "the tutorial's\nnaive callback",
    names.OTEL_V1: "LiteLLM's own\nOpenTelemetry, v1",
    names.OTEL_V2: "LiteLLM's own\nOpenTelemetry, v2",
}
_ROWS = (names.JSON_LINE, names.BARE_SPAN, names.OURS, names.NAIVE, names.OTEL_V1, names.OTEL_V2)
# Marker, and filled or not: told apart without colour too.
_MODES = (
    (names.ASYNC, f"async, {names.CONCURRENCY} at a time", OKABE_ITO[0], "o"),
    (names.SYNC, "synchronous", OKABE_ITO[1], "s"),
    (names.STREAM, f"streamed, {names.CONCURRENCY} at a time", OKABE_ITO[5], "D"),
)
_EXPORTING = {arm: NAMES[arm] for arm in (names.OURS, names.OURS_BATCH, names.OURS_DURABLE, names.OURS_SIMPLE)}
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
    mosaic = [["costs", "exporting"], ["parts", "parts"]]
    shape: Any = {"figsize": (11, 7.6), "width_ratios": (3, 2), "height_ratios": (3, 1)}
    with page(result, _text(result), mosaic, **shape) as (figure, panels):
        summary: Any = result.summary
        modes = summary["microseconds_per_call"]
        _costs_panel(panels["costs"], [(modes[mode], *look) for mode, *look in _MODES])
        axes = panels["exporting"]
        points_panel(axes, modes[names.ASYNC], _EXPORTING, _COSTS)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title("Ours with each span processor")
        axes.set_xlabel("microseconds for each call (logarithmic)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.14), fontsize=8)
        _parts_panel(panels["parts"], result)
    return figure


def draw_beside(stored: Result, measured: Result) -> Figure:
    """What each callback adds to an async call, in a stored result and in one measured now.

    Raises ValueError for a result of another benchmark, and `NotComparable` where they may not stand beside each other.
    """
    for result in (stored, measured):
        require(result, "callback_overhead")
    require_comparable([stored, measured])
    with page(measured, f"Measured now: {_text(measured)}", figsize=(9, 4.6)) as (figure, axes):
        shown = []
        for result, name, (_, _, *look) in zip((stored, measured), ("stored", "measured now"), _MODES, strict=False):
            summary: Any = result.summary
            shown.append((summary["microseconds_per_call"][names.ASYNC], name, *look))
        _costs_panel(axes, shown)
    return figure


def _costs_panel(axes: Any, shown: Sequence[Any]) -> None:
    """Rows are callbacks; ``shown`` are their costs, with a label, a colour and a marker."""
    names = {arm: _ROW_NAMES.get(arm, NAMES[arm]) for arm in _ROWS}
    measured: dict[str, dict[str, Any]] = {arm: {} for arm in _ROWS}
    for arms, label, *_ in shown:
        for arm in _ROWS:
            if arm in arms:
                measured[arm][label] = arms[arm]["hooks_cpu"]
    points_panel(axes, measured, names, [(label, label, *look) for _, label, *look in shown])
    axes.set_title("CPU time in the hooks, without an exporter")
    axes.set_xlabel("microseconds for each call (logarithmic)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.14), fontsize=8, ncols=3)


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
        f"LiteLLM {packages['litellm']}, OpenTelemetry {packages['opentelemetry-sdk']}; "
        f"calls that LiteLLM answers itself; CPU time beyond hooks that do nothing. Our span has "
        f"{summary['setting']['attributes']} attributes, the naive one nine. "
        f"{error_bars(summary['targets']['hooks_cpu_ours_over_bare_span']['measured'])}"
    )
