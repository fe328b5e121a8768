"""What figures of stored results share. Nothing is drawn that is not in a result file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.harness.index import banner
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import Interval
from workbook.figures import OKABE_ITO, STYLE

_CAPTION_WIDTH = 150  # characters


MARKERS = ("o", "s", "^", "D", "v")
GREY = "#666666"


@contextmanager
def page(
    result: Result, text: str, rows: Any = 1, columns: int = 1, *, grid: str = "x", **layout: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure and its axes, to be drawn on: ``rows`` and ``columns`` of them, or a mosaic in place of ``rows``.

    Below it stands where ``result`` comes from, then ``text``.
    """
    with mpl.rc_context({**STYLE, "axes.grid.axis": grid, "axes.titlesize": 10}):
        if isinstance(rows, int):
            figure, axes = plt.subplots(rows, columns, **layout)
        else:
            figure, axes = plt.subplot_mosaic(rows, **layout)
        yield figure, axes
        caption(figure, result, f"{when_and_where(result)}. {text}")
    plt.close(figure)


def bars(points: Sequence[Mapping[str, float]]) -> tuple[Any, Any]:
    """Medians, and how far the ends of their intervals are from them, below and above."""
    medians = np.array([point["median"] for point in points])
    ends = np.array([[point["low"], point["high"]] for point in points]).T
    return medians, np.abs(ends - medians)


def curve(axes: Any, counts: Any, points: Sequence[Mapping[str, float]], look: int, label: str, **more: Any) -> None:
    """A line through medians with their intervals against ``counts``; the ``look`` is told apart without colour."""
    medians, ends = bars(points)
    colour = more.pop("color", OKABE_ITO[look])
    axes.errorbar(
        *(counts, medians, ends),
        **{"marker": MARKERS[look % len(MARKERS)], "color": colour, "label": label, "markersize": 6, "capsize": 3},
        **{"linewidth": 1.4, "markerfacecolor": "white" if look % 2 else colour, **more},
    )


def count_axis(axes: Any, counts: Sequence[int], label: str) -> None:
    """A horizontal axis on which each of ``counts`` is twice as far as its half; the vertical one begins at 0."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(label)


def require(result: Result, benchmark: str) -> None:
    """Raises ValueError when ``result`` is not one of ``benchmark``."""
    if result.benchmark != benchmark:
        raise ValueError(f"this figure shows a result of {benchmark}, not of {result.benchmark}")


def when_and_where(result: Result) -> str:
    """Date and processor, as a caption begins."""
    machine = result.machine
    processor = machine.devices[0].name if machine.devices else f"{machine.cores} cores of {machine.cpu_model}, CPU"
    return f"{result.started:%Y-%m-%d}, {processor}"


def error_bars(interval: Mapping[str, Any]) -> str:
    """The sentence that says what error bars such as the stored ``interval`` show."""
    return f"Bars: {Interval(**interval).kind}."


def caption(figure: Any, result: Result, text: str) -> None:
    """``text`` below ``figure``, with the reasons why ``result`` is not for quoting; above it the `banner`, if any."""
    if not result.validity.valid:
        text += f" NOT FOR QUOTING: {textwrap.shorten('; '.join(result.validity.reasons), 200, placeholder=' ...')}"
    figure.supxlabel(textwrap.fill(text, _CAPTION_WIDTH), x=0.01, ha="left", fontsize=8)
    if told := banner(result):
        look = {"fontsize": 10, "color": "white", "backgroundcolor": "#B00020"}
        figure.suptitle(textwrap.fill(told, 60), x=0.01, ha="left", **look)


def log_x(axes: Any) -> None:
    """A logarithmic horizontal axis, after what is drawn on it, with plain numbers, as many as have room."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def points_panel(axes: Any, measured: Mapping[str, Any], names: Mapping[str, str], shown: Any) -> None:
    """One row for each of ``names``, and in it one point with its interval for each quantity of ``shown``."""
    for number, (quantity, label, colour, marker) in enumerate(shown):
        rows = [
            (place, measured[arm][quantity]) for place, arm in enumerate(names) if quantity in measured.get(arm, {})
        ]
        medians, ends = bars([point for _, point in rows])
        shift = min(0.25, 0.75 / len(shown)) * (number - (len(shown) - 1) / 2)
        places = [place + shift for place, _ in rows]
        look = {"fmt": marker, "color": colour, "markersize": 5, "capsize": 3, "label": label}
        axes.errorbar(medians, places, xerr=ends, **look)
        for median, above, place in zip(medians, ends[1], places, strict=True):
            text = f"{median:,.0f}" if median >= 100 else f"{median:.2g}"
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # over the line of a target
            end = (median + above, place)
            axes.annotate(text, end, (6, 0), textcoords="offset points", va="center", fontsize=8, bbox=box)
    log_x(axes)
    axes.margins(x=0.15)
    axes.set_yticks(range(len(names)), list(names.values()))
    axes.set_ylim(len(names) - 0.5, -0.5)
