"""The figure of `survival`."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.harness.figures import caption, require, when_and_where
from benchmarks.harness.results import Result
from workbook.figures import OKABE_ITO, STYLE

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


def draw(result: Result) -> Figure:
    """What became of the records with each processor in each scenario, and how many calls were answered meanwhile.

    ``result`` is one of `survival`; raises ValueError for any other.
    """
    require(result, "survival")
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
        caption(figure, result, _survival_text(result))
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
        f"{when_and_where(result)}. {parameters['calls']:,} calls for each bar, {parameters['at_a_time']} at a time, "
        f"to the LiteLLM {packages['litellm']} proxy with the mock of vLLM behind it; OpenTelemetry "
        f"{packages['opentelemetry-sdk']}, OTLP over HTTP, default settings, one run of each. A bar is shorter where "
        "calls were not answered. While the collector failed half of the calls were made, or as many as the proxy "
        "answered."
    )
