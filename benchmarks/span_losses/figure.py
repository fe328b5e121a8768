"""The figure of `span_losses`."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.harness.figures import caption, require, when_and_where
from benchmarks.harness.results import Result
from benchmarks.span_losses.findings import NAMES, scenario_in_words
from benchmarks.span_processors.findings import to_words
from workbook.figures import OKABE_ITO, STYLE

# Told apart without colour too.
_MARKERS = {
    "simple": (OKABE_ITO[1], "s"),
    "batch": (OKABE_ITO[5], "o"),
    "batch_flushing": (OKABE_ITO[3], "v"),
    "batch_tuned": (OKABE_ITO[4], "^"),
    "durable": (OKABE_ITO[0], "D"),
}


def draw(result: Result) -> Figure:
    """What share of its spans each run lost, by scenario and processor; one point for each run.

    ``result`` is one of `span_losses`; raises ValueError for any other.
    """
    require(result, "span_losses")
    rows: Any = result.summary["rows"]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    labels, place = {}, 0
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure: Figure
        figure, axes = plt.subplots(figsize=(10, 1.2 + 0.3 * (len(rows) + len(scenarios))))
        for scenario in scenarios:
            heading = scenario_in_words(scenario, result.parameters)
            axes.annotate(heading, (0, place), (0, -2), textcoords="offset points", weight="bold", va="center")
            for row in (row for row in rows if row["scenario"] == scenario):
                place += 1
                labels[place] = NAMES[row["processor"]]
                _draw_row(axes, place, row, result)
            place += 1
        axes.set_yticks(list(labels), list(labels.values()))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(place - 0.4, -0.7)
        highest = max(row["most_dropped_share"] for row in rows)
        axes.set_xlim(-0.02, 1.5 * highest + 0.1)  # room for the numbers
        axes.set_xticks([tick / 10 for tick in range(11) if tick / 10 < highest + 0.1])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("lost, of the spans that had ended")
        caption(figure, result, _text(result))
    plt.close(figure)
    return figure


def _draw_row(axes: Any, place: int, row: Any, result: Result) -> None:
    colour, marker = _MARKERS[row["processor"]]
    samples: list[Any] = [
        sample
        for sample in result.samples
        if (sample["scenario"], sample["processor"]) == (row["scenario"], row["processor"])
    ]
    shares = [sample["dropped"] / max(1, sample["ended"]) for sample in samples]
    axes.plot([min(shares), max(shares)], [place, place], color=colour, linewidth=1.5)
    axes.plot(shares, [place] * len(shares), marker, color=colour, markersize=7, clip_on=False)
    few, most = row["fewest_dropped"], row["most_dropped"]
    text = f"{few:,} lost" if few == most else f"{few:,} to {most:,} lost"
    if row["ended"] < 0.9 * row["due"]:
        text += f"; made {row['ended'] / row['due']:.0%} of what was due"
    axes.annotate(text, (max(shares), place), (9, 0), textcoords="offset points", va="center", fontsize=8)


def _text(result: Result) -> str:
    parameters, packages = result.parameters, result.packages
    return (
        f"{when_and_where(result)}. OpenTelemetry {packages['opentelemetry-sdk']}, "
        f"{to_words(str(parameters['protocol']))}; one point for each of {parameters['runs']} processes, which make "
        f"{parameters['rate']:g} spans per second, or a burst of {parameters['burst']:,}. What waits in a file is not "
        "lost: it was sent by the next process."
    )
