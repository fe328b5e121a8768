"""What the samples of `engine_latency` say: curves with intervals, the fitted latency model, and how the mock does.

A sample is one block: ``round``, ``arm`` (engine or mock), ``concurrency``; ``ttft_ms`` and ``tpot_ms``, one value for
each measured answer; ``answered`` requests and ``errors`` by kind; ``prompt_tokens`` and ``completion_tokens`` as the
answers' usage has them and as the engine ``counted`` them; ``cache_queries`` and ``cache_hits`` in prompt tokens;
``others_cores``, what everybody else used of the machine meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from benchmarks.engine_latency.latency_fit import Line, fit_line
from benchmarks.harness.backends import MOCK, caveat
from benchmarks.harness.benchmark import Measurement, NotMeasured
from benchmarks.harness.machine import QUIET_CORES
from benchmarks.harness.statistics import Interval, in_brackets, median_interval

ENGINE = "engine"
ARMS = (ENGINE, MOCK)
MINIMUM_ROUNDS = 10

_MOST_CACHE_HITS = 0.02  # of the prompt tokens; a warmer cache would make first tokens come early

Sample = dict[str, Any]


@dataclass(frozen=True)
class Fit:
    """The mock's latency model: milliseconds against the number of other requests that run."""

    ttft: Line
    tpot: Line

    def flags(self) -> dict[str, float]:
        """The fields of `mock_vllm.latency.LatencyModel`, rounded as a profile holds them, to the microsecond."""
        return {
            "ttft_ms": round(self.ttft.base_ms, 3),
            "ttft_ms_per_running": round(self.ttft.per_other_ms, 3),
            "tpot_ms": round(self.tpot.base_ms, 3),
            "tpot_ms_per_running": round(self.tpot.per_other_ms, 3),
        }


def fit(samples: Sequence[Sample]) -> Fit:
    """The lines through the medians over rounds that the engine's samples have at each concurrency.

    Raises `NotMeasured` for a block without a measured answer, and ValueError for fewer than three concurrencies.
    """
    blocks = _blocks(samples, ENGINE)
    others = [concurrency - 1.0 for concurrency in blocks]
    ttft, tpot = (
        [median(measure(sample) for sample in block) for block in blocks.values()] for measure in (_ttft, _tpot)
    )
    return Fit(fit_line(others, ttft), fit_line(others, tpot))


def evaluate(samples: Sequence[Sample], *, engine: Mapping[str, Any]) -> Measurement:
    """The measurement that ``samples`` are; ``engine`` is what `backends.described` told of the real one."""
    kept = list(samples)
    fitted = fit(kept)
    curves = {arm: _curve(kept, arm) for arm in ARMS}
    distances = {
        name: {
            concurrency: mock[name].median / point[name].median - 1
            for (concurrency, point), mock in zip(curves[ENGINE].items(), curves[MOCK].values(), strict=True)
        }
        for name in _MEASURES
    }
    worst = {name: max(map(abs, by_concurrency.values())) for name, by_concurrency in distances.items()}
    fewest, most = min(curves[ENGINE]), max(curves[ENGINE])
    findings = [
        f"{engine['kind']}, shape {engine['shape']}, {_prompt_length(kept)} prompt tokens, "
        f"{kept[0]['max_tokens']} output tokens, closed loop.",
        *(
            f"{label}: {curves[ENGINE][fewest][name]} {unit} at concurrency {fewest}, "
            f"{curves[ENGINE][most][name]} {unit} at {most}."
            for name, label, unit in _LABELS
        ),
        f"Time to first token = {fitted.ttft.base_ms:.3g} ms + {fitted.ttft.per_other_ms:.3g} ms for each other "
        f"request (R2 {fitted.ttft.r_squared:.3f}, worst point {fitted.ttft.worst_relative_error:.0%} off).",
        f"Time per output token = {fitted.tpot.base_ms:.3g} ms + {fitted.tpot.per_other_ms:.3g} ms for each other "
        f"request (R2 {fitted.tpot.r_squared:.3f}, worst point {fitted.tpot.worst_relative_error:.0%} off).",
        f"The mock with these figures is within {worst['ttft_ms']:.0%} of the engine in time to first token and "
        f"within {worst['tpot_ms']:.0%} in time per output token, at every concurrency.",
        in_brackets(len({sample["round"] for sample in kept})),
    ]
    return Measurement(
        samples=kept,
        summary={
            "engine": dict(engine),
            "fit": {"ttft": asdict(fitted.ttft), "tpot": asdict(fitted.tpot), "flags": fitted.flags()},
            "curves": {
                arm: [
                    {"concurrency": concurrency, **{name: asdict(interval) for name, interval in point.items()}}
                    for concurrency, point in curve.items()
                ]
                for arm, curve in curves.items()
            },
            "mock_over_engine_minus_one": {
                name: [{"concurrency": concurrency, "distance": value} for concurrency, value in values.items()]
                for name, values in distances.items()
            },
        },
        findings=findings,
        faults=_faults(kept),
        caveats=[caveat(engine["kind"])],
    )


def _ttft(sample: Sample) -> float:
    return float(median(sample["ttft_ms"]))


def _tpot(sample: Sample) -> float:
    return float(median(sample["tpot_ms"]))


def _tokens_per_second(sample: Sample) -> float:
    """Output tokens per second while all streams are under way: Little's law, throughput = streams over duration."""
    milliseconds = fmean(
        first + each * (sample["max_tokens"] - 1)
        for first, each in zip(sample["ttft_ms"], sample["tpot_ms"], strict=True)
    )
    return float(sample["concurrency"] * sample["max_tokens"] / milliseconds * 1000)


_MEASURES: dict[str, Callable[[Sample], float]] = {
    "ttft_ms": _ttft,
    "tpot_ms": _tpot,
    "output_tokens_per_second": _tokens_per_second,
}
_LABELS = (
    ("ttft_ms", "Time to first token", "ms"),
    ("tpot_ms", "Time per output token", "ms"),
    ("output_tokens_per_second", "Output", "tokens/s"),
)


def _blocks(samples: Sequence[Sample], arm: str) -> dict[int, list[Sample]]:
    """The samples of ``arm`` by concurrency, in rising order. Raises `NotMeasured` when one has no answer."""
    chosen = [sample for sample in samples if sample["arm"] == arm]
    for sample in chosen:
        if not sample["ttft_ms"]:
            raise NotMeasured(f"{_where(sample)}: no answer was measured ({_kinds(sample['errors'])})")
    return {
        concurrency: [sample for sample in chosen if sample["concurrency"] == concurrency]
        for concurrency in sorted({sample["concurrency"] for sample in chosen})
    }


def _curve(samples: Sequence[Sample], arm: str) -> dict[int, dict[str, Interval]]:
    return {
        concurrency: {
            name: median_interval([measure(sample) for sample in block]) for name, measure in _MEASURES.items()
        }
        for concurrency, block in _blocks(samples, arm).items()
    }


def _prompt_length(samples: Sequence[Sample]) -> str:
    lengths = {length for sample in samples if sample["arm"] == ENGINE for length in sample["prompt_tokens_each"]}
    return str(min(lengths)) if len(lengths) == 1 else f"{min(lengths)} to {max(lengths)}"


def _faults(samples: Sequence[Sample]) -> list[str]:
    faults = []
    rounds = len({sample["round"] for sample in samples})
    if rounds < MINIMUM_ROUNDS:
        faults.append(f"{rounds} rounds are too few: an interval needs at least {MINIMUM_ROUNDS}")
    for sample in samples:
        if sample["errors"]:
            faults.append(f"{_where(sample)}: failed requests ({_kinds(sample['errors'])})")
            continue
        for tokens in ("prompt_tokens", "completion_tokens"):
            if sample[tokens] != sample[f"counted_{tokens}"]:
                faults.append(
                    f"{_where(sample)}: the answers have {sample[tokens]} {tokens.replace('_', ' ')}, the server "
                    f"counted {sample[f'counted_{tokens}']}"
                )
    for arm in ARMS:
        queries, hits = (
            sum(sample[name] for sample in samples if sample["arm"] == arm) for name in ("cache_queries", "cache_hits")
        )
        if hits > _MOST_CACHE_HITS * queries:
            faults.append(f"{arm}: the prefix cache gave {hits} of {queries} prompt tokens; prompts must not repeat")
        # By arm: the mock's hour may be quiet when the engine's was not.
        others = fmean(sample["others_cores"] for sample in samples if sample["arm"] == arm)
        if others > QUIET_CORES:
            faults.append(
                f"busy machine: others used {others:.2f} cores while the {arm} was measured, more than {QUIET_CORES}"
            )
    return faults


def _where(sample: Sample) -> str:
    return f"round {sample['round']}, {sample['arm']}, concurrency {sample['concurrency']}"


def _kinds(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{kind}: {count}" for kind, count in sorted(errors.items())) or "no error"
