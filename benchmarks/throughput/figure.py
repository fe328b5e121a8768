"""The figures of `throughput`: the engine alone, each way to it, what callers feel, workers, and the mock's latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness.backends import caveat
from benchmarks.harness.figures import GREY, bars, count_axis, curve, error_bars, log_x, page, require
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import Ratio
from benchmarks.harness.successors import has, part, samples_of
from benchmarks.throughput.findings import ARMS, LATENCY, OPEN, PROXY_AGAIN, SWEEP, WORKERS
from workbook.figures import OKABE_ITO

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
    ("output_tokens_per_second", "output tokens per second"),
    ("median_ttft_ms", "ms to the first token, median"),
    ("median_tpot_ms", "ms per output token, median"),
)
_WORKER_ARMS = (("plain", "without a callback", OKABE_ITO[0]), ("durable", "with the durable callback", OKABE_ITO[5]))
_WORKER_FIGURES = (
    ("requests_per_second", "requests per second"),
    ("proxy_cpu_ms", "ms of the proxy's CPU for a request"),
    ("busy_cores", "busy cores, of all programs"),
)
_FITTED = (("engine", "real vLLM", OKABE_ITO[0], 0.97), ("mock", "mock with the fitted model", OKABE_ITO[5], 1.03))
_AT_ONCE = "requests under way at once"
_OUTAGE = "outage"  # which older results have, and `processors` asks now


def draw(result: Result) -> Figure:
    """The first of the figures below that ``result`` has something for. Raises ValueError when there is none."""
    if has(result, "throughput", LATENCY):
        return draw_latency(result)
    if has(result, "throughput", WORKERS):
        return draw_workers(result)
    return draw_arms(result) if _summary(result)["comparisons"] else draw_sweep(result)


def draw_sweep(result: Result) -> Figure:
    """Tokens per second, time to first token and time per token of the engine alone, against concurrency.

    A dashed line is the ceiling, where the device's is known. Raises ValueError for a result without a sweep.
    """
    points = [point for point in _summary(result)["points"] if point["phase"] == SWEEP]
    if not points:
        raise ValueError("this result has no sweep")
    told = error_bars(points[0]["output_tokens_per_second"])
    text = _about(result, f"The engine alone. Prompt/answer; medians. {told}")
    with page(result, text, 1, len(_FIGURES), grid="both", figsize=(11, 4.2)) as (figure, panels):
        lengths = sorted({(point["input_len"], point["output_len"]) for point in points})
        for axes, (name, label) in zip(panels, _FIGURES, strict=True):
            for number, length in enumerate(lengths):
                of_length = [point for point in points if (point["input_len"], point["output_len"]) == length]
                counts = [point["concurrency"] for point in of_length]
                curve(axes, counts, [point[name] for point in of_length], number, f"{length[0]}/{length[1]} tokens")
                ceilings = [point["ceiling"] for point in of_length]
                if name == _FIGURES[0][0] and all(ceilings):
                    look = {"linestyle": "--", "linewidth": 1, "color": OKABE_ITO[number], "label": "its ceiling"}
                    axes.plot(counts, ceilings, **look)
            axes.yaxis.set_major_formatter("{x:,g}")
            count_axis(axes, sorted({point["concurrency"] for point in points}), _AT_ONCE)
            axes.set_title(label)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    return figure


def draw_arms(result: Result) -> Figure:
    """Output tokens per second of each way over those of the proxy without a callback, at each load.

    The grey band is what two equal proxies show of each other. Raises ValueError for a result without them.
    """
    compared = [entry for entry in _summary(result)["comparisons"] if entry["against"] == "proxy"]
    if not compared:
        raise ValueError("this result compares no arms")
    loads = sorted({entry["concurrency"] for entry in compared})
    told = f"{error_bars(compared[0]['ratio'])} Grey: what two equal proxies show of each other."
    text = _about(result, f"Paired by repeat. {told}")
    shape: Any = {"figsize": (11, 3.9), "sharex": True, "sharey": True, "squeeze": False}
    with page(result, text, 1, len(loads), **shape) as (figure, panels):
        for axes, load in zip(panels[0], loads, strict=True):
            _ratios(axes, [entry for entry in compared if entry["concurrency"] == load])
            axes.set_title(f"{load} {_AT_ONCE}")
            axes.set_xlabel("output tokens per second, over the proxy without a callback")
    return figure


def _ratios(axes: Any, entries: Sequence[Mapping[str, Any]]) -> None:
    if null := next((entry["ratio"] for entry in entries if entry["arm"] == PROXY_AGAIN), None):
        axes.axvspan(min(null["low"], 1 / null["high"]), max(null["high"], 1 / null["low"]), color="#DDDDDD", zorder=0)
    axes.axvline(1, color=_INK, linewidth=1)
    for place, entry in enumerate(entries):
        medians, ends = bars([entry["ratio"]])
        # Filled where it is a difference: to be seen without colour.
        claimed = entry["differs"] and not Ratio(**entry["ratio"]).is_range
        look = {"color": OKABE_ITO[0], "markerfacecolor": OKABE_ITO[0] if claimed else "white"}
        axes.errorbar(medians, [place], xerr=ends, fmt="o", capsize=3, markersize=6, **look)
    axes.set_yticks(range(len(entries)), [_NAMES[entry["arm"]] for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)


def draw_open(result: Result) -> Figure:
    """From the intended time to the last token, in an open loop.

    Raises ValueError for a result without one.
    """
    summary = _summary(result)
    titles = {OPEN: "The collector answers", _OUTAGE: "The collector is away"}
    panels_of = [(title, summary[phase]) for phase, title in titles.items() if summary.get(phase)]
    if not panels_of:
        raise ValueError("this result has no open loop")
    text = _about(result, "Open loop, Poisson arrivals; a percentage is the share of them that was answered.")
    shape: Any = {"figsize": (11, 3.9), "squeeze": False, "sharex": True}
    with page(result, text, 1, len(panels_of), **shape) as (figure, panels):
        for axes, (title, entries) in zip(panels[0], panels_of, strict=True):
            order = sorted(entries, key=lambda entry: ARMS.index(entry["arm"]))
            for at, label, marker, fill in (("p50", "median", "o", _INK), ("p99", "99th percentile", "D", "white")):
                times = [entry[f"e2el_{at}_ms"] for entry in order]
                places = [place for place, time in enumerate(times) if time]
                look = {"color": _INK, "markerfacecolor": fill, "label": label, "markersize": 6}
                axes.plot([time for time in times if time], places, marker, **look)
            log_x(axes)
            axes.set_yticks(range(len(order)), [_with_share(entry) for entry in order])
            axes.set_ylim(len(order) - 0.5, -0.5)
            axes.set_title(f"{title}, {entries[0]['rate']:.3g} requests/s")
            axes.set_xlabel("ms from the intended time to the last token")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _with_share(entry: Mapping[str, Any]) -> str:
    share = entry["answered_share"]
    return _NAMES[entry["arm"]] + ("" if share == 1 else f"\n{share:.0%} answered")


def draw_workers(result: Result) -> Figure:
    """Requests per second, CPU time for a request and busy cores, against the number of workers.

    Raises ValueError for a result without workers.
    """
    summary = part(result, "throughput", WORKERS)
    counts = sorted({row["workers"] for row in summary["rows"]})
    text = (
        f"LiteLLM {result.packages['litellm']} in front of the mock, 16 requests at a time; medians. "
        f"{error_bars(summary['rows'][0]['requests_per_second'])} Dashed: the cores that there are."
    )
    with page(result, text, 1, len(_WORKER_FIGURES), grid="both", figsize=(11, 3.9)) as (figure, panels):
        for axes, (name, title) in zip(panels, _WORKER_FIGURES, strict=True):
            for number, (arm, label, colour) in enumerate(_WORKER_ARMS):
                points = [row[name] for row in summary["rows"] if row["arm"] == arm]
                curve(axes, np.array(counts) * (0.98, 1.02)[number], points, number, label, color=colour)
            count_axis(axes, counts, "workers of the proxy")
            axes.set_title(title)
        panels[-1].set_ylim(top=1.1 * summary["cores"])
        panels[-1].axhline(summary["cores"], color=GREY, linestyle="--", linewidth=1)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def draw_latency(result: Result) -> Figure:
    """The real engine and the mock fitted to it: time to first token, and per output token, against concurrency.

    Points are medians over rounds, bars their intervals, the line is the fitted model. Raises ValueError for a result
    without a fit.
    """
    summary = part(result, "throughput", LATENCY)
    engine: Any = result.summary["engine"]
    samples = samples_of(result, LATENCY)
    lengths = sorted(
        {length for sample in samples for length in sample.get("prompt_tokens_each", [sample.get("input_len")])}
    )
    output = samples[0].get("max_tokens") or samples[0]["output_len"]
    text = (
        f"vLLM {engine['version']} ({engine['kind']}), {engine['shape']} model with random weights; "
        f"{'-'.join(map(str, lengths))} prompt and {output} output tokens, streamed, closed loop. "
        f"{error_bars(summary['curves']['engine'][0]['ttft_ms'])}"
    )
    titles = (("ttft_ms", "ttft", "Time to first token"), ("tpot_ms", "tpot", "Time per output token"))
    with page(result, text, 1, 2, grid="both", figsize=(10, 4.3)) as (figure, panels):
        for axes, (name, line, title) in zip(panels, titles, strict=True):
            fitted = summary["fit"][line]
            counts = np.array([point["concurrency"] for point in summary["curves"]["engine"]])
            axis = np.geomspace(counts[0], counts[-1], 200)
            model = fitted["base_ms"] + fitted["per_other_ms"] * (axis - 1)
            axes.plot(axis, model, color=GREY, linewidth=1, linestyle="--", label="fitted model")
            for number, (arm, label, colour, shift) in enumerate(
                (
                    ("engine", "real vLLM", OKABE_ITO[0], 0.97),
                    ("mock", "mock with the fitted model", OKABE_ITO[5], 1.03),
                )
            ):
                points = [point[name] for point in summary["curves"][arm]]
                curve(axes, shift * counts, points, number, label, color=colour, linestyle="")
            count_axis(axes, counts.tolist(), _AT_ONCE)
            axes.set_title(title)
            axes.set_ylabel("milliseconds, median")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def _summary(result: Result) -> Any:
    require(result, "throughput")
    return result.summary


def _about(result: Result, text: str) -> str:
    engine = _summary(result)["engine"]
    about = " ".join(filter(None, (engine["kind"], engine["version"], engine["shape"])))
    return f"{about}, {caveat(engine['kind'])}. {text} Load: vllm bench serve."
