"""The figure of `span_processors`."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.harness.figures import captioned, points_panel, require, when_and_where
from benchmarks.harness.results import Result
from workbook.figures import OKABE_ITO, STYLE

# What is shown, with a marker each: told apart without colour too.
_COSTS = (
    ("on_end_cpu", "caller's CPU time in on_end", OKABE_ITO[0], "o"),
    ("on_end_wall", "caller's wall time in on_end", OKABE_ITO[1], "s"),
    ("total_cpu", "CPU time in all, until confirmed", OKABE_ITO[5], "D"),
)
_RATES = (
    ("per_cpu_second", "per second of CPU time", OKABE_ITO[2], "o"),
    ("per_second", "per second", OKABE_ITO[3], "s"),
)
_PROCESSOR_NAMES = {
    "simple": "Simple",
    "batch": "Batch",
    "durable": "Durable",
    "durable_noted": "Durable,\ncalls noted before",
    "durable_full": "Durable, sync=full,\nthread waits for disk",
}
_DRAIN_NAMES = {"drain": "Durable,\nfrom a file", "exporter": "exporter alone,\nfrom memory"}


def draw(result: Result) -> Figure:
    """What a span costs with each processor, and how fast a backlog of spans is sent.

    Points are medians over rounds, bars their intervals. ``result`` is one of `span_processors`; raises ValueError for
    any other.
    """
    require(result, "span_processors")
    summary: Any = result.summary
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure: Figure
        figure, (costs, rates) = plt.subplots(1, 2, figsize=(10, 4.6), width_ratios=(3, 2))
        points_panel(costs, summary["microseconds_per_span"], _PROCESSOR_NAMES, _COSTS)
        costs.set_title("What a span costs")
        costs.set_xlabel("microseconds for each span")
        points_panel(rates, summary["spans_per_second"], _DRAIN_NAMES, _RATES)
        target = summary["targets"]["drained_per_cpu_second"]["limit"]
        rates.axvline(target, color="#666666", linewidth=1, linestyle="--", label=f"target, {target:,g}")
        rates.set_title("How fast a backlog is sent")
        rates.set_xlabel("spans")
        for axes in (costs, rates):
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)
        figure.supxlabel(captioned(result, _span_processors_text(result)), x=0.01, ha="left", fontsize=8)
    plt.close(figure)
    return figure


def _span_processors_text(result: Result) -> str:
    parameters, packages = result.parameters, result.packages
    summary: Any = result.summary
    setting, drained = summary["setting"], summary["targets"]["drained_per_cpu_second"]["measured"]
    return (
        f"{when_and_where(result)}. OpenTelemetry {packages['opentelemetry-sdk']}, OTLP over {setting['protocol']} to "
        f"a receiver in another process that counts and discards; spans of {setting['attributes']} attributes, "
        f"{setting['bytes']:,} bytes, in bursts of {parameters['burst']:,}; a backlog of {parameters['backlog']:,}. "
        f"Bars: {drained['confidence']:.1%} intervals over {parameters['rounds']} rounds. Logarithmic scales."
    )
