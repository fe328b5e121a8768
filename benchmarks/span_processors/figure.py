"""The figure of `span_processors`."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.harness.figures import caption, error_bars, points_panel, require, when_and_where
from benchmarks.harness.results import Result
from benchmarks.span_processors.findings import to_words
from workbook.figures import OKABE_ITO, STYLE

# What is shown, with a marker each: told apart without colour too.
_COSTS = (
    ("on_end_cpu", "caller's CPU time in on_end", OKABE_ITO[0], "o"),
    ("callback_cpu", "caller's CPU time, with making the span", OKABE_ITO[1], "s"),
    ("callback_wall", "caller's wall time, with making the span", OKABE_ITO[2], "^"),
    ("total_cpu", "CPU time in all, from on_end until confirmed", OKABE_ITO[5], "D"),
)
_RATES = (
    ("per_cpu_second", "per CPU second", OKABE_ITO[2], "o"),
    ("per_second", "per second", OKABE_ITO[3], "s"),
)
_PROCESSOR_NAMES = {
    "simple": "Simple",
    "batch": "Batch",
    "batch_tuned": "Batch, tuned",
    "durable": "Durable",
    "durable_noted": "Durable,\ncalls noted before",
    "durable_full": "Durable, sync=full,\nthread waits for disk",
}
_DRAIN_NAMES = {"drain": "Durable,\nfrom a file", "exporter_alone": "exporter alone,\nfrom memory"}
_DRAINED = "http/protobuf"


def draw(result: Result) -> Figure:
    """What a span costs with each processor and exporter, and how fast a backlog of spans is sent.

    Points are medians over rounds, bars their intervals. ``result`` is one of `span_processors`; raises ValueError for
    any other, and KeyError for one of November 23, when the benchmark knew one exporter only.
    """
    require(result, "span_processors")
    summary: Any = result.summary
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure: Figure
        figure, ((first, second), (third, rates)) = plt.subplots(2, 2, figsize=(11, 9.6), height_ratios=(3, 2))
        by_exporter = summary["microseconds_per_span"]
        costs = dict(zip(("http/protobuf", "grpc", "console"), (first, second, third), strict=True))
        for exporter, axes in costs.items():
            names = {arm: name for arm, name in _PROCESSOR_NAMES.items() if arm in by_exporter[exporter]}
            points_panel(axes, by_exporter[exporter], names, _COSTS)
            axes.set_title(f"What a span costs, {to_words(exporter)}")
            axes.set_xlabel("microseconds for each span")
        limits = [axes.get_xlim() for axes in costs.values()]
        for axes in costs.values():
            axes.set_xlim(min(low for low, _ in limits), 2 * max(high for _, high in limits))  # room for the numbers
        points_panel(rates, summary["spans_per_second"][_DRAINED], _DRAIN_NAMES, _RATES)
        target = summary["targets"][_DRAINED]["drained_per_cpu_second"]["limit"]
        rates.axvline(target, color="#666666", linewidth=1, linestyle="--", label=f"target, {target:,g}")
        rates.set_title(f"How fast a backlog is sent, {to_words(_DRAINED)}")
        rates.set_xlabel("spans")
        rates.legend(loc="upper center", bbox_to_anchor=(0.45, -0.13), fontsize=8, ncols=3)
        handles, labels = first.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=9)
        caption(figure, result, _span_processors_text(result))
    plt.close(figure)
    return figure


def _span_processors_text(result: Result) -> str:
    parameters, packages = result.parameters, result.packages
    summary: Any = result.summary
    setting, drained = summary["setting"], summary["targets"][_DRAINED]["drained_per_cpu_second"]["measured"]
    return (
        f"{when_and_where(result)}. OpenTelemetry {packages['opentelemetry-sdk']}; OTLP to a receiver in another "
        f"process that counts and discards, the console's text to /dev/null; spans of {setting['attributes']} "
        f"attributes, {setting['bytes']:,} bytes, in bursts of {parameters['burst']:,}; a backlog of "
        f"{parameters['backlog']:,}. {error_bars(drained)} Logarithmic scales."
    )
