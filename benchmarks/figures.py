"""Figures of stored results. Nothing is drawn that is not in a result file."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.results import Result
from workbook.figures import OKABE_ITO, STYLE

_REAL, _MOCK = OKABE_ITO[0], OKABE_ITO[5]
_PANELS = (("ttft_ms", "ttft", "Time to first token"), ("tpot_ms", "tpot", "Time per output token"))
_CAPTION_WIDTH = 150  # characters

# What can become of a record: told apart without colour by lightness and hatch.
_BAR = {"edgecolor": "white", "linewidth": 0.6}
_FATES: dict[str, dict[str, Any]] = {
    "exported at once": {"facecolor": OKABE_ITO[0]},
    "exported later, from the file": {"facecolor": OKABE_ITO[4], "hatch": "///"},
    "still pending": {"facecolor": OKABE_ITO[6], "hatch": "..."},
    "dropped": {"facecolor": "white", "hatch": "xxxx", "edgecolor": OKABE_ITO[5]},
}
_SCENARIOS = {
    "kill": "proxy killed with kill -9, and started again",
    "away": "collector gone for {seconds:g} s",
    "503": "collector answers 503 for {seconds:g} s",
    "slow": "collector takes 1 s for each export, for {seconds:g} s",
}


# What of `span_processors` is shown, with a marker each: told apart without colour too.
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


def latency(result: Result) -> Figure:
    """The real engine and the mock fitted to it: time to first token, and per output token, against concurrency.

    Points are medians over rounds, bars their intervals, the line is the fitted model. ``result`` is one of
    `engine_latency`; raises ValueError for any other.
    """
    _require(result, "engine_latency")
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
        figure.supxlabel(_caption(result, _latency_text(result)), x=0.01, ha="left", fontsize=8)
    plt.close(figure)
    return figure


def survival(result: Result) -> Figure:
    """What became of the records with each processor in each scenario, and how many calls were answered meanwhile.

    ``result`` is one of `survival`; raises ValueError for any other.
    """
    _require(result, "survival")
    rows: Any = result.summary["rows"]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    # Of each group the first place is its heading's.
    height = 1 + max(sum(row["scenario"] == scenario for row in rows) for scenario in scenarios)
    heads = {scenario: height * number for number, scenario in enumerate(scenarios)}
    places = [heads[row["scenario"]] + 1 + _rank(row, rows) for row in rows]
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x", "axes.titlesize": 10}):
        figure: Figure
        figure, (fates, rates) = plt.subplots(1, 2, figsize=(10, 6), sharey=True, width_ratios=(5, 3))
        _fates_panel(fates, rows, places)
        _rates_panel(rates, rows, places)
        for scenario, head in heads.items():
            text = _SCENARIOS[scenario].format(seconds=result.parameters["outage_seconds"])
            fates.annotate(text, (0, head), (0, -4), textcoords="offset points", weight="bold", va="center")
        fates.set_yticks(places, [row["processor"] for row in rows])
        fates.set_ylim(height * len(heads) - 0.4, -0.6)
        for axes in (fates, rates):
            axes.tick_params(axis="y", length=0)
        key = [Patch(label=name, **{**_BAR, **look}) for name, look in _FATES.items()]
        figure.legend(handles=key, loc="outside upper left", ncols=len(key))
        figure.supxlabel(_caption(result, _survival_text(result)), x=0.01, ha="left", fontsize=8)
    plt.close(figure)
    return figure


def _rank(row: Any, rows: Any) -> int:
    return [other["processor"] for other in rows if other["scenario"] == row["scenario"]].index(row["processor"])


def _fates_panel(axes: Any, rows: Any, places: list[int]) -> None:
    left = np.zeros(len(rows))
    for name, look in _FATES.items():
        widths = np.array([_fate(row, name) for row in rows], dtype=float)
        bars = axes.barh(places, widths, 0.72, left=left, label=name, **{**_BAR, **look})
        for bar, width in zip(bars, widths, strict=True):
            bar.set_visible(width > 0)  # an edge without a bar would look like one
        left += widths
    for place, row, end in zip(places, rows, left, strict=True):
        if row["dropped"]:
            axes.annotate(f"{row['dropped']:,} dropped", (end, place), (4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.2 * max(left))
    axes.set_xlabel("records of answered calls")
    axes.set_title("What became of the records")


def _fate(row: Any, name: str) -> int:
    late = min(row["pending_after_outage"] or 0, row["exported"])
    count: dict[str, int] = {
        "exported at once": row["exported"] - late,
        "exported later, from the file": late,
        "still pending": row["pending"],
        "dropped": row["dropped"],
    }
    return count[name]


def _rates_panel(axes: Any, rows: Any, places: list[int]) -> None:
    timed = [(place, row["per_second_in_outage"]) for place, row in zip(places, rows, strict=True)]
    timed = [(place, rate) for place, rate in timed if rate is not None]
    bars = axes.barh([place for place, _ in timed], [rate for _, rate in timed], 0.72, color="#666666")
    axes.bar_label(bars, [f"{rate:.3g}" for _, rate in timed], padding=3)
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.set_xlabel("calls answered per second")
    axes.set_title("Meanwhile, at the proxy")


def _survival_text(result: Result) -> str:
    parameters, packages = result.parameters, result.packages
    return (
        f"{_when_and_where(result)}. {parameters['calls']:,} calls for each bar, {parameters['at_a_time']} at a time, "
        f"to the LiteLLM {packages['litellm']} proxy with the mock of vLLM behind it; OpenTelemetry "
        f"{packages['opentelemetry-sdk']}, OTLP over HTTP, default settings, one run of each. A bar is shorter where "
        "calls were not answered. While the collector failed half of the calls were made, or as many as the proxy "
        "answered."
    )


def span_processors(result: Result) -> Figure:
    """What a span costs with each processor, and how fast a backlog of spans is sent.

    Points are medians over rounds, bars their intervals. ``result`` is one of `span_processors`; raises ValueError for
    any other.
    """
    _require(result, "span_processors")
    summary: Any = result.summary
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure: Figure
        figure, (costs, rates) = plt.subplots(1, 2, figsize=(10, 4.6), width_ratios=(3, 2))
        _points_panel(costs, summary["microseconds_per_span"], _PROCESSOR_NAMES, _COSTS)
        costs.set_title("What a span costs")
        costs.set_xlabel("microseconds for each span")
        _points_panel(rates, summary["spans_per_second"], _DRAIN_NAMES, _RATES)
        target = summary["targets"]["drained_per_cpu_second"]["limit"]
        rates.axvline(target, color="#666666", linewidth=1, linestyle="--", label=f"target, {target:,g}")
        rates.set_title("How fast a backlog is sent")
        rates.set_xlabel("spans")
        for axes in (costs, rates):
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)
        figure.supxlabel(_caption(result, _span_processors_text(result)), x=0.01, ha="left", fontsize=8)
    plt.close(figure)
    return figure


def _points_panel(axes: Any, measured: Mapping[str, Any], names: Mapping[str, str], shown: Any) -> None:
    """One row for each of ``names``, and in it one point with its interval for each quantity of ``shown``."""
    for number, (quantity, label, colour, marker) in enumerate(shown):
        points = [measured[arm][quantity] for arm in names]
        medians = np.array([point["median"] for point in points])
        ends = np.array([[point["low"], point["high"]] for point in points]).T
        places = np.arange(len(names)) + 0.25 * (number - (len(shown) - 1) / 2)
        axes.errorbar(
            medians, places, xerr=np.abs(ends - medians), fmt=marker, color=colour, markersize=5, capsize=3, label=label
        )
        for median, end, place in zip(medians, ends[1], places, strict=True):
            text = f"{median:,.0f}" if median >= 100 else f"{median:.2g}"
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # over the line of a target
            axes.annotate(text, (end, place), (6, 0), textcoords="offset points", va="center", fontsize=8, bbox=box)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.margins(x=0.15)
    axes.set_yticks(range(len(names)), list(names.values()))
    axes.set_ylim(len(names) - 0.5, -0.5)


def _span_processors_text(result: Result) -> str:
    parameters, packages = result.parameters, result.packages
    summary: Any = result.summary
    setting, drained = summary["setting"], summary["targets"]["drained_per_cpu_second"]["measured"]
    return (
        f"{_when_and_where(result)}. OpenTelemetry {packages['opentelemetry-sdk']}, OTLP over {setting['protocol']} to "
        f"a receiver in another process that counts and discards; spans of {setting['attributes']} attributes, "
        f"{setting['bytes']:,} bytes, in bursts of {parameters['burst']:,}; a backlog of {parameters['backlog']:,}. "
        f"Bars: {drained['confidence']:.1%} intervals over {parameters['rounds']} rounds. Logarithmic scales."
    )


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


def _require(result: Result, benchmark: str) -> None:
    if result.benchmark != benchmark:
        raise ValueError(f"this figure shows a result of {benchmark}, not of {result.benchmark}")


def _when_and_where(result: Result) -> str:
    machine = result.machine
    processor = machine.devices[0].name if machine.devices else f"{machine.cores} cores of {machine.cpu_model}, CPU"
    return f"{result.started:%Y-%m-%d}, {processor}"


def _latency_text(result: Result) -> str:
    parameters, summary = result.parameters, result.summary
    engine: Any = summary["engine"]
    lengths = sorted({length for sample in result.samples for length in _lengths(sample)})
    return (
        f"{_when_and_where(result)}. vLLM {engine['version']} ({engine['kind']}), {engine['shape']} model "
        f"with random weights; {'-'.join(map(str, lengths))} prompt and {parameters['max_tokens']} output tokens, "
        f"streamed, closed loop. Bars: 95 % intervals over {parameters['rounds']} rounds."
    )


def _caption(result: Result, text: str) -> str:
    if not result.validity.valid:
        text += f" NOT FOR QUOTING: {'; '.join(result.validity.reasons)[:200]}"
    return textwrap.fill(text, _CAPTION_WIDTH)


def _lengths(sample: Mapping[str, Any]) -> list[int]:
    return sample["prompt_tokens_each"] if sample["arm"] == "engine" else []
