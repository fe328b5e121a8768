"""What the samples of `span_processors` say: costs and rates with intervals, sentences, and reasons to distrust them.

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
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, TypeVar

from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.machine import QUIET_CORES
from benchmarks.harness.statistics import (
    Interval,
    Ratio,
    in_brackets,
    in_words,
    median_interval,
    paired_ratio,
    resolution,
    side,
)
from otel_cost_logger.settings import CONSOLE, GRPC, HTTP_PROTOBUF

SIMPLE, BATCH, BATCH_AGAIN, BATCH_TUNED = "simple", "batch", "batch_again", "batch_tuned"
DURABLE, DURABLE_AGAIN = "durable", "durable_again"
DURABLE_NOTED = "durable_noted"  # each call was noted in the file before, as the plugin does
DURABLE_FULL = "durable_full"  # sync="full", in a thread that waits for the disk
DRAIN, DRAIN_AGAIN, EXPORTER_ALONE = "drain", "drain_again", "exporter_alone"

Arm = tuple[str, str]  # what is measured, and where it exports to
Sample = dict[str, Any]
_Measure = Callable[[Sample], float]
_Found = TypeVar("_Found")

PROTOCOLS = (HTTP_PROTOBUF, GRPC)
EXPORTERS = (CONSOLE, *PROTOCOLS)
# Compared with a target, and so with themselves, where there is an OTLP receiver.
EMISSION_ARMS: tuple[Arm, ...] = (
    *((arm, exporter) for exporter in EXPORTERS for arm in (SIMPLE, BATCH, BATCH_TUNED, DURABLE)),
    *((arm, protocol) for protocol in PROTOCOLS for arm in (BATCH_AGAIN, DURABLE_AGAIN)),
    *((arm, HTTP_PROTOBUF) for arm in (DURABLE_NOTED, DURABLE_FULL)),
)
DRAIN_ARMS: tuple[Arm, ...] = tuple(
    (arm, protocol) for protocol in PROTOCOLS for arm in (DRAIN, DRAIN_AGAIN, EXPORTER_ALONE)
)
ARMS = (*EMISSION_ARMS, *DRAIN_ARMS)

LEAST_SIMPLE_OVER_BATCH = 8.0  # the callback's cost with Simple over that with Batch
MOST_OVER_BATCH = 2.0  # Durable's on_end over Batch's on_end and export
MOST_OVER_SIMPLE = 0.5  # Durable's on_end over Simple's
LEAST_DRAINED = 10_000.0  # spans per second of CPU time

MINIMUM_ROUNDS = 10
WARM_UP_ROUNDS = 1
MET, MISSED, UNDECIDED = "met", "missed", "undecided"

_COMPARISONS = 15  # ratios and rates that are held against a target or against 1
# Cores; a receiver that uses more may itself be what limits the rate.
_RECEIVER_LIMIT = 0.9
_TAIL = 0.001  # the 99.9th percentile is shown where ten calls or more are slower
_LEAST_IN_TAIL = 10
NAMES = {
    SIMPLE: "Simple",
    BATCH: "Batch",
    BATCH_TUNED: "Batch, tuned",
    DURABLE: "Durable",
    DURABLE_NOTED: "Durable, with calls noted",
    DURABLE_FULL: "Durable, sync=full",
}
_SHOWN = tuple(arm for arm in EMISSION_ARMS if arm[0] in NAMES)


def slowest_kept(burst: int, rounds: int) -> int:
    """How many of the slowest calls of a burst to keep, so that the 99.9th percentile of all rounds is exact."""
    return min(burst, math.ceil(burst * rounds * _TAIL) + 1)


def to_words(exporter: str) -> str:
    """``exporter`` as sentences and figures name it."""
    return {CONSOLE: "console", HTTP_PROTOBUF: "OTLP/HTTP", GRPC: "OTLP/gRPC"}[exporter]


@dataclass(frozen=True)
class Target:
    """Something measured that should be ``limit`` at most, or at least; ``null`` is what equal things show."""

    what: str
    measured: Interval
    limit: float
    null: Ratio
    at_most: bool = True

    @property
    def verdict(self) -> str:
        """Met, missed, or undecided where the interval or the noise reaches the limit."""
        where = side(self.measured, self.limit, self.null)
        return UNDECIDED if where == 0 else MET if (where < 0) == self.at_most else MISSED

    @property
    def factor(self) -> float:
        """How far the median is from the limit: 1 or more on the right side of it, less than 1 on the wrong one."""
        factor = self.limit / self.measured.median
        return factor if self.at_most else 1 / factor

    def sentence(self) -> str:
        """What was measured, and what that means for the target."""
        how = {
            MET: f"met, with a factor of {self.factor:.3g} to spare",
            MISSED: f"missed by a factor of {1 / self.factor:.3g}",
            UNDECIDED: f"not decided: the interval, or the noise of {resolution(self.null):.3g}, reaches the target",
        }
        which = "at most" if self.at_most else "at least"
        return f"{self.what}: {_number(self.measured)}; target {which} {self.limit:,g}: {how[self.verdict]}."

    def summary(self) -> dict[str, Any]:
        return {"measured": asdict(self.measured), "limit": self.limit, "verdict": self.verdict, "factor": self.factor}


def evaluate(samples: Sequence[Sample], *, setting: Mapping[str, Any]) -> Measurement:
    """The measurement that ``samples`` are. The same samples give the same one.

    ``setting`` is what they have in common: ``attributes`` and ``bytes`` of a span.
    """
    kept = list(samples)
    rounds = _Rounds(kept)
    nulls = {protocol: _nulls(rounds, protocol) for protocol in PROTOCOLS}
    targets = {protocol: _targets(rounds, nulls[protocol], protocol) for protocol in PROTOCOLS}
    costs = _by_exporter(_SHOWN, lambda arm: _intervals(rounds, arm, _COSTS))
    tails = _by_exporter(_SHOWN, rounds.tail)
    confirmed = _by_exporter(_SHOWN, lambda arm: _intervals(rounds, arm, {"per_second": _per_second}))
    rates = _by_exporter([arm for arm in DRAIN_ARMS if arm[0] in _RATED], lambda arm: _intervals(rounds, arm, _RATES))
    noted = rounds.interval((DURABLE_NOTED, HTTP_PROTOBUF), _noting_cpu)
    noted_over_batch = rounds.ratio(
        (DURABLE_NOTED, HTTP_PROTOBUF), _noting_and_on_end_cpu, (BATCH, HTTP_PROTOBUF), _total_cpu
    )
    over_exporter = {
        protocol: rounds.ratio((DRAIN, protocol), _per_cpu_second, (EXPORTER_ALONE, protocol), _per_cpu_second)
        for protocol in PROTOCOLS
    }
    return Measurement(
        samples=kept,
        summary={
            "setting": {**setting, "exporters": list(EXPORTERS)},
            "microseconds_per_span": {
                exporter: {arm: _as_dicts(cost) for arm, cost in arms.items()} for exporter, arms in costs.items()
            },
            "on_end_p999_microseconds": tails,
            "confirmed_per_second": {
                exporter: {arm: asdict(rate["per_second"]) for arm, rate in arms.items()}
                for exporter, arms in confirmed.items()
            },
            "noting_cpu_microseconds_per_call": asdict(noted),
            "noting_and_on_end_cpu_over_batch_total_cpu": asdict(noted_over_batch),
            "spans_per_second": {
                exporter: {arm: _as_dicts(rate) for arm, rate in arms.items()} for exporter, arms in rates.items()
            },
            "drained_per_cpu_second_over_exporter": _as_dicts(over_exporter),
            "targets": {
                protocol: {name: target.summary() for name, target in found.items()}
                for protocol, found in targets.items()
            },
            "equal_things": {protocol: _as_dicts(found) for protocol, found in nulls.items()},
        },
        findings=[
            f"Spans of {setting['attributes']} attributes and {setting['bytes']:,} bytes in bursts of "
            f"{_common(kept, 'burst')}; OTLP to a receiver in another process that counts and discards, the console's "
            "text to /dev/null.",
            *(target.sentence() for found in targets.values() for target in found.values()),
            *(
                _cost_sentence((arm, exporter), cost, tails[exporter][arm], confirmed[exporter][arm]["per_second"])
                for exporter, arms in costs.items()
                for arm, cost in arms.items()
            ),
            f"To note a call as dispatched, as the plugin does, takes {_number(noted)} us of CPU time more, before the "
            "call; that and on_end together, over Batch's on_end and export (OTLP/HTTP): "
            f"{in_words(noted_over_batch, _worst(nulls[HTTP_PROTOBUF], 'on_end_cpu', 'total_cpu'))}.",
            *(_rate_sentence((arm, exporter), rate) for exporter, arms in rates.items() for arm, rate in arms.items()),
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
        faults=_faults(kept, rounds.count, nulls),
        caveats=_caveats(kept),
    )


def _by_exporter(arms: Sequence[Arm], found: Callable[[Arm], _Found]) -> dict[str, dict[str, _Found]]:
    return {
        exporter: {arm: found((arm, exporter)) for arm, to in arms if to == exporter}
        for exporter in dict.fromkeys(to for _, to in arms)
    }


def _intervals(rounds: _Rounds, arm: Arm, measures: Mapping[str, _Measure]) -> dict[str, Interval]:
    return {name: rounds.interval(arm, measure) for name, measure in measures.items()}


def _nulls(rounds: _Rounds, protocol: str) -> dict[str, Ratio]:
    """What equal things show beside each other."""

    def null(arm: str, again: str, measure: _Measure) -> Ratio:
        return rounds.ratio((arm, protocol), measure, (again, protocol), measure)

    return {
        "callback_cpu": null(BATCH, BATCH_AGAIN, _callback_cpu),
        "callback_wall": null(BATCH, BATCH_AGAIN, _callback_wall),
        "on_end_cpu": null(DURABLE, DURABLE_AGAIN, _on_end_cpu),
        "on_end_wall": null(DURABLE, DURABLE_AGAIN, _on_end_wall),
        "total_cpu": null(BATCH, BATCH_AGAIN, _total_cpu),
        "drained_per_cpu_second": null(DRAIN, DRAIN_AGAIN, _per_cpu_second),
    }


def _worst(nulls: Mapping[str, Ratio], *names: str) -> Ratio:
    return max((nulls[name] for name in names), key=resolution)


def _targets(rounds: _Rounds, nulls: Mapping[str, Ratio], protocol: str) -> dict[str, Target]:
    def ratio(above: str, measured: _Measure, below: str, by: _Measure) -> Ratio:
        return rounds.ratio((above, protocol), measured, (below, protocol), by)

    to = to_words(protocol)
    return {
        "callback_cpu_simple_over_batch": Target(
            f"The caller's CPU time to make and end a span, Simple's over Batch's, {to}",
            ratio(SIMPLE, _callback_cpu, BATCH, _callback_cpu),
            LEAST_SIMPLE_OVER_BATCH,
            nulls["callback_cpu"],
            at_most=False,
        ),
        "callback_wall_simple_over_batch": Target(
            f"The caller's time to make and end a span, Simple's over Batch's, {to}",
            ratio(SIMPLE, _callback_wall, BATCH, _callback_wall),
            LEAST_SIMPLE_OVER_BATCH,
            nulls["callback_wall"],
            at_most=False,
        ),
        "on_end_cpu_over_batch_total_cpu": Target(
            f"CPU time, Durable's on_end over Batch's on_end and export, {to}",
            ratio(DURABLE, _on_end_cpu, BATCH, _total_cpu),
            MOST_OVER_BATCH,
            _worst(nulls, "on_end_cpu", "total_cpu"),
        ),
        "on_end_cpu_over_simple": Target(
            f"CPU time, Durable's on_end over Simple's, {to}",
            ratio(DURABLE, _on_end_cpu, SIMPLE, _on_end_cpu),
            MOST_OVER_SIMPLE,
            nulls["on_end_cpu"],
        ),
        "on_end_wall_over_simple": Target(
            f"Wall time, Durable's on_end over Simple's, {to}",
            ratio(DURABLE, _on_end_wall, SIMPLE, _on_end_wall),
            MOST_OVER_SIMPLE,
            nulls["on_end_wall"],
        ),
        "drained_per_cpu_second": Target(
            f"Spans per second of CPU time that Durable drains, {to}",
            rounds.interval((DRAIN, protocol), _per_cpu_second),
            LEAST_DRAINED,
            nulls["drained_per_cpu_second"],
            at_most=False,
        ),
    }


class _Rounds:
    """Measures of the samples, round by round."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples: dict[Arm, list[Sample]] = {arm: [] for arm in ARMS}
        for sample in sorted(samples, key=lambda sample: int(sample["round"])):
            self._samples[sample["arm"], sample["exporter"]].append(sample)
        self.count = len({sample["round"] for sample in samples})

    def _each(self, arm: Arm, measure: _Measure) -> list[float]:
        return [measure(sample) for sample in self._samples[arm]]

    def interval(self, arm: Arm, measure: _Measure) -> Interval:
        return median_interval(self._each(arm, measure), comparisons=_COMPARISONS)

    def ratio(self, above: Arm, measured: _Measure, below: Arm, by: _Measure) -> Ratio:
        return paired_ratio(self._each(above, measured), self._each(below, by), comparisons=_COMPARISONS)

    def tail(self, arm: Arm) -> float | None:
        """The 99.9th percentile of all single calls, in microseconds; None where too few were made to tell."""
        samples = self._samples[arm]
        slower = int(sum(sample["burst"] for sample in samples) * _TAIL)
        if slower < _LEAST_IN_TAIL:
            return None
        return float(sorted((slow for sample in samples for slow in sample["slowest_us"]), reverse=True)[slower])


def _callback_cpu(sample: Sample) -> float:
    return float(sample["callback_cpu_seconds"] / sample["burst"] * 1e6)


def _callback_wall(sample: Sample) -> float:
    return float(sample["callback_seconds"] / sample["burst"] * 1e6)


def _on_end_cpu(sample: Sample) -> float:
    return float(sample["on_end_cpu_seconds"] / sample["burst"] * 1e6)


def _on_end_wall(sample: Sample) -> float:
    return float(sample["on_end_seconds"] / sample["burst"] * 1e6)


def _total_cpu(sample: Sample) -> float:
    return float(sample["process_cpu_seconds"] / sample["spans"] * 1e6)


def _noting_cpu(sample: Sample) -> float:
    return float(sample["noting_cpu_seconds"] / sample["burst"] * 1e6)


def _noting_and_on_end_cpu(sample: Sample) -> float:
    return _noting_cpu(sample) + _on_end_cpu(sample)


def _receiver_cpu(sample: Sample) -> float:
    return float(sample["receiver_cpu_seconds"] / sample["spans"] * 1e6)


def _per_cpu_second(sample: Sample) -> float:
    return float(sample["spans"] / sample["process_cpu_seconds"])


def _per_second(sample: Sample) -> float:
    return float(sample["spans"] / sample["seconds"])


_COSTS: dict[str, _Measure] = {
    "callback_cpu": _callback_cpu,
    "callback_wall": _callback_wall,
    "on_end_cpu": _on_end_cpu,
    "on_end_wall": _on_end_wall,
    "on_end_p50": lambda sample: float(sample["on_end_p50_us"]),
    "on_end_p99": lambda sample: float(sample["on_end_p99_us"]),
    "total_cpu": _total_cpu,
    "receiver_cpu": _receiver_cpu,
}
_RATES: dict[str, _Measure] = {"per_cpu_second": _per_cpu_second, "per_second": _per_second}
_RATED = {
    DRAIN: "Durable, from a file that holds encoded spans",
    EXPORTER_ALONE: "The exporter alone, which encodes spans from memory",
}


def _cost_sentence(arm: Arm, cost: Mapping[str, Interval], tail: float | None, confirmed: Interval) -> str:
    last = "" if tail is None else f", 99.9th {tail:,.3g}"
    return (
        f"{NAMES[arm[0]]}, {to_words(arm[1])}: on_end takes {_number(cost['on_end_cpu'])} us of the caller's CPU time "
        f"and {_number(cost['on_end_wall'])} us of its time (single calls: median {cost['on_end_p50'].median:.3g}, "
        f"99th percentile {cost['on_end_p99'].median:,.3g}{last}); with the making of the span it is "
        f"{_number(cost['callback_cpu'])} and {_number(cost['callback_wall'])} us; until all is confirmed a span has "
        f"taken {_number(cost['total_cpu'])} us of CPU time, and {_number(confirmed)} are confirmed per second."
    )


def _rate_sentence(arm: Arm, rate: Mapping[str, Interval]) -> str:
    return (
        f"{_RATED[arm[0]]}, {to_words(arm[1])}: {_number(rate['per_cpu_second'])} spans per second of CPU time, "
        f"{_number(rate['per_second'])} per second."
    )


def _number(interval: Interval) -> str:
    """As ``str(interval)``, but thousands stay readable."""
    return str(interval) if interval.median < 1000 else f"{interval:,.0f}"


def _common(samples: Sequence[Sample], name: str) -> str:
    return ", ".join(f"{value:,}" for value in sorted({sample[name] for sample in samples if name in sample}))


def _as_dicts(intervals: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    return {name: asdict(interval) for name, interval in intervals.items()}


def _faults(samples: Sequence[Sample], rounds: int, nulls: Mapping[str, Mapping[str, Ratio]]) -> list[str]:
    faults = []
    if rounds < MINIMUM_ROUNDS:
        faults.append(f"{rounds} rounds are too few: an interval needs at least {MINIMUM_ROUNDS}")
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
    faults += [
        f"the A/A comparison of {name.replace('_', ' ')}, {to_words(protocol)}, should contain 1 and is {null}: the "
        "noise differs between arms"
        for protocol, found in nulls.items()
        for name, null in found.items()
        if not null.may_be_one
    ]
    others = fmean(sample["others_cores"] for sample in samples)
    if others > QUIET_CORES:
        faults.append(f"busy machine: others used {others:.2f} cores while it was measured, more than {QUIET_CORES}")
    return faults


def _caveats(samples: Sequence[Sample]) -> list[str]:
    caveats = []
    for arm, protocol in ((arm, protocol) for protocol in PROTOCOLS for arm in (SIMPLE, *_RATED)):
        cores = max(
            sample["receiver_cpu_seconds"] / sample["seconds"]
            for sample in samples
            if (sample["arm"], sample["exporter"]) == (arm, protocol)
        )
        if cores > _RECEIVER_LIMIT:
            caveats.append(
                f"the receiver used up to {cores:.2f} cores in {arm} blocks, {to_words(protocol)}: it limits what "
                "takes wall time"
            )
    return caveats
