"""The workbook's figures, in one style: tables of spans go in, a matplotlib `Figure` comes out.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any colour vision can
tell apart; hatches keep the bars apart on a grey print. Bars start at zero. In a notebook, end the cell with the
figure itself; `save` also writes it to ``build/figures``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from workbook.alt_text import show_with_alt_text
from workbook.paths import build_dir
from workbook.traces import PHASES

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo", "**")

STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 10,
    "grid.alpha": 0.3,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
}
_INK = "#222222"
_MAX_LABELLED = 24  # bars in one panel; more values than that cannot be read
_CLOCK_STEP_MS = 0.5  # a span's start and end are measured by one clock, its phases by another

# The parts of a traced call; on a grey print neighbours differ by lightness or by their hatch.
_PARTS: dict[str, dict[str, Any]] = {
    "gateway": {"facecolor": "#56B4E9", "hatch": ""},
    "engine, beside the model": {"facecolor": "#CC79A7", "hatch": "///"},
    "queue": {"facecolor": "#F0E442", "hatch": ""},
    "prefill": {"facecolor": "#D55E00", "hatch": "..."},
    "decode": {"facecolor": "#0072B2", "hatch": ""},
}
_PART_OF_PHASE = (  # in the order of `traces.PHASES`
    *("gateway", "engine, beside the model", "queue", "prefill", "decode"),
    *("engine, beside the model", "gateway"),
)

# Cost is shown in the largest of these units in which the highest bar has a digit before the point.
_USD_UNITS = ((1.0, "USD"), (1e-3, "milli-USD"), (1e-6, "micro-USD"), (1e-9, "nano-USD"))


def save(figure: Figure, name: str) -> Path:
    """Write ``figure`` to ``build/figures/NAME.png``, without a date or a host in it; returns the path."""
    path = build_dir() / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    return path


def tokens(spans: pd.DataFrame) -> Figure:
    """Prompt and completion tokens per tenant, stacked by model; ``spans`` as `spans.read_ledger` gives them."""
    _require_rows(spans)
    with _style():
        figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
        for axes, column, title in zip(
            panels,
            ("prompt_tokens", "completion_tokens"),
            ("Prompt tokens", "Completion tokens"),
            strict=True,
        ):
            _stacked_bars(axes, _by_tenant_and_model(spans, column), "{:,.0f}", shared=axes is not panels[0])
            axes.set_title(title)
        panels[0].set_ylabel("tokens")
        _legend(figure, panels[0])
    return _finished(figure)


def cost(spans: pd.DataFrame) -> Figure:
    """Cost per tenant, stacked by model, from the integer nano-USD of ``spans``."""
    _require_rows(spans)
    nano_usd = _by_tenant_and_model(spans, "cost_nano_usd")
    highest = nano_usd.sum(axis=1).max() / 1e9
    scale, unit = next((pair for pair in _USD_UNITS if highest >= pair[0]), _USD_UNITS[-1])
    with _style():
        figure, axes = plt.subplots(figsize=(7, 4))
        _stacked_bars(axes, nano_usd / 1e9 / scale, "{:,.3g}" if highest / scale < 1000 else "{:,.0f}")
        axes.set_title("Cost per tenant and model")
        axes.set_ylabel(f"cost ({unit})")
        _legend(figure, axes)
    return _finished(figure)


def call_timeline(span: pd.Series) -> Figure:
    """One call, a row of `spans.read_ledger`: from its start to the first token, and from there to its end."""
    total = float(span["duration_ms"])
    first = span["time_to_first_token_ms"]
    if pd.isna(first):
        phases = [("answered in one piece", 0.0, total)]
    else:
        phases = [("until the first token", 0.0, float(first)), ("until the end", float(first), total)]
    with _style():
        figure, axes = plt.subplots(figsize=(8, 1.9))
        for (label, begin, end), colour, hatch in zip(phases, OKABE_ITO, HATCHES, strict=False):
            axes.barh(0, end - begin, left=begin, color=colour, hatch=hatch, edgecolor="white", label=label)
        for moment, name, side in _moments(first, total):
            axes.annotate(
                f"{name}\n{moment:.1f} ms",
                (moment, 0.4),
                (0, 12),
                textcoords="offset points",
                ha=side,
                color=_INK,
                arrowprops={"arrowstyle": "-", "color": _INK, "lw": 0.8},
            )
        axes.set_ylim(-0.45, 1.0)
        axes.set_yticks([])
        _call_axis(axes)
        _legend(figure, axes)
    return _finished(figure)


def call_trace(call: pd.Series) -> Figure:
    """One call from the gateway into the engine and back, a row of `traces.join`; the legend tells each part's time.

    Raises ValueError for a call without an engine span, and where two clocks contradict each other.
    """
    parts = _parts(call)
    with _style():
        figure, axes = plt.subplots(figsize=(8, 1.9))
        _draw_parts(axes, 0, parts)
        axes.set_yticks([])
        axes.set_ylim(-0.5, 0.5)
        _call_axis(axes)
        times = {name: sum(width for part, width in parts if part == name) for name in _PARTS}
        _parts_legend(figure, {name: f"{name}: {time:,.2f} ms" for name, time in times.items()})
    return _finished(figure)


def call_traces(calls: pd.DataFrame, labels: Sequence[str] | None = None) -> Figure:
    """Several calls like `call_trace`, one below the other, each from its own beginning.

    ``calls`` are rows of `traces.join`, drawn in their order; ``labels`` name them, their tenants otherwise.
    Raises ValueError as `call_trace` does.
    """
    _require_rows(calls)
    names = list(calls["tenant_id"] if labels is None else labels)
    with _style():
        figure, axes = plt.subplots(figsize=(8, 1.4 + 0.4 * len(calls)))
        for place, (_, call) in enumerate(calls.iterrows()):
            _draw_parts(axes, place, _parts(call))
        axes.set_yticks(range(len(calls)), names)
        axes.set_ylim(len(calls) - 0.5, -0.5)
        _call_axis(axes)
        axes.grid(True, axis="x")
        _parts_legend(figure, {name: name for name in _PARTS})
    return _finished(figure)


def calls_timeline(spans: pd.DataFrame) -> Figure:
    """Every call as a bar from its start to its end, in the row of its tenant; failed ones are hatched.

    Calls of one tenant that run at the same time are drawn above each other.
    """
    _require_rows(spans)
    tenants = sorted(spans["tenant_id"].unique())
    calls = spans.sort_values("start").assign(
        begin=(spans["start"] - spans["start"].min()).dt.total_seconds(),
        length=(spans["end"] - spans["start"]).dt.total_seconds(),
        failed=~spans["success"].fillna(False).astype(bool),
    )
    rows = [calls[calls["tenant_id"] == tenant] for tenant in tenants]
    lanes = [_lanes(row["begin"], row["length"]) for row in rows]
    height = 0.8 / (1 + max(max(taken) for taken in lanes))  # the same for all: it means nothing
    with _style():
        figure, axes = plt.subplots(figsize=(8, 1.2 + 0.7 * len(tenants)))
        for place, (row, taken) in enumerate(zip(rows, lanes, strict=True)):
            bars = axes.barh(
                place + height * (np.array(taken) - max(taken) / 2),
                row["length"],
                height * 0.9,
                left=row["begin"],
                color=OKABE_ITO[place % len(OKABE_ITO)],
                edgecolor="white",
                linewidth=0.5,
            )
            for bar, failed in zip(bars, row["failed"], strict=True):
                if failed:
                    bar.set(hatch="xxxx", edgecolor=_INK, facecolor="white")
        axes.set_yticks(range(len(tenants)), tenants)
        axes.set_ylim(len(tenants) - 0.5, -0.5)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.set_xlim(left=0)
        axes.set_xlabel("time since the first call began (s)")
        if calls["failed"].any():
            key = [Patch(facecolor="white", edgecolor=_INK, hatch="xxxx", label="not answered in full")]
            figure.legend(handles=key, loc="outside upper right")
    return _finished(figure)


def budget_left(spans: pd.DataFrame, budget_usd: float) -> Figure:
    """What each call left of a budget of ``budget_usd`` US dollars, in the order of the rows, refused calls marked."""
    _require_rows(spans)
    numbers = np.arange(1, len(spans) + 1)
    left = spans["budget_remaining_usd"].to_numpy(float)
    refused = ~spans["success"].to_numpy(bool)
    with _style():
        figure, axes = plt.subplots(figsize=(8, 3.2))
        axes.step([0, *numbers], [budget_usd, *left], where="post", color=OKABE_ITO[0])
        axes.plot(numbers[~refused], left[~refused], "o", color=OKABE_ITO[0], label="answered")
        axes.plot(numbers[refused], left[refused], "X", color=OKABE_ITO[5], markersize=8, label="refused with 429")
        axes.set(xlabel="Call", ylabel="Left of the budget (USD)", xlim=(0, len(spans) + 1))
        axes.set_title("What each call left of the budget")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(min(0.0, float(left.min())) - 0.04 * budget_usd, 1.05 * budget_usd)
        axes.legend(loc="upper right")
        return _finished(figure)


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(STYLE):
        yield


def _finished(figure: Figure) -> Figure:
    """Take ``figure`` out of pyplot's hands: a notebook shows it once, where the cell names it."""
    plt.close(figure)
    return figure


def _require_rows(spans: pd.DataFrame) -> None:
    if spans.empty:
        raise ValueError("there are no spans to draw; wait for the records first (stack.wait_for_records)")


def _by_tenant_and_model(spans: pd.DataFrame, column: str) -> pd.DataFrame:
    """The column's sums as floats: a row per tenant, a column per model, both in alphabetical order."""
    sums = spans.pivot_table(index="tenant_id", columns="model", values=column, aggfunc="sum", fill_value=0)
    return sums.sort_index().sort_index(axis=1).astype(float)


def _stacked_bars(axes: Axes, table: pd.DataFrame, number: str, *, shared: bool = False) -> None:
    positions = np.arange(len(table))
    bottom = np.zeros(len(table))
    for index, model in enumerate(table.columns):
        values = table[model].to_numpy()
        bars = axes.bar(
            positions,
            values,
            0.65,
            bottom=bottom,
            color=OKABE_ITO[index % len(OKABE_ITO)],
            hatch=HATCHES[index % len(HATCHES)],
            edgecolor="white",
            label=model,
        )
        bottom += values
    if len(table) <= _MAX_LABELLED:
        _label_totals(axes, bars, bottom, number)
    axes.set_xticks(positions, table.index, rotation=20, ha="right", rotation_mode="anchor")
    # From zero, with room for the labels; panels that share the axis need the tallest of all.
    axes.set_ylim(0, max(axes.get_ylim()[1] if shared else 0.0, 1.15 * max(bottom)) or 1.0)


def _label_totals(axes: Axes, bars: BarContainer, totals: Iterable[float], number: str) -> None:
    axes.bar_label(bars, [number.format(total) for total in totals], padding=2, color=_INK)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=min(len(labels), 4))


def _moments(first: Any, total: float) -> list[tuple[float, str, str]]:
    """What to mark on a call: when, its name, and the side of the text, so that close ones do not collide."""
    if pd.isna(first):
        return [(total, "end", "center")]
    return [(float(first), "first token", "right"), (total, "end", "left")]


def _call_axis(axes: Axes) -> None:
    """Time from a call's beginning to the right; up and down mean nothing."""
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("time since the call began (ms)")


def _parts(call: pd.Series) -> list[tuple[str, float]]:
    """Name and length (ms) of each part of a call, in order of time."""
    lengths = call[list(PHASES)]
    if lengths.isna().any():
        raise ValueError(
            f"call {call['call_id']} ({call['outcome']}) has no engine span to draw; aborted, refused and "
            "untraced calls have none"
        )
    outside = lengths.min()
    if outside < -_CLOCK_STEP_MS:
        raise ValueError(
            f"call {call['call_id']}: its engine span lies {-outside:.1f} ms outside of it; "
            "the clocks of the gateway and the engine differ"
        )
    return list(zip(_PART_OF_PHASE, lengths.clip(lower=0).astype(float), strict=True))


def _draw_parts(axes: Axes, place: float, parts: Sequence[tuple[str, float]]) -> None:
    begin = 0.0
    for name, length in parts:
        axes.barh(place, length, 0.7, left=begin, edgecolor="white", linewidth=0.5, **_PARTS[name])
        begin += length


def _parts_legend(figure: Figure, labels: Mapping[str, str]) -> None:
    key = [Patch(edgecolor="white", label=labels[name], **look) for name, look in _PARTS.items()]
    figure.legend(handles=key, loc="outside upper right", ncols=3)


def _lanes(begin: Sequence[float], length: Sequence[float]) -> list[int]:
    """For each interval, in order of begin, the lowest lane that is free again."""
    free_at: list[float] = []
    lanes = []
    for start, duration in zip(begin, length, strict=True):
        lane = next((index for index, free in enumerate(free_at) if free <= start), len(free_at))
        free_at[lane : lane + 1] = [start + duration]
        lanes.append(lane)
    return lanes


show_with_alt_text()
