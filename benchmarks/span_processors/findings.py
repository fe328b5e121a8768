"""What the samples of `span_processors` say: costs and rates with intervals, sentences, and reasons to distrust them.

A sample is one block: ``round``, ``arm``; ``spans`` that were to be delivered, ``received`` by the receiver's own
count, ``confirmed`` (what flushing said); ``seconds`` until the last was confirmed, ``process_cpu_seconds`` of this
process meanwhile and ``receiver_cpu_seconds`` of the receiver; ``others_cores``, what everybody else used of the
machine. Where a processor was measured also, of one ``burst`` of spans, ``on_end_cpu_seconds`` of the calling thread
and ``on_end_seconds``, percentiles of single calls in microseconds, ``unwritten``, how many a durable processor had
not in its file then, and ``noting_cpu_seconds``, what it took before to note the calls as dispatched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.machine import QUIET_CORES
from benchmarks.harness.statistics import Interval, Ratio, in_words, median_interval, paired_ratio, resolution, side

SIMPLE, BATCH, BATCH_AGAIN = "simple", "batch", "batch_again"
DURABLE, DURABLE_AGAIN = "durable", "durable_again"
DURABLE_NOTED = "durable_noted"  # each call was noted in the file before, as the plugin does
DURABLE_FULL = "durable_full"  # sync="full", in a thread that waits for the disk
DRAIN, DRAIN_AGAIN, EXPORTER = "drain", "drain_again", "exporter"
EMISSION_ARMS = (SIMPLE, BATCH, BATCH_AGAIN, DURABLE, DURABLE_AGAIN, DURABLE_NOTED, DURABLE_FULL)
DRAIN_ARMS = (DRAIN, DRAIN_AGAIN, EXPORTER)
ARMS = (*EMISSION_ARMS, *DRAIN_ARMS)

MOST_OVER_BATCH = 2.0  # Durable's on_end over Batch's on_end and export
MOST_OVER_SIMPLE = 0.5  # Durable's on_end over Simple's
LEAST_DRAINED = 10_000.0  # spans per second of CPU time

MINIMUM_ROUNDS = 10
WARM_UP_ROUNDS = 1
MET, MISSED, UNDECIDED = "met", "missed", "undecided"

# Ten ratios and rates are held against a target or against 1. At 99.5 % each, all hold at once in 95 runs of 100
# (Bonferroni).
_CONFIDENCE = 0.995
# Cores; a receiver that uses more may itself be what limits the rate.
_RECEIVER_LIMIT = 0.9
_NAMES = {
    SIMPLE: "Simple",
    BATCH: "Batch",
    DURABLE: "Durable",
    DURABLE_NOTED: "Durable, with calls noted",
    DURABLE_FULL: "Durable, sync=full",
}

Sample = dict[str, Any]
_Measure = Callable[[Sample], float]


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


def evaluate(samples: Sequence[Sample], *, seed: int, setting: Mapping[str, Any]) -> Measurement:
    """The measurement that ``samples`` are. The same samples and seed give the same one.

    ``setting`` is what they have in common: the exporter's ``protocol``, and ``attributes`` and ``bytes`` of a span.
    """
    kept = list(samples)
    rounds = _Rounds(kept, seed)
    costs = {arm: {name: rounds.interval(arm, measure) for name, measure in _COSTS.items()} for arm in _NAMES}
    rates = {arm: {name: rounds.interval(arm, measure) for name, measure in _RATES.items()} for arm in _RATED}
    nulls = {
        "on_end_cpu": rounds.ratio((DURABLE, _on_end_cpu), (DURABLE_AGAIN, _on_end_cpu)),
        "on_end_wall": rounds.ratio((DURABLE, _on_end_wall), (DURABLE_AGAIN, _on_end_wall)),
        "total_cpu": rounds.ratio((BATCH, _total_cpu), (BATCH_AGAIN, _total_cpu)),
        "drained_per_cpu_second": rounds.ratio((DRAIN, _per_cpu_second), (DRAIN_AGAIN, _per_cpu_second)),
    }
    over_exporter = rounds.ratio((DRAIN, _per_cpu_second), (EXPORTER, _per_cpu_second))
    targets = _targets(rounds, nulls, rates[DRAIN]["per_cpu_second"])
    noted = rounds.interval(DURABLE_NOTED, _noting_cpu)
    noted_over_batch = rounds.ratio((DURABLE_NOTED, _noting_and_on_end_cpu), (BATCH, _total_cpu))
    return Measurement(
        samples=kept,
        summary={
            "setting": dict(setting),
            "microseconds_per_span": {arm: _as_dicts(cost) for arm, cost in costs.items()},
            "noting_cpu_microseconds_per_call": asdict(noted),
            "noting_and_on_end_cpu_over_batch_total_cpu": asdict(noted_over_batch),
            "spans_per_second": {arm: _as_dicts(rate) for arm, rate in rates.items()},
            "drained_per_cpu_second_over_exporter": asdict(over_exporter),
            "targets": {name: target.summary() for name, target in targets.items()},
            "equal_things": _as_dicts(nulls),
        },
        findings=[
            f"OTLP over {setting['protocol']}, spans of {setting['attributes']} attributes and {setting['bytes']:,} "
            f"bytes in bursts of {_common(kept, 'burst')}, to a receiver in another process that counts and discards.",
            *(_cost_sentence(arm, cost) for arm, cost in costs.items()),
            f"To note a call as dispatched, as the plugin does, takes {_number(noted)} us of CPU time more, before the "
            "call; that and on_end together, over Batch's on_end and export: "
            f"{in_words(noted_over_batch, targets['on_end_cpu_over_batch_total_cpu'].null)}.",
            *(_rate_sentence(arm, rate) for arm, rate in rates.items()),
            f"Spans per second of CPU time, the drain over the exporter alone: "
            f"{in_words(over_exporter, nulls['drained_per_cpu_second'])}.",
            *(target.sentence() for target in targets.values()),
            "Equal things beside each other: "
            + ", ".join(f"{name.replace('_', ' ')} {null}" for name, null in nulls.items())
            + "; nothing smaller is claimed.",
            f"In brackets: {_CONFIDENCE:.1%} intervals of the median over {rounds.count} rounds, after "
            f"{WARM_UP_ROUNDS} round of warm-up that was not kept.",
        ],
        faults=_faults(kept, rounds.count, nulls),
        caveats=_caveats(kept),
    )


def _targets(rounds: _Rounds, nulls: Mapping[str, Ratio], drained: Interval) -> dict[str, Target]:
    cpu, wall, total = (nulls[name] for name in ("on_end_cpu", "on_end_wall", "total_cpu"))
    return {
        "on_end_cpu_over_batch_total_cpu": Target(
            "CPU time, Durable's on_end over Batch's on_end and export",
            rounds.ratio((DURABLE, _on_end_cpu), (BATCH, _total_cpu)),
            MOST_OVER_BATCH,
            max(cpu, total, key=resolution),
        ),
        "on_end_cpu_over_simple": Target(
            "CPU time, Durable's on_end over Simple's",
            rounds.ratio((DURABLE, _on_end_cpu), (SIMPLE, _on_end_cpu)),
            MOST_OVER_SIMPLE,
            cpu,
        ),
        "on_end_wall_over_simple": Target(
            "Wall time, Durable's on_end over Simple's",
            rounds.ratio((DURABLE, _on_end_wall), (SIMPLE, _on_end_wall)),
            MOST_OVER_SIMPLE,
            wall,
        ),
        "drained_per_cpu_second": Target(
            "Spans per second of CPU time that Durable drains",
            drained,
            LEAST_DRAINED,
            nulls["drained_per_cpu_second"],
            at_most=False,
        ),
    }


class _Rounds:
    """Measures of the samples, round by round."""

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        self._seed = seed
        self._samples = {
            arm: sorted((sample for sample in samples if sample["arm"] == arm), key=lambda sample: int(sample["round"]))
            for arm in ARMS
        }
        self.count = len({sample["round"] for sample in samples})

    def _each(self, arm: str, measure: _Measure) -> list[float]:
        return [measure(sample) for sample in self._samples[arm]]

    def interval(self, arm: str, measure: _Measure) -> Interval:
        return median_interval(self._each(arm, measure), seed=self._seed, confidence=_CONFIDENCE)

    def ratio(self, above: tuple[str, _Measure], below: tuple[str, _Measure]) -> Ratio:
        return paired_ratio(self._each(*above), self._each(*below), seed=self._seed, confidence=_CONFIDENCE)


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
    EXPORTER: "The exporter alone, which encodes spans from memory",
}


def _cost_sentence(arm: str, cost: Mapping[str, Interval]) -> str:
    return (
        f"{_NAMES[arm]}: on_end takes {_number(cost['on_end_cpu'])} us of the caller's CPU time and "
        f"{_number(cost['on_end_wall'])} us of its time (single calls: median {cost['on_end_p50'].median:.3g}, 99th "
        f"percentile {cost['on_end_p99'].median:.3g}); until all is confirmed a span has taken "
        f"{_number(cost['total_cpu'])} us of CPU time."
    )


def _rate_sentence(arm: str, rate: Mapping[str, Interval]) -> str:
    return (
        f"{_RATED[arm]}: {_number(rate['per_cpu_second'])} spans per second of CPU time, "
        f"{_number(rate['per_second'])} per second."
    )


def _number(interval: Interval) -> str:
    """As ``str(interval)``, but thousands stay readable."""
    if interval.median < 1000:
        return str(interval)
    return f"{interval.median:,.0f} [{interval.low:,.0f}, {interval.high:,.0f}]"


def _common(samples: Sequence[Sample], name: str) -> str:
    return ", ".join(f"{value:,}" for value in sorted({sample[name] for sample in samples if name in sample}))


def _as_dicts(intervals: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    return {name: asdict(interval) for name, interval in intervals.items()}


def _faults(samples: Sequence[Sample], rounds: int, nulls: Mapping[str, Ratio]) -> list[str]:
    faults = []
    if rounds < MINIMUM_ROUNDS:
        faults.append(f"{rounds} rounds are too few: an interval needs at least {MINIMUM_ROUNDS}")
    for sample in samples:
        where = f"round {sample['round']}, {sample['arm']}"
        if sample["received"] != sample["spans"]:
            faults.append(f"{where}: {sample['received']} of {sample['spans']} spans arrived")
        if sample.get("unwritten"):
            faults.append(f"{where}: {sample['unwritten']} spans were not in the file when on_end had returned")
        if not sample["confirmed"]:
            faults.append(f"{where}: not everything was confirmed")
    faults += [
        f"the A/A comparison of {name.replace('_', ' ')} should contain 1 and is {null}: the noise differs between arms"
        for name, null in nulls.items()
        if not null.low <= 1 <= null.high
    ]
    others = fmean(sample["others_cores"] for sample in samples)
    if others > QUIET_CORES:
        faults.append(f"busy machine: others used {others:.2f} cores while it was measured, more than {QUIET_CORES}")
    return faults


def _caveats(samples: Sequence[Sample]) -> list[str]:
    caveats = []
    for arm in (SIMPLE, *_RATED):
        cores = max(sample["receiver_cpu_seconds"] / sample["seconds"] for sample in samples if sample["arm"] == arm)
        if cores > _RECEIVER_LIMIT:
            caveats.append(f"the receiver used up to {cores:.2f} cores in {arm} blocks: it limits what takes wall time")
    return caveats
