"""What the samples of `callback_overhead` say: costs and ratios with intervals, sentences, reasons to distrust them.

A sample has a ``part``:

- ``calls``: one block of ``calls`` in one ``mode`` with one ``arm`` in round ``round``; ``records`` left of them;
  ``seconds`` that the callers waited; CPU seconds of the ``process``, of the ``hooks`` (thread time inside them), of
  those ``before`` the call among them, and of ``record``, ``attributes`` and ``span`` where these were timed.
  ``others_cores`` is what everybody else used of the machine.
- ``others``: the same in the environment of the other instrumentations.
- ``proxy``: one block of requests to the proxy with callback ``arm``; ``answered``, ``records``, ``proxy_cpu_seconds``.
- ``memory``: how much the process has grown, ``grown_bytes``, after ``calls`` calls were reported to callback ``arm``.
- ``import``: CPU and wall time to import LiteLLM, and the plugin (or LiteLLM's own integration) after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
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
from benchmarks.harness.machine import QUIET_CORES
from benchmarks.harness.statistics import (
    Interval,
    Ratio,
    differs,
    in_brackets,
    median_interval,
    paired_difference,
    paired_ratio,
    ranked,
    resolution,
    rounds_to_notice,
    side,
)

MOST_OVER_BARE_SPAN = 2.0
LEAST_BELOW_OTHERS = 5.0  # the naive callback and LiteLLM's own, over ours
LEAST_BELOW_SIMPLE = 8.0  # Simple + OTLP over Batch + OTLP, for the caller

MINIMUM_ROUNDS = 20
MET, MISSED, UNDECIDED = "met", "missed", "undecided"
# Five ratios are held against a target, and the planted change against noise. Other numbers are for orientation.
COMPARISONS = 6
CALLS, OTHER_CALLS, PROXY, MEMORY, IMPORT = "calls", "others", "proxy", "memory", "import"

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

Sample = dict[str, Any]
_Measure = Callable[[Sample], float]


@dataclass(frozen=True)
class Target:
    """A ratio that should be ``limit`` at most, or at least; ``null`` is what equal things show."""

    what: str
    measured: Ratio
    limit: float
    null: Ratio
    at_most: bool

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
        """The ratio, its target, and by how much it is met or missed."""
        how = {
            MET: f"met, {self.factor:.2g} times",
            MISSED: f"MISSED by a factor of {1 / self.factor:.3g}",
            UNDECIDED: "not decided: interval or noise reach the target",
        }
        which = "at most" if self.at_most else "at least"
        return f"{self.what}: {self.measured}; target {which} {self.limit:g}: {how[self.verdict]}."

    def summary(self) -> dict[str, Any]:
        """As it is stored."""
        return {"measured": asdict(self.measured), "limit": self.limit, "verdict": self.verdict, "factor": self.factor}


def evaluate(
    samples: Sequence[Sample], *, setting: Mapping[str, Any], left_out: Mapping[str, str], short: bool
) -> Measurement:
    """The measurement that ``samples`` are. The same samples give the same one.

    ``setting`` is what they have in common: ``attributes`` of a span, ``packages``. ``left_out``
    says of what was not measured why. What is ``short`` is not for quoting.
    """
    kept = list(samples)
    calls, others, proxy = (
        _Rounds([sample for sample in kept if sample["part"] == part]) for part in (CALLS, OTHER_CALLS, PROXY)
    )
    nulls = {
        "hooks_cpu": calls.ratio(calls.net(ASYNC, OURS), calls.net(ASYNC, OURS_AGAIN)),
        "process_cpu": calls.ratio(*(calls.each(ASYNC, arm, _process_cpu) for arm in (NOOP, NOOP_AGAIN))),
        "seconds": calls.ratio(*(calls.each(ASYNC, arm, _wall) for arm in (NOOP, NOOP_AGAIN))),
    }
    if proxy.count:
        pair = (proxy.each(PROXY, arm, _process_cpu) for arm in (NOOP, NOOP_AGAIN))
        nulls["proxy_cpu"] = calls.ratio(*pair)
    ratios = _ratios(calls)
    targets = _targets(ratios, nulls["hooks_cpu"])
    planted = calls.ratio(calls.net(ASYNC, OURS_SLOWER), calls.net(ASYNC, OURS))
    costs = {mode: _costs(calls, mode) for mode in MODES if calls.arms(mode)}
    costs |= {f"others_{mode}": _costs(others, mode) for mode in MODES if others.arms(mode)}
    if proxy.count:
        costs["proxy"] = {arm: _proxy_cost(proxy, arm) for arm in proxy.arms(PROXY)}
    breakdown = _breakdown(calls)
    memory = _memory([sample for sample in kept if sample["part"] == MEMORY])
    imports = _imports([sample for sample in kept if sample["part"] == IMPORT], calls)
    return Measurement(
        samples=kept,
        summary={
            "setting": dict(setting),
            "left_out": dict(left_out),
            "microseconds_per_call": {
                mode: {arm: _dicts(cost) for arm, cost in arms.items()} for mode, arms in costs.items()
            },
            "ratios": _dicts(ratios),
            "targets": {name: target.summary() for name, target in targets.items()},
            "planted": {
                "hooks_cpu_slower_over_ours": asdict(planted),
                "detected": differs(planted, nulls["hooks_cpu"]),
            },
            "breakdown": _dicts(breakdown),
            "memory": memory,
            "imports": {what: _dicts(times) for what, times in imports.items()},
            "equal_things": _dicts(nulls),
        },
        findings=[
            *_headline(targets),
            _floor_sentence(ratios),
            *_hook_sentences(costs[ASYNC], setting),
            _breakdown_sentence(breakdown),
            *(_mode_sentence(mode, arms) for mode, arms in costs.items() if mode not in (ASYNC, PROXY)),
            *_exporting_sentences(costs[ASYNC]),
            *_proxy_sentences(costs.get(PROXY, {}), nulls),
            *_memory_sentences(memory),
            *(_import_sentence(what, times) for what, times in imports.items()),
            _planted_sentence(planted, nulls["hooks_cpu"]),
            "Equal things beside each other: "
            + ", ".join(f"{name.replace('_', ' ')} {null}" for name, null in nulls.items())
            + "; nothing smaller is claimed.",
            in_brackets(calls.count, COMPARISONS),
        ],
        faults=_faults(kept, calls, nulls, short=short),
        caveats=[f"not measured: {what}: {why}" for what, why in left_out.items()],
    )


class _Rounds:
    """Measures of blocks, round by round, in microseconds per call."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._blocks: dict[tuple[str, str], list[Sample]] = {}
        for sample in sorted(samples, key=lambda sample: int(sample["round"])):
            self._blocks.setdefault((sample["mode"], sample["arm"]), []).append(sample)
        self.count = len({sample["round"] for sample in samples})

    def arms(self, mode: str) -> list[str]:
        """Those that were measured in ``mode``."""
        return sorted({arm for found, arm in self._blocks if found == mode}, key=list(NAMES).index)

    def each(self, mode: str, arm: str, measure: _Measure) -> list[float]:
        """By round."""
        return [measure(sample) / sample["calls"] * 1e6 for sample in self._blocks[mode, arm]]

    def net(self, mode: str, arm: str) -> list[float]:
        """CPU time in the hooks beyond that of hooks that do nothing, which is the meter's own, by round."""
        pairs = zip(self.each(mode, arm, _hooks_cpu), self.each(mode, NOOP, _hooks_cpu), strict=True)
        return [hooks - nothing for hooks, nothing in pairs]

    def interval(self, values: Sequence[float]) -> Interval:
        """The median over rounds."""
        return median_interval(values, comparisons=COMPARISONS)

    def ratio(self, above: Sequence[float], below: Sequence[float]) -> Ratio:
        """The median ratio of pairs."""
        return paired_ratio(above, below, comparisons=COMPARISONS)

    def beyond(self, mode: str, arm: str, base: str, measure: _Measure) -> Interval:
        """What ``arm`` takes more than ``base``."""
        pairs = self.each(mode, arm, measure), self.each(mode, base, measure)
        return paired_difference(*pairs, comparisons=COMPARISONS)


def _process_cpu(sample: Sample) -> float:
    return float(sample["process_cpu_seconds"])


def _hooks_cpu(sample: Sample) -> float:
    return float(sample["hooks_cpu_seconds"])


def _wall(sample: Sample) -> float:
    return float(sample["seconds"])


def _costs(rounds: _Rounds, mode: str) -> dict[str, dict[str, Interval]]:
    """Of each arm: CPU time in its hooks, of the process beyond hooks that do nothing and beyond no callback, and time
    that a caller waits."""
    costs = {}
    for arm in rounds.arms(mode):
        cost = {
            "process_cpu": rounds.interval(rounds.each(mode, arm, _process_cpu)),
            "process_cpu_beyond_noop": rounds.beyond(mode, arm, NOOP, _process_cpu),
            "process_cpu_beyond_none": rounds.beyond(mode, arm, NONE, _process_cpu),
            "seconds_beyond_noop": rounds.beyond(mode, arm, NOOP, _wall),
        }
        if arm not in (NONE, *OTHERS):
            cost["hooks_cpu"] = rounds.interval(rounds.net(mode, arm))
        costs[arm] = cost
    return costs


def _proxy_cost(rounds: _Rounds, arm: str) -> dict[str, Interval]:
    return {
        "process_cpu": rounds.interval(rounds.each(PROXY, arm, _process_cpu)),
        "process_cpu_beyond_noop": rounds.beyond(PROXY, arm, NOOP, _process_cpu),
    }


def _ratios(calls: _Rounds) -> dict[str, Ratio]:
    """CPU time in the hooks, async calls: what targets are about, and what explains them."""
    pairs = {
        "hooks_cpu_ours_over_bare_span": (OURS, BARE_SPAN),
        "hooks_cpu_ours_over_json_line": (OURS, JSON_LINE),
        "hooks_cpu_naive_over_ours": (NAIVE, OURS),
        "hooks_cpu_otel_v1_over_ours": (OTEL_V1, OURS),
        "hooks_cpu_otel_v2_over_ours": (OTEL_V2, OURS),
        "hooks_cpu_naive_over_bare_span": (NAIVE, BARE_SPAN),
        "hooks_cpu_otel_v1_over_bare_span": (OTEL_V1, BARE_SPAN),
        "hooks_cpu_otel_v2_over_bare_span": (OTEL_V2, BARE_SPAN),
        "hooks_cpu_simple_over_batch": (OURS_SIMPLE, OURS_BATCH),
        "hooks_cpu_simple_over_durable": (OURS_SIMPLE, OURS_DURABLE),
    }
    return {
        name: calls.ratio(calls.net(ASYNC, above), calls.net(ASYNC, below)) for name, (above, below) in pairs.items()
    }


def _targets(ratios: Mapping[str, Ratio], null: Ratio) -> dict[str, Target]:
    which = {
        "hooks_cpu_ours_over_bare_span": ("ours over a bare SDK span with the same attributes", MOST_OVER_BARE_SPAN),
        "hooks_cpu_naive_over_ours": ("the tutorial's naive callback over ours", LEAST_BELOW_OTHERS),
        "hooks_cpu_otel_v1_over_ours": ("LiteLLM's OpenTelemetry v1 over ours", LEAST_BELOW_OTHERS),
        "hooks_cpu_otel_v2_over_ours": ("LiteLLM's OpenTelemetry v2 over ours", LEAST_BELOW_OTHERS),
        "hooks_cpu_simple_over_batch": ("ours with Simple + OTLP over ours with Batch + OTLP", LEAST_BELOW_SIMPLE),
    }
    return {
        name: Target(f"Caller's CPU time, {what}", ratios[name], limit, null, at_most=limit == MOST_OVER_BARE_SPAN)
        for name, (what, limit) in which.items()
    }


def _breakdown(calls: _Rounds) -> dict[str, Interval]:
    """Where our CPU time goes. ``span`` is the span's making and its processors, without the attributes; ``rest`` is
    what is in the hooks beyond all parts: bookkeeping, guards, and the clocks of this very measurement."""

    def part(name: str) -> list[float]:
        return calls.each(ASYNC, OURS_PARTS, lambda sample: float(sample[f"{name}_cpu_seconds"]))

    nothing = calls.each(ASYNC, NOOP, lambda sample: float(sample["hooks_before_cpu_seconds"]))
    parts = {
        "before_the_call": [own - meter for own, meter in zip(part("hooks_before"), nothing, strict=True)],
        "record": part("record"),
        "attributes": part("attributes"),
        "span": [span - attributes for span, attributes in zip(part("span"), part("attributes"), strict=True)],
    }
    known = [sum(values) for values in zip(*parts.values(), strict=True)]
    parts["rest"] = [whole - sum_ for whole, sum_ in zip(calls.net(ASYNC, OURS_PARTS), known, strict=True)]
    return {name: calls.interval(values) for name, values in parts.items()}


def _memory(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """By arm: ``bytes_per_call`` while it grew, over the last stretch, and what a million calls make of them."""
    found = {}
    for arm in dict.fromkeys(sample["arm"] for sample in samples):
        points = sorted((sample["calls"], sample["grown_bytes"]) for sample in samples if sample["arm"] == arm)
        (calls, grown), (last_calls, last_grown) = points[-2:]
        slope = (last_grown - grown) / (last_calls - calls)
        first_calls, first_grown = points[0]
        found[arm] = {
            "calls": last_calls,
            "grown_mib": last_grown / 2**20,
            "bytes_per_call_at_first": first_grown / first_calls,
            "bytes_per_call_at_last": slope,
            "mib_per_million_calls": (last_grown + slope * (1_000_000 - last_calls)) / 2**20,
        }
    return found


def _imports(samples: Sequence[Sample], rounds: _Rounds) -> dict[str, dict[str, Interval]]:
    times: dict[str, dict[str, Interval]] = {}
    for what in dict.fromkeys(sample["what"] for sample in samples):
        runs = [sample for sample in samples if sample["what"] == what]
        times[what] = {
            name: rounds.interval([float(run[name]) * 1e3 for run in runs]) for name in ("cpu_seconds", "wall_seconds")
        }
    return times


def _headline(targets: Mapping[str, Target]) -> list[str]:
    return [target.sentence() for target in targets.values()]


def _floor_sentence(ratios: Mapping[str, Ratio]) -> str:
    told = ", ".join(f"{NAMES[arm]} {ratios[f'hooks_cpu_{arm}_over_bare_span']}" for arm in (NAIVE, OTEL_V1, OTEL_V2))
    return (
        f"For scale: over the bare span with our attributes, {told}; a callback that makes this span with the SDK's "
        "tracer cannot be further below them than that."
    )


def _hook_sentences(costs: Mapping[str, Mapping[str, Interval]], setting: Mapping[str, Any]) -> list[str]:
    shown = (NOOP_AGAIN, JSON_LINE, BARE_SPAN, OURS, NAIVE, OTEL_V1, OTEL_V2)
    told = ranked({NAMES[arm]: costs[arm]["hooks_cpu"] for arm in shown}, NAMES[NOOP_AGAIN])
    return [
        f"Microseconds of CPU time in the hooks per async call, 16 at a time, beyond hooks that do nothing, without an "
        f"exporter: {told}. Our span has {setting['attributes']} attributes, the naive one nine.",
    ]


def _breakdown_sentence(breakdown: Mapping[str, Interval]) -> str:
    told = ", ".join(f"{name.replace('_', ' ')} {part}" for name, part in breakdown.items())
    return f"Where ours goes, in microseconds, timed inside: {told}."


def _mode_sentence(mode: str, arms: Mapping[str, Mapping[str, Interval]]) -> str:
    if not mode.startswith("others_"):
        shown = [arm for arm in arms if arm in (NOOP_AGAIN, BARE_SPAN, OURS, NAIVE, OTEL_V1, OTEL_V2)]
        told = ranked({NAMES[arm]: arms[arm]["hooks_cpu"] for arm in shown}, NAMES[NOOP_AGAIN])
        return f"In {'synchronous' if mode == SYNC else 'streamed'} calls: {told}."
    shown = [arm for arm in arms if arm in (NOOP, NOOP_AGAIN, OURS, *OTHERS)]
    told = ranked({NAMES[arm]: arms[arm]["process_cpu_beyond_none"] for arm in shown}, NAMES[NOOP], NAMES[NOOP_AGAIN])
    return (
        f"Beside other instrumentations, in their environment, {mode.removeprefix('others_')} calls, microseconds of "
        f"the process's CPU time beyond no callback at all: {told}."
    )


def _exporting_sentences(costs: Mapping[str, Mapping[str, Interval]]) -> list[str]:
    told = "; ".join(
        f"{NAMES[arm]} {costs[arm]['hooks_cpu']} for the caller and {costs[arm]['process_cpu_beyond_noop']} in all"
        for arm in (NOOP_AGAIN, OURS_BATCH, OURS_DURABLE, OURS_SIMPLE)
    )
    return [f"With an exporter, to a receiver in another process, microseconds of CPU time per call: {told}."]


def _proxy_sentences(costs: Mapping[str, Mapping[str, Interval]], nulls: Mapping[str, Ratio]) -> list[str]:
    if not costs:
        return []
    noise = (resolution(nulls["proxy_cpu"]) - 1) * costs[NOOP]["process_cpu"].median
    told = []
    for arm, cost in costs.items():
        beyond = cost["process_cpu_beyond_noop"]
        if arm == NOOP:
            continue
        seen = beyond.low > noise or beyond.high < -noise
        told.append(f"{NAMES[arm]} {beyond}{'' if seen else ' (not resolved)'}")
    return [
        f"Through the proxy a request takes {costs[NOOP]['process_cpu']} us of its CPU time with hooks that do "
        f"nothing, and two equal proxies differ by up to {noise:,.0f} us. Beyond that: {'; '.join(told)}. A load test "
        "of a proxy does not resolve what a callback costs when it costs less than this.",
    ]


def _memory_sentences(memory: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not memory:
        return []
    told = "; ".join(
        f"{NAMES[arm]} {found['grown_mib']:.1f} MiB after {found['calls']:,.0f} calls, then "
        f"{found['bytes_per_call_at_last']:,.0f} bytes a call, so {found['mib_per_million_calls']:,.1f} MiB after a "
        "million"
        for arm, found in memory.items()
    )
    return [f"Memory that stays, extrapolated to a million calls from the last stretch of one run: {told}."]


def _import_sentence(what: str, times: Mapping[str, Interval]) -> str:
    return f"Importing {what}, after what is named before it: {times['cpu_seconds']} ms of CPU time."


def _planted_sentence(planted: Ratio, null: Ratio) -> str:
    seen = "it was noticed" if differs(planted, null) else "it was NOT noticed"
    right = "holds" if planted.low <= 1 + PLANTED <= planted.high else "does NOT hold"
    least = "" if null.claims[0] <= 0 else f"; {rounds_to_notice(1 + PLANTED, null)} rounds notice it nine times in ten"
    return (
        f"A planted regression, ours made {PLANTED:.0%} slower, shows as {planted}, which {right} the truth, and equal "
        f"things as {null}: {seen}{least}."
    )


def _dicts(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: asdict(interval) for name, interval in intervals.items()}


def _faults(samples: Sequence[Sample], calls: _Rounds, nulls: Mapping[str, Ratio], *, short: bool) -> list[str]:
    faults = []
    if short:
        faults.append("a short measurement, to see what happens: quote a full one (--size full)")
    if calls.count < MINIMUM_ROUNDS:
        faults.append(f"{calls.count} rounds are too few: an interval needs at least {MINIMUM_ROUNDS}")
    for sample in samples:
        due = sample.get("calls") if sample["part"] in (CALLS, OTHER_CALLS, PROXY) else None
        if due is not None and sample.get("records") not in (None, due):
            where = f"{sample['part']}, round {sample['round']}, {sample['mode']}, {sample['arm']}"
            faults.append(f"{where}: {sample['records']} records of {due} calls")
    faults += [
        f"the A/A comparison of {name.replace('_', ' ')} should contain 1 and is {null}: the noise differs between arms"
        for name, null in nulls.items()
        if not null.may_be_one
    ]
    busy = [float(sample["others_cores"]) for sample in samples if sample.get("others_cores") is not None]
    if busy and fmean(busy) > QUIET_CORES:
        faults.append(
            f"busy machine: others used {fmean(busy):.2f} cores while it was measured, more than {QUIET_CORES}"
        )
    return faults
