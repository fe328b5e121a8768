"""The figures of `processors`: what a span costs, what is lost by processes and by the proxy, and who waits."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from benchmarks.harness.figures import GREY, error_bars, log_x, page, points_panel
from benchmarks.harness.results import Result
from benchmarks.harness.successors import has, part, samples_of
from benchmarks.processors import names
from benchmarks.processors.findings import AT_A_TIME, pace_in_words, scenario_in_words
from benchmarks.processors.names import to_words
from otel_cost_logger.settings import HTTP_PROTOBUF
from workbook.figures import OKABE_ITO

_BENCHMARK = "processors"
# What is shown, with a marker each: told apart without colour too.
_COSTS = (
    ("on_end_cpu", "caller's CPU time in on_end", OKABE_ITO[0], "o"),
    ("callback_cpu", "caller's CPU time, with making the span", OKABE_ITO[1], "s"),
    ("callback_wall", "caller's wall time, with making the span", OKABE_ITO[2], "^"),
    ("total_cpu", "CPU time in all, from on_end until confirmed", OKABE_ITO[5], "D"),
)
_RATES = (("per_cpu_second", "per CPU second", OKABE_ITO[2], "o"), ("per_second", "per second", OKABE_ITO[3], "s"))
_COST_NAMES = {
    **{name: names.NAMES[name] for name in ("simple", "batch", "batch_tuned", names.DURABLE)},
    names.DURABLE_NOTED: "Durable,\ncalls noted before",
    names.DURABLE_FULL: "Durable, sync=full,\nthread waits for disk",
}
_DRAIN_NAMES = {"drain": "Durable,\nfrom a file", "exporter_alone": "exporter alone,\nfrom memory"}
_LOSS_MARKERS = {
    "simple": (OKABE_ITO[1], "s"),
    "batch": (OKABE_ITO[5], "o"),
    "batch_flushing": (OKABE_ITO[3], "v"),
    "batch_tuned": (OKABE_ITO[4], "^"),
    "durable": (OKABE_ITO[0], "D"),
}
# What can become of a record: told apart without colour by lightness and hatch.
_BAR = {"edgecolor": "white", "linewidth": 0.6}
_FATES: dict[str, dict[str, Any]] = {
    "exported at once": {"facecolor": OKABE_ITO[0]},
    "exported later, from the file": {"facecolor": OKABE_ITO[4], "hatch": "///"},
    "still pending": {"facecolor": OKABE_ITO[6], "hatch": "..."},
    "dropped": {"facecolor": "white", "hatch": "xxxx", "edgecolor": OKABE_ITO[5]},
}
_BAD_DAYS = {
    names.KILL: "proxy killed with kill -9, and started again",
    names.AWAY: "collector gone for {seconds:g} s",
    names.REFUSES: "collector answers 503 for {seconds:g} s",
    names.SLOW: "collector takes 1 s for each export, for {seconds:g} s",
}
# Also the place within a row.
_STATES = {names.ALIVE: (OKABE_ITO[0], "o", -0.15), names.DEAD: (OKABE_ITO[5], "D", 0.15)}
_STEPS = {names.REQUEST: "A request", names.PROBE: "GET /health/liveliness"}


def draw(result: Result) -> Figure:
    """The figure of the first phase that ``result`` has. Raises ValueError when it has none."""
    figures = {
        names.COSTS: draw_costs,
        names.LOSSES: draw_losses,
        names.PROXY: draw_proxy,
        names.COLLECTOR: draw_collector,
    }
    for phase, figure in figures.items():
        if has(result, _BENCHMARK, phase):
            return figure(result)
    raise ValueError(f"{result.benchmark} has no phase that is drawn")


def draw_costs(result: Result) -> Figure:
    """What a span costs with each processor and exporter, and how fast a backlog of spans is sent.

    Points are medians over rounds, bars their intervals. Raises ValueError for a result without costs.
    """
    summary = part(result, _BENCHMARK, names.COSTS)
    by_exporter, setting = summary["microseconds_per_span"], summary["setting"]
    drained = summary["targets"][HTTP_PROTOBUF]["drained_per_cpu_second"]
    text = (
        f"OpenTelemetry {result.packages['opentelemetry-sdk']}; OTLP to a receiver in another process that counts and "
        f"discards, the console's text to /dev/null; spans of {setting['attributes']} attributes, {setting['bytes']:,} "
        f"bytes, in bursts of {result.parameters['burst']:,}; a backlog of {result.parameters['backlog']:,}. "
        f"{error_bars(drained['measured'])} Logarithmic scales."
    )
    with page(result, text, 2, 2, figsize=(11, 9.6), height_ratios=(3, 2)) as (figure, panels):
        (first, second), (third, rates) = panels
        costs = {"http/protobuf": first, "grpc": second, "console": third}
        for exporter, axes in costs.items():
            shown = {arm: name for arm, name in _COST_NAMES.items() if arm in by_exporter[exporter]}
            points_panel(axes, by_exporter[exporter], shown, _COSTS)
            axes.set_title(f"What a span costs, {to_words(exporter)}")
            axes.set_xlabel("microseconds for each span")
        limits = [axes.get_xlim() for axes in costs.values()]
        for axes in costs.values():
            axes.set_xlim(min(low for low, _ in limits), 2 * max(high for _, high in limits))  # room for the numbers
        points_panel(rates, summary["spans_per_second"][HTTP_PROTOBUF], _DRAIN_NAMES, _RATES)
        target = drained["limit"]
        rates.axvline(target, color=GREY, linewidth=1, linestyle="--", label=f"target, {target:,g}")
        rates.set_title(f"How fast a backlog is sent, {to_words(HTTP_PROTOBUF)}")
        rates.set_xlabel("spans")
        rates.legend(loc="upper center", bbox_to_anchor=(0.45, -0.13), fontsize=8, ncols=3)
        figure.legend(*first.get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=9)
    return figure


def draw_losses(result: Result) -> Figure:
    """What share of its spans each run lost, by scenario and processor; one point for each run.

    Raises ValueError for a result without losses.
    """
    rows = part(result, _BENCHMARK, names.LOSSES)["rows"]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    text = (
        f"OpenTelemetry {result.packages['opentelemetry-sdk']}, {to_words(str(result.parameters['protocol']))}; one "
        f"point for each of {result.parameters['runs']} processes, which make {pace_in_words(result.parameters)}. What "
        "waits in a file is not lost: it was sent by the next process."
    )
    labels, place = {}, 0
    with page(result, text, figsize=(10, 1.2 + 0.3 * (len(rows) + len(scenarios)))) as (figure, axes):
        for scenario in scenarios:
            _heading(axes, scenario_in_words(scenario, result.parameters), place, -2)
            for row in (row for row in rows if row["scenario"] == scenario):
                place += 1
                labels[place] = names.NAMES[row["processor"]]
                _draw_loss(axes, place, row, samples_of(result, names.LOSSES))
            place += 1
        axes.set_yticks(list(labels), list(labels.values()))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(place - 0.4, -0.7)
        highest = max(row["most_dropped_share"] for row in rows)
        axes.set_xlim(-0.02, 1.5 * highest + 0.1)  # room for the numbers
        axes.set_xticks([tick / 10 for tick in range(11) if tick / 10 < highest + 0.1])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("lost, of the spans that had ended")
    return figure


def _heading(axes: Any, text: str, place: int, shift: int) -> None:
    axes.annotate(text, (0, place), (0, shift), textcoords="offset points", weight="bold", va="center")


def _draw_loss(axes: Any, place: int, row: Any, samples: list[Any]) -> None:
    colour, marker = _LOSS_MARKERS[row["processor"]]
    which = (row["scenario"], row["processor"])
    shares = [
        sample["dropped"] / max(1, sample["ended"])
        for sample in samples
        if (sample["scenario"], sample["processor"]) == which
    ]
    axes.plot([min(shares), max(shares)], [place, place], color=colour, linewidth=1.5)
    axes.plot(shares, [place] * len(shares), marker, color=colour, markersize=7, clip_on=False)
    few, most = row["fewest_dropped"], row["most_dropped"]
    text = f"{few:,} lost" if few == most else f"{few:,} to {most:,} lost"
    if row["ended"] < 0.9 * row["due"]:
        text += f"; made {row['ended'] / row['due']:.0%} of what was due"
    axes.annotate(text, (max(shares), place), (9, 0), textcoords="offset points", va="center", fontsize=8)


def draw_proxy(result: Result) -> Figure:
    """What became of the proxy's records with each processor in each scenario, and what it answered meanwhile.

    Raises ValueError for a result without them.
    """
    rows = part(result, _BENCHMARK, names.PROXY)["rows"]
    of_scenario: dict[str, list[str]] = {}
    for row in rows:
        of_scenario.setdefault(row["scenario"], []).append(row["processor"])
    # Of each group the first place is its heading's.
    height = 1 + max(map(len, of_scenario.values()))
    heads = {scenario: height * number for number, scenario in enumerate(of_scenario)}
    places = [heads[row["scenario"]] + 1 + of_scenario[row["scenario"]].index(row["processor"]) for row in rows]
    text = (
        f"{result.parameters['calls']:,} calls for each bar, {AT_A_TIME} at a time, to the LiteLLM "
        f"{result.packages['litellm']} proxy with the mock of vLLM behind it; OpenTelemetry "
        f"{result.packages['opentelemetry-sdk']}, default settings, one run of each. A bar is shorter where calls were "
        "not answered. While the collector failed half of the calls were made, or as many as the proxy answered."
    )
    with page(result, text, 1, 2, figsize=(10, 6), sharey=True, width_ratios=(5, 3)) as (figure, (fates, rates)):
        _fates_panel(fates, rows, places)
        timed = [(place, row["per_second_in_outage"]) for place, row in zip(places, rows, strict=True)]
        timed = [(place, rate) for place, rate in timed if rate is not None]
        bars = rates.barh([place for place, _ in timed], [rate for _, rate in timed], 0.72, color=GREY)
        rates.bar_label(bars, [f"{rate:.3g}" for _, rate in timed], padding=3)
        rates.margins(x=0.15)
        rates.set_xlim(left=0)
        rates.set_xlabel("calls answered per second")
        rates.set_title("Meanwhile, at the proxy")
        for scenario, head in heads.items():
            _heading(fates, _BAD_DAYS[scenario].format(seconds=result.parameters["outage_seconds"]), head, -4)
        fates.set_yticks(places, [row["processor"] for row in rows])
        fates.set_ylim(height * len(heads) - 0.4, -0.6)
        for axes in (fates, rates):
            axes.tick_params(axis="y", length=0)
        key = [Patch(label=name, **{**_BAR, **look}) for name, look in _FATES.items()]
        figure.legend(handles=key, loc="outside upper right", ncols=2)
    return figure


def _fates_panel(axes: Any, rows: Any, places: list[int]) -> None:
    left = np.zeros(len(rows))
    late = [min(row["pending_after_outage"] or 0, row["exported"]) for row in rows]
    counts = (
        [row["exported"] - later for row, later in zip(rows, late, strict=True)],
        late,
        *([row[name] for row in rows] for name in ("pending", "dropped")),
    )
    for (name, look), widths in zip(_FATES.items(), counts, strict=True):
        bars = axes.barh(places, widths, 0.72, left=left, label=name, **{**_BAR, **look})
        for bar, width in zip(bars, widths, strict=True):
            bar.set_visible(width > 0)  # an edge without a bar would look like one
        left += np.array(widths, dtype=float)
    for place, row, end in zip(places, rows, left, strict=True):
        if row["dropped"]:
            axes.annotate(f"{row['dropped']:,} dropped", (end, place), (4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.2 * max(left))
    axes.set_xlabel("records of answered calls")
    axes.set_title("What became of the records")


def draw_collector(result: Result) -> Figure:
    """How long each request and each probe took, with each processor; one point for each.

    Raises ValueError for a result without them.
    """
    summary, samples = part(result, _BENCHMARK, names.COLLECTOR), samples_of(result, names.COLLECTOR)
    text = (
        f"LiteLLM {result.packages['litellm']} proxy, one worker, with the mock of vLLM behind it; OpenTelemetry "
        f"{result.packages['opentelemetry-sdk']}, {to_words(str(result.parameters['protocol']))}, default settings. "
        f"One caller, one request at a time; {len({sample['round'] for sample in samples})} rounds of two requests and "
        "a probe. Logarithmic scale."
    )
    with page(result, text, 1, 2, figsize=(10, 3.6), sharex=True, sharey=True) as (figure, panels):
        for axes, (step, title) in zip(panels, _STEPS.items(), strict=True):
            for state, (colour, marker, offset) in _STATES.items():
                shown = [sample for sample in samples if (sample["step"], sample["collector"]) == (step, state)]
                places = [names.PROCESSORS.index(sample["processor"]) + offset for sample in shown]
                look = {"color": colour, "markersize": 6, "fillstyle": "none", "label": f"collector {state}"}
                axes.plot([sample["seconds"] for sample in shown], places, marker, **look)
            axes.set_title(title)
            axes.set_xlabel("seconds until the answer")
        limit = {"color": GREY, "linewidth": 1, "linestyle": "--", "label": "a probe's default time-out"}
        panels[1].axvline(summary["probe_limit_seconds"], **limit)
        log_x(panels[0])
        panels[0].set_yticks(range(len(names.PROCESSORS)), [names.NAMES[processor] for processor in names.PROCESSORS])
        panels[0].set_ylim(len(names.PROCESSORS) - 0.5, -0.5)
        figure.legend(*panels[1].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure
