"""What figures of stored results share. Nothing is drawn that is not in a result file."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.harness.index import banner
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import Interval

_CAPTION_WIDTH = 150  # characters


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
        text += f" NOT FOR QUOTING: {'; '.join(result.validity.reasons)[:200]}"
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
        points = [measured[arm][quantity] for arm in names]
        medians = np.array([point["median"] for point in points])
        ends = np.array([[point["low"], point["high"]] for point in points]).T
        places = np.arange(len(names)) + min(0.25, 0.75 / len(shown)) * (number - (len(shown) - 1) / 2)
        axes.errorbar(
            medians, places, xerr=np.abs(ends - medians), fmt=marker, color=colour, markersize=5, capsize=3, label=label
        )
        for median, end, place in zip(medians, ends[1], places, strict=True):
            text = f"{median:,.0f}" if median >= 100 else f"{median:.2g}"
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # over the line of a target
            axes.annotate(text, (end, place), (6, 0), textcoords="offset points", va="center", fontsize=8, bbox=box)
    log_x(axes)
    axes.margins(x=0.15)
    axes.set_yticks(range(len(names)), list(names.values()))
    axes.set_ylim(len(names) - 0.5, -0.5)
