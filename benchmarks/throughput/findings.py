"""What the samples of `throughput` say: figures with intervals, directly and through the proxy, and their ratio.

A sample is one run of the client: ``repeat``, ``arm`` (engine or proxy), ``concurrency``, ``seed``; ``client``, the
numbers that ``vllm bench serve`` reports, under its own names; ``median_tpot_ms`` from its times and the answers'
true length ``output_len``; requests and tokens as the engine ``counted`` them, warm-up included; ``cache_queries``
and ``cache_hits`` in prompt tokens; ``spans`` that arrived; ``others_cores``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from benchmarks.harness.backends import MOCK, caveat
from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.machine import QUIET_CORES
from benchmarks.harness.statistics import median_interval, paired_ratio

ENGINE, PROXY = "engine", "proxy"
ARMS = (ENGINE, PROXY)
MINIMUM_REPEATS = 5

_CONFIDENCE = 0.95
_MOST_CACHE_HITS = 0.02  # of the prompt tokens
Sample = dict[str, Any]


def evaluate(samples: Sequence[Sample], *, seed: int, engine: Mapping[str, Any]) -> Measurement:
    """The measurement that ``samples`` are; ``engine`` is what `backends.described` told."""
    kept = list(samples)
    figures = {
        (arm, concurrency): {
            name: median_interval([measure(run) for run in runs], seed=seed, confidence=_CONFIDENCE)
            for name, measure in _FIGURES.items()
        }
        for arm in ARMS
        for concurrency in sorted({sample["concurrency"] for sample in kept})
        if (runs := _runs(kept, arm, concurrency))
    }
    ratios = {
        concurrency: paired_ratio(
            *([_tokens_per_second(run) for run in _runs(kept, arm, concurrency)] for arm in (PROXY, ENGINE)),
            seed=seed,
            confidence=_CONFIDENCE,
        )
        for concurrency in sorted({sample["concurrency"] for sample in kept})
    }
    findings = [
        f"{' '.join(filter(None, (engine['kind'], engine['version'], engine['shape'])))}: {caveat(engine['kind'])}.",
        *(
            f"concurrency {concurrency}, {arm}: {of['output_tokens_per_second']} output tokens/s, median time to first "
            f"token {of['median_ttft_ms']} ms, per output token {of['median_tpot_ms']} ms."
            for (arm, concurrency), of in figures.items()
        ),
        *(
            f"concurrency {concurrency}: output tokens per second, proxy over engine: {ratio}."
            for concurrency, ratio in ratios.items()
        ),
        f"In brackets: {_CONFIDENCE:.0%} intervals over {len({s['repeat'] for s in kept})} repeats.",
    ]
    return Measurement(
        samples=kept,
        summary={
            "engine": dict(engine),
            "figures": [
                {"arm": arm, "concurrency": concurrency, **{name: asdict(interval) for name, interval in of.items()}}
                for (arm, concurrency), of in figures.items()
            ],
            "output_tokens_per_second_proxy_over_engine": [
                {"concurrency": concurrency, **asdict(ratio)} for concurrency, ratio in ratios.items()
            ],
        },
        findings=findings,
        faults=_faults(kept, engine["kind"]),
        caveats=[caveat(engine["kind"])],
    )


def _tokens_per_second(sample: Sample) -> float:
    return float(sample["client"]["completed"] * sample["output_len"] / sample["client"]["duration"])


_FIGURES: dict[str, Callable[[Sample], float]] = {
    "output_tokens_per_second": _tokens_per_second,
    "requests_per_second": lambda sample: float(sample["client"]["completed"] / sample["client"]["duration"]),
    "median_ttft_ms": lambda sample: float(sample["client"]["median_ttft_ms"]),
    "median_tpot_ms": lambda sample: float(sample["median_tpot_ms"]),
    "median_e2el_ms": lambda sample: float(sample["client"]["median_e2el_ms"]),
}


def _runs(samples: Sequence[Sample], arm: str, concurrency: int) -> list[Sample]:
    chosen = (sample for sample in samples if (sample["arm"], sample["concurrency"]) == (arm, concurrency))
    return sorted(chosen, key=lambda sample: int(sample["repeat"]))


def _faults(samples: Sequence[Sample], kind: str) -> list[str]:
    faults = []
    repeats = len({sample["repeat"] for sample in samples})
    if repeats < MINIMUM_REPEATS:
        faults.append(f"{repeats} repeats are too few: an interval needs at least {MINIMUM_REPEATS}")
    for sample in samples:
        where, completed = _where(sample), sample["client"]["completed"]
        if completed != sample["num_prompts"]:
            faults.append(f"{where}: {completed} of {sample['num_prompts']} requests were completed")
        if sample["counted_completion_tokens"] != sample["counted_requests"] * sample["output_len"]:
            faults.append(
                f"{where}: the engine counted {sample['counted_completion_tokens']} output tokens for "
                f"{sample['counted_requests']} answers of {sample['output_len']}"
            )
        expected = sample["counted_requests"] if sample["arm"] == PROXY else 0
        if sample["spans"] != expected:
            faults.append(f"{where}: {sample['spans']} spans arrived, expected {expected}")
        # The mock is none the faster for a token from its cache.
        if kind != MOCK and sample["cache_hits"] > _MOST_CACHE_HITS * sample["cache_queries"]:
            faults.append(
                f"{where}: the prefix cache gave {sample['cache_hits']} of {sample['cache_queries']} prompt tokens"
            )
    others = fmean(sample["others_cores"] for sample in samples)
    if others > QUIET_CORES:
        faults.append(f"busy machine: others used {others:.2f} cores while it was measured, more than {QUIET_CORES}")
    return faults


def _where(sample: Sample) -> str:
    return f"repeat {sample['repeat']}, {sample['arm']}, concurrency {sample['concurrency']}"
