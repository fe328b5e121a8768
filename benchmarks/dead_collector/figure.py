"""The figure of `dead_collector`."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.dead_collector.findings import ALIVE, DEAD, PROBE, PROCESSORS, REQUEST
from benchmarks.harness.figures import caption, log_x, require, when_and_where
from benchmarks.harness.results import Result
from benchmarks.span_processors.findings import NAMES, to_words
from workbook.figures import OKABE_ITO, STYLE

_COLLECTORS = {  # colour, marker, and place within a row: told apart without colour too
    ALIVE: (OKABE_ITO[0], "o", -0.15),
    DEAD: (OKABE_ITO[5], "D", 0.15),
}
_STEPS = {REQUEST: "A request", PROBE: "GET /health/liveliness"}


def draw(result: Result) -> Figure:
    """How long each request and each probe took, with each processor; one point for each.

    ``result`` is one of `dead_collector`; raises ValueError for any other.
    """
    require(result, "dead_collector")
    samples: list[Any] = list(result.samples)
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure: Figure
        figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), sharex=True, sharey=True)
        for axes, (step, title) in zip(panels, _STEPS.items(), strict=True):
            for collector, (colour, marker, offset) in _COLLECTORS.items():
                shown = [sample for sample in samples if (sample["step"], sample["collector"]) == (step, collector)]
                places = [PROCESSORS.index(sample["processor"]) + offset for sample in shown]
                seconds = [sample["seconds"] for sample in shown]
                axes.plot(seconds, places, marker, color=colour, markersize=6, fillstyle="none", label=collector)
            axes.set_title(title)
            axes.set_xlabel("seconds until the answer")
        limit: Any = result.summary["probe_limit_seconds"]
        panels[1].axvline(limit, color="#666666", linewidth=1, linestyle="--", label="a probe's default time-out")
        log_x(panels[0])
        panels[0].set_yticks(range(len(PROCESSORS)), [NAMES[processor] for processor in PROCESSORS])
        panels[0].set_ylim(len(PROCESSORS) - 0.5, -0.5)
        handles, labels = panels[1].get_legend_handles_labels()
        words = [f"collector {label}" if label in _COLLECTORS else label for label in labels]
        figure.legend(handles, words, loc="outside upper right", ncols=3)
        caption(figure, result, _text(result))
    plt.close(figure)
    return figure


def _text(result: Result) -> str:
    parameters, packages = result.parameters, result.packages
    return (
        f"{when_and_where(result)}. LiteLLM {packages['litellm']} proxy, one worker, with the mock of vLLM behind it; "
        f"OpenTelemetry {packages['opentelemetry-sdk']}, {to_words(str(parameters['protocol']))}, default settings. "
        f"One caller, one request at a time; {parameters['rounds']} rounds of two requests and a probe. "
        "Logarithmic scale."
    )
