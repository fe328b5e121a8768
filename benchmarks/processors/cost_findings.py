"""What the samples of costs say: costs and rates with intervals, sentences, and reasons to distrust them.

A sample is one block: ``round``, ``arm`` and ``exporter``; ``spans`` that were to be delivered, ``received`` by the
receiver's own count (or written to the console), ``confirmed`` (what flushing said); ``seconds`` until the last was
confirmed, ``process_cpu_seconds`` of this process meanwhile and ``receiver_cpu_seconds`` of the receiver;
``others_cores``, what everybody else used of the machine. Where a processor was measured also, of one ``burst`` of
spans, ``on_end_cpu_seconds`` of the calling thread and ``on_end_seconds``; of another, percentiles of single calls in
microseconds and the ``slowest_us`` of them; of a third, which is not among ``spans`` but whose spans came to
``callback_received``, ``callback_cpu_seconds`` and ``callback_seconds``, in which each span is also made. ``unwritten``
is how many a durable processor had not in its file after the first, and ``noting_cpu_seconds`` what it took before to
note the calls as dispatched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.faults import busy, too_few, uneven
from benchmarks.harness.rounds import Measure, Rounds, Sample, number, per, stored
from benchmarks.harness.statistics import Interval, Ratio, in_brackets, in_words, resolution
from benchmarks.harness.targets import Target
from benchmarks.processors.names import (
    BATCH,
    BATCH_AGAIN,
    DRAIN,
    DRAIN_AGAIN,
    DRAIN_ARMS,
    DURABLE,
    DURABLE_AGAIN,
    DURABLE_NOTED,
    EMISSION_ARMS,
    EXPORTER_ALONE,
    EXPORTERS,
    NAMES,
    PROTOCOLS,
    SIMPLE,
    Arm,
    to_words,
)
from otel_cost_logger.settings import HTTP_PROTOBUF

LEAST_SIMPLE_OVER_BATCH = 8.0  # the callback's cost with Simple over that with Batch
MOST_OVER_BATCH = 2.0  # Durable's on_end over Batch's on_end and export
MOST_OVER_SIMPLE = 0.5  # Durable's on_end over Simple's
LEAST_DRAINED = 10_000.0  # spans per second of CPU time

MINIMUM_ROUNDS = 10
WARM_UP_ROUNDS = 1
_COMPARISONS = 15  # ratios and rates that are held against a target or against 1
# Cores; a receiver that uses more may itself be what limits the rate.
_RECEIVER_LIMIT = 0.9
_TAIL = 0.001  # the 99.9th percentile is shown where ten calls or more are slower
_LEAST_IN_TAIL = 10
_SHOWN = tuple(arm for arm in EMISSION_ARMS if arm[0] in NAMES)
_RATED = {
    DRAIN: "Durable, from a file that holds encoded spans",
    EXPORTER_ALONE: "The exporter alone, which encodes spans from memory",
}

_Found = TypeVar("_Found")
_noting = per("noting_cpu_seconds", "burst")
_on_end = per("on_end_cpu_seconds", "burst")
_COSTS: dict[str, Measure] = {
    "callback_cpu": per("callback_cpu_seconds", "burst"),
    "callback_wall": per("callback_seconds", "burst"),
    "on_end_cpu": _on_end,
    "on_end_wall": per("on_end_seconds", "burst"),
    "on_end_p50": lambda sample: float(sample["on_end_p50_us"]),
    "on_end_p99": lambda sample: float(sample["on_end_p99_us"]),
    "total_cpu": per("process_cpu_seconds", "spans"),
    "receiver_cpu": per("receiver_cpu_seconds", "spans"),
}
_RATES: dict[str, Measure] = {
    "per_cpu_second": per("spans", "process_cpu_seconds", 1),
    "per_second": per("spans", "seconds", 1),
}


def slowest_kept(burst: int, rounds: int) -> int:
    """How many of the slowest calls of a burst to keep, so that the 99.9th percentile of all rounds is exact."""
    return min(burst, math.ceil(burst * rounds * _TAIL) + 1)


def evaluate(samples: Sequence[Sample], *, setting: Mapping[str, Any]) -> Measurement:
    """The measurement that ``samples`` are. The same samples give the same one.

    ``setting`` is what they have in common: ``attributes`` and ``bytes`` of a span.
    """
    rounds = Rounds(samples, "arm", "exporter", comparisons=_COMPARISONS)
    nulls = {protocol: _nulls(rounds, protocol) for protocol in PROTOCOLS}
    targets = {protocol: _targets(rounds, nulls[protocol], protocol) for protocol in PROTOCOLS}
    costs = _by_exporter(_SHOWN, lambda arm: rounds.intervals(arm, _COSTS))
    tails = _by_exporter(_SHOWN, lambda arm: _tail(rounds.groups[arm]))
    confirmed = _by_exporter(_SHOWN, lambda arm: rounds.interval(arm, _RATES["per_second"]))
    rates = _by_exporter([arm for arm in DRAIN_ARMS if arm[0] in _RATED], lambda arm: rounds.intervals(arm, _RATES))
    noted, batch = (DURABLE_NOTED, HTTP_PROTOBUF), (BATCH, HTTP_PROTOBUF)
    noting = rounds.interval(noted, _noting)
    noted_over_batch = rounds.ratio(noted, batch, lambda sample: _noting(sample) + _on_end(sample), _COSTS["total_cpu"])
    over_exporter = {
        protocol: rounds.ratio((DRAIN, protocol), (EXPORTER_ALONE, protocol), _RATES["per_cpu_second"])
        for protocol in PROTOCOLS
    }
    bursts = ", ".join(f"{burst:,}" for burst in sorted({sample["burst"] for sample in samples if "burst" in sample}))
    summary = {
        "setting": {**setting, "exporters": EXPORTERS},
        "microseconds_per_span": costs,
        "on_end_p999_microseconds": tails,
        "confirmed_per_second": confirmed,
        "noting_cpu_microseconds_per_call": noting,
        "noting_and_on_end_cpu_over_batch_total_cpu": noted_over_batch,
        "spans_per_second": rates,
        "drained_per_cpu_second_over_exporter": over_exporter,
        "targets": targets,
        "equal_things": nulls,
    }
    return Measurement(
        samples=list(samples),
        summary=stored(summary),
        findings=[
            f"Spans of {setting['attributes']} attributes and {setting['bytes']:,} bytes in bursts of {bursts}; OTLP "
            "to a receiver in another process that counts and discards, the console's text to /dev/null.",
            *(target.sentence() for found in targets.values() for target in found.values()),
            *(
                _cost_sentence((arm, exporter), cost, tails[exporter][arm], confirmed[exporter][arm])
                for exporter, arms in costs.items()
                for arm, cost in arms.items()
            ),
            f"To note a call as dispatched, as the plugin does, takes {number(noting)} us of CPU time more, before the "
            "call; that and on_end together, over Batch's on_end and export (OTLP/HTTP): "
            f"{in_words(noted_over_batch, _worst(nulls[HTTP_PROTOBUF], 'on_end_cpu', 'total_cpu'))}.",
            *(
                f"{_RATED[arm]}, {to_words(exporter)}: {number(rate['per_cpu_second'])} spans per second of CPU time, "
                f"{number(rate['per_second'])} per second."
                for exporter, arms in rates.items()
                for arm, rate in arms.items()
            ),
            *(
                f"Spans per second of CPU time, the drain over the exporter alone, {to_words(protocol)}: "
                f"{in_words(ratio, nulls[protocol]['drained_per_cpu_second'])}."
                for protocol, ratio in over_exporter.items()
            ),
            *(
                f"Equal things beside each other, {to_words(protocol)}: "
                + ", ".join(f"{name.replace('_', ' ')} {null}" for name, null in found.items())
                + "; nothing smaller is claimed."
                for protocol, found in nulls.items()
            ),
            f"{in_brackets(rounds.count, _COMPARISONS)} {WARM_UP_ROUNDS} round of warm-up was not kept.",
        ],
        faults=_faults(samples, rounds.count, nulls),
        caveats=_caveats(rounds),
    )


def _by_exporter(arms: Sequence[Arm], found: Callable[[Arm], _Found]) -> dict[str, dict[str, _Found]]:
    return {
        exporter: {arm: found((arm, exporter)) for arm, to in arms if to == exporter}
        for exporter in dict.fromkeys(to for _, to in arms)
    }


def _tail(samples: Sequence[Sample]) -> float | None:
    """The 99.9th percentile of all single calls, in microseconds; None where too few were made to tell."""
    slower = int(sum(sample["burst"] for sample in samples) * _TAIL)
    if slower < _LEAST_IN_TAIL:
        return None
    return float(sorted((slow for sample in samples for slow in sample["slowest_us"]), reverse=True)[slower])


def _nulls(rounds: Rounds, protocol: str) -> dict[str, Ratio]:
    """What equal things show beside each other."""
    batch, again = (BATCH, protocol), (BATCH_AGAIN, protocol)
    durable, durable_again = (DURABLE, protocol), (DURABLE_AGAIN, protocol)
    return {
        **{name: rounds.ratio(batch, again, _COSTS[name]) for name in ("callback_cpu", "callback_wall")},
        **{name: rounds.ratio(durable, durable_again, _COSTS[name]) for name in ("on_end_cpu", "on_end_wall")},
        "total_cpu": rounds.ratio(batch, again, _COSTS["total_cpu"]),
        "drained_per_cpu_second": rounds.ratio((DRAIN, protocol), (DRAIN_AGAIN, protocol), _RATES["per_cpu_second"]),
    }


def _worst(nulls: Mapping[str, Ratio], *names: str) -> Ratio:
    return max((nulls[name] for name in names), key=resolution)


def _targets(rounds: Rounds, nulls: Mapping[str, Ratio], protocol: str) -> dict[str, Target]:
    to = to_words(protocol)
    simple, batch, durable = (SIMPLE, protocol), (BATCH, protocol), (DURABLE, protocol)
    clocks = (("cpu", "CPU time"), ("wall", "wall time"))
    return {
        **{
            f"callback_{clock}_simple_over_batch": Target(
                f"The caller's {what} to make and end a span, Simple's over Batch's, {to}",
                rounds.ratio(simple, batch, _COSTS[f"callback_{clock}"]),
                LEAST_SIMPLE_OVER_BATCH,
                nulls[f"callback_{clock}"],
                at_most=False,
            )
            for clock, what in clocks
        },
        "on_end_cpu_over_batch_total_cpu": Target(
            f"CPU time, Durable's on_end over Batch's on_end and export, {to}",
            rounds.ratio(durable, batch, _on_end, _COSTS["total_cpu"]),
            MOST_OVER_BATCH,
            _worst(nulls, "on_end_cpu", "total_cpu"),
        ),
        **{
            f"on_end_{clock}_over_simple": Target(
                f"The caller's {what}, Durable's on_end over Simple's, {to}",
                rounds.ratio(durable, simple, _COSTS[f"on_end_{clock}"]),
                MOST_OVER_SIMPLE,
                nulls[f"on_end_{clock}"],
            )
            for clock, what in clocks
        },
        "drained_per_cpu_second": Target(
            f"Spans per second of CPU time that Durable drains, {to}",
            rounds.interval((DRAIN, protocol), _RATES["per_cpu_second"]),
            LEAST_DRAINED,
            nulls["drained_per_cpu_second"],
            at_most=False,
        ),
    }


def _cost_sentence(arm: Arm, cost: Mapping[str, Interval], tail: float | None, confirmed: Interval) -> str:
    last = "" if tail is None else f", 99.9th {tail:,.3g}"
    return (
        f"{NAMES[arm[0]]}, {to_words(arm[1])}: on_end takes {number(cost['on_end_cpu'])} us of the caller's CPU time "
        f"and {number(cost['on_end_wall'])} us of its time (single calls: median {cost['on_end_p50'].median:.3g}, "
        f"99th percentile {cost['on_end_p99'].median:,.3g}{last}); with the making of the span it is "
        f"{number(cost['callback_cpu'])} and {number(cost['callback_wall'])} us; until all is confirmed a span has "
        f"taken {number(cost['total_cpu'])} us of CPU time, and {number(confirmed)} are confirmed per second."
    )


def _faults(samples: Sequence[Sample], rounds: int, nulls: Mapping[str, Mapping[str, Ratio]]) -> list[str]:
    faults = too_few(rounds, MINIMUM_ROUNDS)
    for sample in samples:
        where = f"round {sample['round']}, {sample['arm']} to {to_words(sample['exporter'])}"
        if sample["received"] != sample["spans"]:
            faults.append(f"{where}: {sample['received']} of {sample['spans']} spans arrived")
        if (made := sample.get("callback_received")) is not None and made != sample["burst"]:
            faults.append(f"{where}: {made} of {sample['burst']} spans of the callback arrived")
        if sample.get("unwritten"):
            faults.append(f"{where}: {sample['unwritten']} spans were not in the file when on_end had returned")
        if not sample["confirmed"]:
            faults.append(f"{where}: not everything was confirmed")
    for protocol, found in nulls.items():
        faults += uneven(found, f", {to_words(protocol)},")
    return faults + busy(samples)


def _caveats(rounds: Rounds) -> list[str]:
    caveats = []
    for arm, protocol in ((arm, protocol) for protocol in PROTOCOLS for arm in (SIMPLE, *_RATED)):
        cores = max(rounds.each((arm, protocol), per("receiver_cpu_seconds", "seconds", 1)))
        if cores > _RECEIVER_LIMIT:
            caveats.append(
                f"the receiver used up to {cores:.2f} cores in {arm} blocks, {to_words(protocol)}: it limits what "
                "takes wall time"
            )
    return caveats
