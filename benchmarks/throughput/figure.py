"""The figures of `throughput`: the engine alone, what each way to it costs, and what callers feel of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness.backends import caveat
from benchmarks.harness.figures import caption, error_bars, log_x, require, when_and_where
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import Ratio
from benchmarks.throughput.findings import ARMS, OPEN, OUTAGE, PROXY_AGAIN, SWEEP
from workbook.figures import OKABE_ITO, STYLE

_MARKERS = ("o", "s", "^", "D", "v")
_INK = "#222222"
_NAMES = {
    "direct": "engine, directly",
    "proxy": "proxy, no callback",
    "proxy-again": "the same once more",
    "callback": "callback, no exporter",
    "simple": "callback, Simple + OTLP",
    "batch": "callback, Batch + OTLP",
    "durable": "callback, Durable + OTLP",
    "litellm-otel": "LiteLLM's own OTel",
}
_FIGURES = (
    ("output_tokens_per_second", "output tokens per second", True),
    ("median_ttft_ms", "ms to the first token, median", False),
    ("median_tpot_ms", "ms per output token, median", False),
)


def draw(result: Result) -> Figure:
    """The first of the figures below that ``result`` has something for. Raises ValueError when there is none."""
    summary = _summary(result)
    if summary["comparisons"]:
        return draw_arms(result)
    return draw_sweep(result)


def draw_sweep(result: Result) -> Figure:
    """Tokens per second, time to first token and time per token of the engine alone, against concurrency.

    A dashed line is the ceiling, where the device's is known. Raises ValueError for a result without a sweep.
    """
    points = [point for point in _points(result) if point["phase"] == SWEEP]
    if not points:
        raise ValueError("this result has no sweep")
    with mpl.rc_context({**STYLE, "axes.grid.axis": "both", "axes.titlesize": 10}):
        figure: Figure
        figure, panels = plt.subplots(1, len(_FIGURES), figsize=(11, 4.2))
        lengths = sorted({(point["input_len"], point["output_len"]) for point in points})
        for axes, (name, label, with_ceiling) in zip(panels, _FIGURES, strict=True):
            for number, length in enumerate(lengths):
                of_length = [point for point in points if (point["input_len"], point["output_len"]) == length]
                _line(axes, of_length, name, number, f"{length[0]}/{length[1]} tokens")
                if with_ceiling and all(point["ceiling"] for point in of_length):
                    axes.plot(
                        [point["concurrency"] for point in of_length],
                        [point["ceiling"] for point in of_length],
                        **{"linestyle": "--", "linewidth": 1, "color": OKABE_ITO[number], "label": "its ceiling"},
                    )
            concurrencies = sorted({point["concurrency"] for point in points})
            axes.set_xscale("log", base=2)
            axes.set_xticks(concurrencies, [str(concurrency) for concurrency in concurrencies])
            axes.minorticks_off()
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.set_ylim(bottom=0)
            axes.set_xlabel("requests under way at once")
            axes.set_title(label)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=4)
        told = error_bars(points[0]["output_tokens_per_second"])
        _caption(figure, result, f"The engine alone. Prompt/answer; medians. {told}")
    plt.close(figure)
    return figure


def _line(axes: Any, points: Sequence[Mapping[str, Any]], name: str, number: int, label: str) -> None:
    medians = np.array([point[name]["median"] for point in points])
    ends = np.array([[point[name]["low"], point[name]["high"]] for point in points]).T
    axes.errorbar(
        [point["concurrency"] for point in points],
        medians,
        np.abs(ends - medians),
        **{"marker": _MARKERS[number % len(_MARKERS)], "color": OKABE_ITO[number], "label": label},
        **{"markersize": 6, "capsize": 3, "linewidth": 1.4, "markerfacecolor": "white" if number % 2 else None},
    )


def draw_arms(result: Result) -> Figure:
    """Output tokens per second of each way over those of the proxy without a callback, at each load.

    The grey band is what two equal proxies show of each other. Raises ValueError for a result without them.
    """
    compared: Any = [entry for entry in _summary(result)["comparisons"] if entry["against"] == "proxy"]
    if not compared:
        raise ValueError("this result compares no arms")
    loads = sorted({entry["concurrency"] for entry in compared})
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x", "axes.titlesize": 10}):
        figure: Figure
        figure, panels = plt.subplots(1, len(loads), figsize=(11, 3.9), sharey=True, sharex=True, squeeze=False)
        for axes, load in zip(panels[0], loads, strict=True):
            entries = [entry for entry in compared if entry["concurrency"] == load]
            _ratios(axes, entries)
            axes.set_title(f"{load} requests under way at once")
            axes.set_xlabel("output tokens per second, over the proxy without a callback")
        told = f"{error_bars(compared[0]['ratio'])} Grey: what two equal proxies show of each other."
        _caption(figure, result, f"Paired by repeat. {told}")
    plt.close(figure)
    return figure


def _ratios(axes: Any, entries: Sequence[Mapping[str, Any]]) -> None:
    if null := next((entry["ratio"] for entry in entries if entry["arm"] == PROXY_AGAIN), None):
        axes.axvspan(min(null["low"], 1 / null["high"]), max(null["high"], 1 / null["low"]), color="#DDDDDD", zorder=0)
    axes.axvline(1, color=_INK, linewidth=1)
    for place, entry in enumerate(entries):
        ratio = entry["ratio"]
        ends = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
        claimed = entry["differs"] and not Ratio(**ratio).is_range
        # Filled where it is a difference: to be seen without colour.
        look = {"color": OKABE_ITO[0], "markerfacecolor": OKABE_ITO[0] if claimed else "white"}
        axes.errorbar([ratio["median"]], [place], xerr=ends, fmt="o", capsize=3, markersize=6, **look)
    axes.set_yticks(range(len(entries)), [_NAMES[entry["arm"]] for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)


def draw_latency(result: Result) -> Figure:
    """From the intended time to the last token, in an open loop, and in one while the collector is away.

    Raises ValueError for a result without an open loop.
    """
    summary = _summary(result)
    panels_of = [(phase, summary[phase]) for phase in (OPEN, OUTAGE) if summary[phase]]
    if not panels_of:
        raise ValueError("this result has no open loop")
    titles = {OPEN: "The collector answers", OUTAGE: "The collector is away"}
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x", "axes.titlesize": 10}):
        figure: Figure
        figure, panels = plt.subplots(1, len(panels_of), figsize=(11, 3.9), squeeze=False, sharex=True)
        for axes, (phase, entries) in zip(panels[0], panels_of, strict=True):
            _latencies(axes, entries)
            axes.set_title(f"{titles[phase]}, {entries[0]['rate']:.3g} requests/s")
            axes.set_xlabel("ms from the intended time to the last token")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
        _caption(figure, result, "Open loop, Poisson arrivals; a percentage is the share of them that was answered.")
    plt.close(figure)
    return figure


def _latencies(axes: Any, entries: Sequence[Mapping[str, Any]]) -> None:
    order = sorted(entries, key=lambda entry: ARMS.index(entry["arm"]))
    for at, label, marker, fill in (("p50", "median", "o", _INK), ("p99", "99th percentile", "D", "white")):
        known = [(place, entry[f"e2el_{at}_ms"]) for place, entry in enumerate(order) if entry[f"e2el_{at}_ms"]]
        axes.plot(
            *([value for _, value in known], [place for place, _ in known], marker),
            **{"color": _INK, "markerfacecolor": fill, "label": label, "markersize": 6},
        )
    log_x(axes)
    axes.set_yticks(range(len(order)), [_with_share(entry) for entry in order])
    axes.set_ylim(len(order) - 0.5, -0.5)


def _with_share(entry: Mapping[str, Any]) -> str:
    share = entry["answered_share"]
    return _NAMES[entry["arm"]] + ("" if share == 1 else f"\n{share:.0%} answered")


def _summary(result: Result) -> Any:
    require(result, "throughput")
    return result.summary


def _points(result: Result) -> list[Any]:
    return list(_summary(result)["points"])


def _caption(figure: Figure, result: Result, text: str) -> None:
    engine = _summary(result)["engine"]
    about = " ".join(filter(None, (engine["kind"], engine["version"], engine["shape"])))
    what = f"{when_and_where(result)}. {about}, {caveat(engine['kind'])}. {text} Load: vllm bench serve."
    caption(figure, result, what)
