"""What the samples of `callback_overhead` say: costs and ratios with intervals, sentences, reasons to distrust them.

A sample has a ``part``:

- ``calls``: one block of ``calls`` in one ``mode`` with one ``arm`` in round ``round``; ``records`` left of them;
  ``seconds`` that the callers waited; CPU seconds of the ``process``, of the ``hooks`` (thread time inside them), of
  those ``before`` the call among them, and of ``record``, ``attributes`` and ``span`` where these were timed.
  ``others_cores`` is what everybody else used of the machine.
- ``others``: the same in the environment of the other instrumentations.
- ``memory``: how much the process has grown, ``grown_bytes``, after ``calls`` calls were reported to callback ``arm``.
- ``import``: CPU and wall time to import LiteLLM, and the plugin (or LiteLLM's own integration) after it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.callback_overhead.names import (
    ASYNC,
    BARE_SPAN,
    JSON_LINE,
    MODES,
    NAIVE,
    NONE,
    NOOP,
    NOOP_AGAIN,
    OTEL_V1,
    OTEL_V2,
    OTHERS,
    OURS,
    OURS_AGAIN,
    OURS_BATCH,
    OURS_DURABLE,
    OURS_PARTS,
    OURS_SIMPLE,
    OURS_SLOWER,
    PLANTED,
    SYNC,
)
from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.faults import busy, too_few, uneven
from benchmarks.harness.rounds import Rounds, Sample, per, stored
from benchmarks.harness.statistics import Interval, Ratio, differs, in_brackets, ranked, rounds_to_notice
from benchmarks.harness.targets import Target

MOST_OVER_BARE_SPAN = 2.0
LEAST_BELOW_OTHERS = 5.0  # the naive callback and LiteLLM's own, over ours
LEAST_BELOW_SIMPLE = 8.0  # Simple + OTLP over Batch + OTLP, for the caller

MINIMUM_ROUNDS = 20
# Five ratios are held against a target, and the planted change against noise. Other numbers are for orientation.
COMPARISONS = 6
CALLS, OTHER_CALLS, MEMORY, IMPORT = "calls", "others", "memory", "import"

NAMES = {
    NONE: "no callback",
    NOOP: "hooks that do nothing",
    NOOP_AGAIN: "hooks that do nothing, again",
    JSON_LINE: "a line of JSON",
    BARE_SPAN: "a bare SDK span, same attributes",
    OURS: "ours",
    OURS_AGAIN: "ours, again",
    OURS_PARTS: "ours, timed inside",
    OURS_SLOWER: "ours, a tenth slower",
    NAIVE: "the tutorial's naive callback",
    OTEL_V1: "LiteLLM's OpenTelemetry, v1",
    OTEL_V2: "LiteLLM's OpenTelemetry, v2",
    OURS_BATCH: "ours, Batch + OTLP",
    OURS_DURABLE: "ours, Durable + OTLP",
    OURS_SIMPLE: "ours, Simple + OTLP",
    "openinference": "OpenInference",
    "openllmetry": "OpenLLMetry",
    "openlit": "OpenLIT",
}

_hooks_cpu = per("hooks_cpu_seconds", "calls")
_process_cpu = per("process_cpu_seconds", "calls")
_wall = per("seconds", "calls")
# CPU time in the hooks, async calls: what targets are about, and what explains them.
_PAIRS = {
    "hooks_cpu_ours_over_bare_span": (OURS, BARE_SPAN),
    "hooks_cpu_ours_over_json_line": (OURS, JSON_LINE),
    **{f"hooks_cpu_{arm}_over_ours": (arm, OURS) for arm in (NAIVE, OTEL_V1, OTEL_V2)},
    **{f"hooks_cpu_{arm}_over_bare_span": (arm, BARE_SPAN) for arm in (NAIVE, OTEL_V1, OTEL_V2)},
    "hooks_cpu_simple_over_batch": (OURS_SIMPLE, OURS_BATCH),
    "hooks_cpu_simple_over_durable": (OURS_SIMPLE, OURS_DURABLE),
}
_TARGETS = {
    "hooks_cpu_ours_over_bare_span": ("ours over a bare SDK span with the same attributes", MOST_OVER_BARE_SPAN),
    "hooks_cpu_naive_over_ours": ("the tutorial's naive callback over ours", LEAST_BELOW_OTHERS),
    "hooks_cpu_otel_v1_over_ours": ("LiteLLM's OpenTelemetry v1 over ours", LEAST_BELOW_OTHERS),
    "hooks_cpu_otel_v2_over_ours": ("LiteLLM's OpenTelemetry v2 over ours", LEAST_BELOW_OTHERS),
    "hooks_cpu_simple_over_batch": ("ours with Simple + OTLP over ours with Batch + OTLP", LEAST_BELOW_SIMPLE),
}


def evaluate(
    samples: Sequence[Sample], *, setting: Mapping[str, Any], left_out: Mapping[str, str], short: bool
) -> Measurement:
    """The measurement that ``samples`` are. The same samples give the same one.

    ``setting`` is what they have in common: ``attributes`` of a span, ``packages``. ``left_out``
    says of what was not measured why. What is ``short`` is not for quoting.
    """
    calls, others = (
        Rounds([one for one in samples if one["part"] == part], "mode", "arm", comparisons=COMPARISONS)
        for part in (CALLS, OTHER_CALLS)
    )
    noop, again = (ASYNC, NOOP), (ASYNC, NOOP_AGAIN)
    nulls = {
        "hooks_cpu": calls.over(_net(calls, ASYNC, OURS), _net(calls, ASYNC, OURS_AGAIN)),
        "process_cpu": calls.ratio(noop, again, _process_cpu),
        "seconds": calls.ratio(noop, again, _wall),
    }
    null = nulls["hooks_cpu"]
    net = functools.partial(_net, calls, ASYNC)
    ratios = {name: calls.over(net(above), net(below)) for name, (above, below) in _PAIRS.items()}
    targets = {
        name: Target(f"Caller's CPU time, {what}", ratios[name], limit, null, at_most=limit == MOST_OVER_BARE_SPAN)
        for name, (what, limit) in _TARGETS.items()
    }
    planted = calls.over(_net(calls, ASYNC, OURS_SLOWER), _net(calls, ASYNC, OURS))
    noticed = differs(planted, null)
    costs = {mode: cost for mode in MODES if (cost := _costs(calls, mode))}
    costs |= {f"others_{mode}": cost for mode in MODES if (cost := _costs(others, mode))}
    breakdown = _breakdown(calls)
    memory = _memory([sample for sample in samples if sample["part"] == MEMORY])
    imports = _imports([sample for sample in samples if sample["part"] == IMPORT], calls)
    summary = {
        "setting": setting,
        "left_out": left_out,
        "microseconds_per_call": costs,
        "ratios": ratios,
        "targets": targets,
        "planted": {"hooks_cpu_slower_over_ours": planted, "detected": noticed},
        "breakdown": breakdown,
        "memory": memory,
        "imports": imports,
        "equal_things": nulls,
    }
    told = ", ".join(f"{NAMES[arm]} {ratios[f'hooks_cpu_{arm}_over_bare_span']}" for arm in (NAIVE, OTEL_V1, OTEL_V2))
    return Measurement(
        samples=list(samples),
        summary=stored(summary),
        findings=[
            *(target.sentence() for target in targets.values()),
            f"For scale: over the bare span with our attributes, {told}; a callback that makes this span with the "
            "SDK's tracer cannot be further below them than that.",
            "Microseconds of CPU time in the hooks per async call, 16 at a time, beyond hooks that do nothing, without "
            f"an exporter: {_told(costs[ASYNC], 'hooks_cpu', _ALONE)}. "
            f"Our span has {setting['attributes']} attributes, the naive one nine.",
            "Where ours goes, in microseconds, timed inside: "
            + ", ".join(f"{name.replace('_', ' ')} {part}" for name, part in breakdown.items())
            + ".",
            *(_mode_sentence(mode, arms) for mode, arms in costs.items() if mode != ASYNC),
            "With an exporter, to a receiver in another process, microseconds of CPU time per call for the caller: "
            f"{_told(costs[ASYNC], 'hooks_cpu', _EXPORTING)}; in all: "
            f"{_told(costs[ASYNC], 'process_cpu_beyond_noop', _EXPORTING)}.",
            *(
                f"Memory that stays, extrapolated to a million calls from the last stretch of one run, {NAMES[arm]}: "
                f"{found['grown_mib']:.1f} MiB after {found['calls']:,.0f} calls, then "
                f"{found['bytes_per_call_at_last']:,.0f} bytes a call, so {found['mib_per_million_calls']:,.1f} MiB."
                for arm, found in memory.items()
            ),
            *(
                f"Importing {what}, after what is named before it: {times['cpu_seconds']} ms of CPU time."
                for what, times in imports.items()
            ),
            _planted_sentence(planted, null),
            "Equal things beside each other: "
            + ", ".join(f"{name.replace('_', ' ')} {ratio}" for name, ratio in nulls.items())
            + "; nothing smaller is claimed.",
            in_brackets(calls.count, COMPARISONS),
        ],
        faults=_faults(samples, calls.count, nulls, short=short),
        caveats=[f"not measured: {what}: {why}" for what, why in left_out.items()],
    )


_ALONE = (NOOP_AGAIN, JSON_LINE, BARE_SPAN, OURS, NAIVE, OTEL_V1, OTEL_V2)
_EXPORTING = (NOOP_AGAIN, OURS_BATCH, OURS_DURABLE, OURS_SIMPLE)


def _net(rounds: Rounds, mode: str, arm: str) -> list[float]:
    """CPU time in the hooks beyond that of hooks that do nothing, which is the meter's own, by round."""
    return _less(rounds.each((mode, arm), _hooks_cpu), rounds.each((mode, NOOP), _hooks_cpu))


def _less(minuends: Sequence[float], subtrahends: Sequence[float]) -> list[float]:
    return [minuend - subtrahend for minuend, subtrahend in zip(minuends, subtrahends, strict=True)]


def _costs(rounds: Rounds, mode: str) -> dict[str, dict[str, Interval]]:
    """Of each arm: CPU time in its hooks, of the process beyond hooks that do nothing and beyond no callback, and time
    that a caller waits."""
    costs = {}
    for arm in sorted((arm for found, arm in rounds.groups if found == mode), key=list(NAMES).index):
        here, noop, none = (mode, arm), (mode, NOOP), (mode, NONE)
        costs[arm] = {
            "process_cpu": rounds.interval(here, _process_cpu),
            "process_cpu_beyond_noop": rounds.difference(here, noop, _process_cpu),
            "process_cpu_beyond_none": rounds.difference(here, none, _process_cpu),
            "seconds_beyond_noop": rounds.difference(here, noop, _wall),
            **({} if arm in (NONE, *OTHERS) else {"hooks_cpu": rounds.of(_net(rounds, mode, arm))}),
        }
    return costs


def _breakdown(calls: Rounds) -> dict[str, Interval]:
    """Where our CPU time goes. ``span`` is the span's making and its processors, without the attributes; ``rest`` is
    what is in the hooks beyond all parts: bookkeeping, guards, and the clocks of this very measurement."""

    def part(name: str, arm: str = OURS_PARTS) -> list[float]:
        return calls.each((ASYNC, arm), per(f"{name}_cpu_seconds", "calls"))

    parts = {
        "before_the_call": _less(part("hooks_before"), part("hooks_before", NOOP)),
        "record": part("record"),
        "attributes": part("attributes"),
        "span": _less(part("span"), part("attributes")),
    }
    known = [sum(values) for values in zip(*parts.values(), strict=True)]
    parts["rest"] = _less(_net(calls, ASYNC, OURS_PARTS), known)
    return {name: calls.of(values) for name, values in parts.items()}


def _memory(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """By arm: ``bytes_per_call`` while it grew, over the last stretch, and what a million calls make of them."""
    found = {}
    for arm in dict.fromkeys(sample["arm"] for sample in samples):
        points = sorted((sample["calls"], sample["grown_bytes"]) for sample in samples if sample["arm"] == arm)
        (calls, grown), (last_calls, last_grown) = points[-2:]
        slope = (last_grown - grown) / (last_calls - calls)
        found[arm] = {
            "calls": last_calls,
            "grown_mib": last_grown / 2**20,
            "bytes_per_call_at_first": points[0][1] / points[0][0],
            "bytes_per_call_at_last": slope,
            "mib_per_million_calls": (last_grown + slope * (1_000_000 - last_calls)) / 2**20,
        }
    return found


def _imports(samples: Sequence[Sample], rounds: Rounds) -> dict[str, dict[str, Interval]]:
    return {
        what: {
            name: rounds.of([float(sample[name]) * 1e3 for sample in samples if sample["what"] == what])
            for name in ("cpu_seconds", "wall_seconds")
        }
        for what in dict.fromkeys(sample["what"] for sample in samples)
    }


def _told(costs: Mapping[str, Mapping[str, Interval]], quantity: str, arms: Sequence[str]) -> str:
    nulls = [NAMES[arm] for arm in (NOOP, NOOP_AGAIN) if arm in arms and arm in costs]
    return ranked({NAMES[arm]: costs[arm][quantity] for arm in arms if arm in costs}, *nulls)


def _mode_sentence(mode: str, arms: Mapping[str, Mapping[str, Interval]]) -> str:
    if not mode.startswith("others_"):
        told = _told(arms, "hooks_cpu", (NOOP_AGAIN, BARE_SPAN, OURS, NAIVE, OTEL_V1, OTEL_V2))
        return f"In {'synchronous' if mode == SYNC else 'streamed'} calls: {told}."
    told = _told(arms, "process_cpu_beyond_none", (NOOP, NOOP_AGAIN, OURS, *OTHERS))
    return (
        f"Beside other instrumentations, in their environment, {mode.removeprefix('others_')} calls, microseconds of "
        f"the process's CPU time beyond no callback at all: {told}."
    )


def _planted_sentence(planted: Ratio, null: Ratio) -> str:
    right = "holds" if planted.low <= 1 + PLANTED <= planted.high else "does NOT hold"
    least = "" if null.claims[0] <= 0 else f"; {rounds_to_notice(1 + PLANTED, null)} rounds notice it nine times in ten"
    return (
        f"A planted regression, ours made {PLANTED:.0%} slower, shows as {planted}, which {right} the truth, and equal "
        f"things as {null}: it was {'' if differs(planted, null) else 'NOT '}noticed{least}."
    )


def _faults(samples: Sequence[Sample], rounds: int, nulls: Mapping[str, Ratio], *, short: bool) -> list[str]:
    faults = ["a short measurement, to see what happens: quote a full one (--size full)"] if short else []
    faults += too_few(rounds, MINIMUM_ROUNDS)
    for sample in samples:
        if sample["part"] in (CALLS, OTHER_CALLS) and sample.get("records") not in (None, sample["calls"]):
            where = f"{sample['part']}, round {sample['round']}, {sample['mode']}, {sample['arm']}"
            faults.append(f"{where}: {sample['records']} records of {sample['calls']} calls")
    return [*faults, *uneven(nulls), *busy(samples)]
