"""The figure of `proxy_scale`."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness.figures import caption, error_bars, require, when_and_where
from benchmarks.harness.results import Result
from workbook.figures import OKABE_ITO, STYLE

_ARMS = (
    ("plain", "without a callback", "o", OKABE_ITO[0]),
    ("durable", "with the durable callback", "s", OKABE_ITO[5]),
)
_PANELS = (
    ("requests_per_second", "requests per second"),
    ("proxy_cpu_ms", "ms of the proxy's CPU for a request"),
    ("busy_cores", "busy cores, of all programs"),
)


def draw(result: Result) -> Figure:
    """Requests per second, CPU time for a request and busy cores, against the number of workers.

    ``result`` is one of `proxy_scale`; raises ValueError for any other.
    """
    require(result, "proxy_scale")
    summary: Any = result.summary
    counts = sorted({row["workers"] for row in summary["rows"]})
    with mpl.rc_context({**STYLE, "axes.grid.axis": "both", "axes.titlesize": 10}):
        figure: Figure
        figure, panels = plt.subplots(1, len(_PANELS), figsize=(11, 3.9))
        for axes, (name, title) in zip(panels, _PANELS, strict=True):
            for number, (arm, label, marker, colour) in enumerate(_ARMS):
                points = [row[name] for row in summary["rows"] if row["arm"] == arm]
                medians = np.array([point["median"] for point in points])
                ends = np.array([[point["low"], point["high"]] for point in points]).T
                look = {"color": colour, "markerfacecolor": colour if number == 0 else "white", "label": label}
                axes.errorbar(
                    *(np.array(counts) * (0.98, 1.02)[number], medians, np.abs(ends - medians)),
                    **{"marker": marker, "capsize": 3, "linewidth": 1.4, "markersize": 6, **look},
                )
            axes.set_xscale("log", base=2)
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.set_xlabel("workers of the proxy")
            axes.set_title(title)
        panels[-1].set_ylim(top=1.1 * summary["cores"])
        panels[-1].axhline(summary["cores"], color="#666666", linestyle="--", linewidth=1)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
        text = (
            f"{when_and_where(result)}. LiteLLM {result.packages['litellm']} in front of the mock, "
            f"{result.parameters['connections']} requests at a time. "
            f"{error_bars(summary['rows'][0]['proxy_cpu_ms'])} Dashed: the cores that there are."
        )
        caption(figure, result, text)
    plt.close(figure)
    return figure
