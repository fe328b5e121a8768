"""What the samples of `throughput` say: figures with intervals, what the proxy and each callback cost, and the ceiling.

A sample is one run: ``phase``, ``repeat``, ``arm``, ``input_len``, ``output_len`` (tokens), ``concurrency``, ``seed``;
what engine and receiver counted, ``counted_*``, warm-up included; ``cache_queries`` and ``cache_hits`` in prompt
tokens; ``spans`` that arrived, and for our own callback ``recorded_*``, their sums; ``proxy_cpu_seconds``;
``others_cores``.

- Closed loop (phases `SWEEP`, `PREFILL` and `ARMS_PHASE`): ``client``, the numbers that ``vllm bench serve`` reports,
  under its own names; ``median_tpot_ms`` from its times and the answers' true length, None for answers of one token;
  ``good``, the requests within both limits of goodput.
- Open loop (`OPEN` and `OUTAGE`): ``rate`` per second; ``sent``, ``answered``, ``errors`` by kind; ``late_p99_ms``, and
  from the intended time ``ttft_ms`` and ``e2el_ms`` with ``p50`` and ``p99``, None where nothing was answered.

The summary, where every interval is the object of `statistics.Interval` (``median``, ``low``, ``high``, ``confidence``,
``rounds``), and what was not measured is an empty list or None:

- ``engine``: as `backends.described`, and ``eager``, ``device`` (name or None), ``parameters`` (of the model);
- ``points``, one for each phase, arm, shape and concurrency of a closed loop: ``output_tokens_per_second``,
  ``input_tokens_per_second``, ``requests_per_second``, ``good_requests_per_second``, ``median_ttft_ms``,
  ``median_tpot_ms``, ``median_e2el_ms``, ``under_way`` (Little's law, to be compared with ``concurrency``) and
  ``proxy_cpu_ms`` (of the proxy, for a request), intervals all; ``ceiling`` in output tokens per second and
  ``of_ceiling``, numbers or None;
- ``token_rates``, for prices: ``prefill_input_tokens_per_second`` (from answers of one token) and
  ``decode_output_tokens_per_second`` (from the same prompts with full answers, less the time that their prefill
  takes), intervals; with ``input_len``, ``output_len`` and ``concurrency`` that they hold for. At that concurrency the
  engine works ``input tokens / prefill + output tokens / decode`` seconds;
- ``comparisons``, of output tokens per second in `ARMS_PHASE`: ``arm``, ``against``, ``concurrency``, ``ratio``, its
  interval over pairs of one repeat, ``null``, that of two equal proxies, and ``differs``, whether the ratio is beyond
  it;
- ``open`` and ``outage``, one for each arm: ``rate``, ``repeats``, ``answered_share``, ``ttft_p50_ms``,
  ``e2el_p50_ms``, ``e2el_p99_ms`` as medians over repeats, ``late_p99_ms`` the worst;
- from `measure`: ``device_states`` before and after (`devices.device_states`), and ``plan``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from benchmarks.harness.backends import MOCK, caveat
from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.machine import QUIET_CORES
from benchmarks.harness.statistics import (
    Interval,
    Ratio,
    differs,
    in_brackets,
    in_words,
    median_interval,
    paired_ratio,
)
from benchmarks.throughput.roofline import Device, Model, ceiling

DIRECT, PROXY, PROXY_AGAIN, CALLBACK = "direct", "proxy", "proxy-again", "callback"
SIMPLE, BATCH, DURABLE, LITELLM_OTEL = "simple", "batch", "durable", "litellm-otel"
OURS = (CALLBACK, SIMPLE, BATCH, DURABLE)
EXPORTING = (SIMPLE, BATCH, DURABLE)
ARMS = (DIRECT, PROXY, PROXY_AGAIN, *OURS, LITELLM_OTEL)
"""``proxy`` has no callback, ``proxy-again`` is another process of the same: what differs between them is noise.
``callback`` has ours without an exporter, then with each span processor and OTLP; the last has LiteLLM's own."""

SWEEP, PREFILL, ARMS_PHASE, OPEN, OUTAGE = "sweep", "prefill", "arms", "open", "outage"
PHASES = (SWEEP, PREFILL, ARMS_PHASE, OPEN, OUTAGE)
CLOSED = (SWEEP, PREFILL, ARMS_PHASE)
MINIMUM_REPEATS = 3

_MOST_CACHE_HITS = 0.02  # of the prompt tokens
_MOST_LATE = 0.1  # of the latency that an open loop tells
_ROUNDING = 1.01  # of the client's clock, where a number has a limit that it may reach
Sample = dict[str, Any]


def evaluate(
    samples: Sequence[Sample],
    *,
    engine: Mapping[str, Any],
    of: Model | None = None,
    on: Device | None = None,
    cut_off: str | None = None,
) -> Measurement:
    """The measurement that ``samples`` are; ``engine`` is what it was, ``of`` and ``on`` decide the ceiling.

    ``cut_off`` says why not all runs were made. A point with fewer than two repeats is left out.
    """
    kept = list(samples)
    points = [_point(runs, of, on) for runs in _groups(kept, CLOSED) if len(runs) > 1]
    rates = _token_rates(kept)
    loads = _loads(kept)
    comparisons = [entry for load in loads for entry in _comparisons(load, len(loads))]
    open_loops = {phase: [_open(runs) for runs in _groups(kept, (phase,))] for phase in (OPEN, OUTAGE)}
    about = " ".join(filter(None, (engine["kind"], engine["version"], engine["shape"])))
    eager = ", in eager mode" if engine.get("eager") else ""
    findings = [
        f"{about}{eager}: {caveat(engine['kind'])}.",
        *map(_point_in_words, points),
        *_rates_in_words(rates),
        *(_comparison_in_words(entry) for entry in comparisons),
        *(_open_in_words(phase, entry) for phase, entries in open_loops.items() for entry in entries),
        in_brackets(len({run["repeat"] for run in kept}), len(comparisons), "repeats"),
    ]
    faults = _faults(kept, points, engine["kind"])
    return Measurement(
        samples=kept,
        summary={
            "engine": dict(engine),
            "points": points,
            "token_rates": rates,
            "comparisons": comparisons,
            OPEN: open_loops[OPEN],
            OUTAGE: open_loops[OUTAGE],
        },
        findings=findings,
        faults=[*([cut_off] if cut_off else []), *faults],
        caveats=[
            caveat(engine["kind"]),
            *(["no ceiling: the device's bandwidth and arithmetic are not among the published ones"] * (on is None)),
        ],
    )


def _groups(samples: Sequence[Sample], phases: Sequence[str]) -> list[list[Sample]]:
    """The runs that differ only in the repeat, in its order; groups in the order of their first run's key."""
    groups = dict[tuple[Any, ...], list[Sample]]()
    for sample in samples:
        if sample["phase"] in phases:
            groups.setdefault(_key(sample), []).append(sample)
    return [sorted(groups[key], key=lambda sample: int(sample["repeat"])) for key in sorted(groups)]


def _key(sample: Sample) -> tuple[Any, ...]:
    return (
        PHASES.index(sample["phase"]),
        *(sample["input_len"], sample["output_len"], sample["concurrency"] or 0),
        ARMS.index(sample["arm"]),
    )


def _output_rate(run: Sample) -> float:
    return float(run["client"]["completed"] * run["output_len"] / run["client"]["duration"])


def _input_rate(run: Sample) -> float:
    return _request_rate(run) * float(run["counted_prompt_tokens"]) / float(run["counted_requests"])


def _request_rate(run: Sample) -> float:
    return float(run["client"]["completed"] / run["client"]["duration"])


def _under_way(run: Sample) -> float:
    """Little's law: the rate times the mean time that a request takes."""
    return _request_rate(run) * float(run["client"]["mean_e2el_ms"]) / 1000


def _cpu_ms(run: Sample) -> float:
    return 1000 * float(run["proxy_cpu_seconds"]) / float(run["counted_requests"])


_FIGURES: dict[str, Callable[[Sample], float | None]] = {
    "output_tokens_per_second": _output_rate,
    "input_tokens_per_second": _input_rate,
    "requests_per_second": _request_rate,
    "good_requests_per_second": lambda run: float(run["good"] / run["client"]["duration"]),
    "median_ttft_ms": lambda run: float(run["client"]["median_ttft_ms"]),
    "median_tpot_ms": lambda run: run["median_tpot_ms"],
    "median_e2el_ms": lambda run: float(run["client"]["median_e2el_ms"]),
    "under_way": _under_way,
    "proxy_cpu_ms": lambda run: None if run["proxy_cpu_seconds"] is None else _cpu_ms(run),
}


def _point(runs: Sequence[Sample], of: Model | None, on: Device | None) -> dict[str, Any]:
    first = runs[0]
    figures = {}
    for name, figure in _FIGURES.items():
        values = [value for run in runs if (value := figure(run)) is not None]
        figures[name] = asdict(median_interval(values)) if len(values) == len(runs) else None
    most = None
    if of and on:
        most = ceiling(
            *(of, on),
            input_len=first["counted_prompt_tokens"] / first["counted_requests"],
            output_len=first["output_len"],
            concurrency=first["concurrency"],
        )
    rate = figures["output_tokens_per_second"]
    return {
        **{name: first[name] for name in ("phase", "arm", "input_len", "output_len", "concurrency")},
        "repeats": len(runs),
        **figures,
        "ceiling": most,
        "of_ceiling": rate["median"] / most if most and rate else None,
    }


def _token_rates(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """From the pairs of runs, of one repeat, that differ in the length of the answer alone: one token, and many."""
    prefills = {run["repeat"]: run for run in samples if run["phase"] == PREFILL}
    if len(prefills) < 2:
        return None
    one = next(iter(prefills.values()))
    decodes = {
        run["repeat"]: run
        for run in samples
        if (run["phase"], run["input_len"], run["concurrency"]) == (SWEEP, one["input_len"], one["concurrency"])
        and run["output_len"] == one["paired_output_len"]
    }
    both = sorted(prefills.keys() & decodes.keys())
    if len(both) < 2:
        return None
    prefill = [_input_rate(prefills[repeat]) for repeat in both]
    # Seconds of the engine for one request, and for its prompt alone.
    whole = [1 / _request_rate(decodes[repeat]) for repeat in both]
    prompts = [1 / _request_rate(prefills[repeat]) for repeat in both]
    if any(request <= prompt for request, prompt in zip(whole, prompts, strict=True)):
        return None
    decode = [one["paired_output_len"] / (request - prompt) for request, prompt in zip(whole, prompts, strict=True)]
    return {
        "prefill_input_tokens_per_second": asdict(median_interval(prefill)),
        "decode_output_tokens_per_second": asdict(median_interval(decode)),
        "input_len": one["input_len"],
        "output_len": one["paired_output_len"],
        "concurrency": one["concurrency"],
    }


def _loads(samples: Sequence[Sample]) -> list[dict[str, list[Sample]]]:
    """For each concurrency of `ARMS_PHASE`, each arm's runs, those of repeats in which every arm was measured."""
    loads = dict[int, dict[str, list[Sample]]]()
    for runs in _groups(samples, (ARMS_PHASE,)):
        loads.setdefault(runs[0]["concurrency"], {})[runs[0]["arm"]] = runs
    whole = []
    for arms in loads.values():
        common = set.intersection(*({run["repeat"] for run in runs} for runs in arms.values()))
        if len(common) > 1:
            whole.append({arm: [run for run in runs if run["repeat"] in common] for arm, runs in arms.items()})
    return whole


def _comparisons(arms: Mapping[str, Sequence[Sample]], loads: int) -> list[dict[str, Any]]:
    if PROXY not in arms:
        return []

    def ratio(arm: str, against: str) -> Ratio:
        rates = ([_output_rate(run) for run in arms[which]] for which in (arm, against))
        return paired_ratio(*rates, comparisons=loads * len(pairs))

    pairs = [(PROXY, DIRECT)] * (DIRECT in arms)
    pairs += [(arm, PROXY) for arm in arms if arm not in (DIRECT, PROXY)]
    null = ratio(PROXY_AGAIN, PROXY) if PROXY_AGAIN in arms else None
    return [
        {
            **{"arm": arm, "against": against, "concurrency": arms[PROXY][0]["concurrency"]},
            "ratio": asdict(measured := ratio(arm, against)),
            "null": asdict(null) if null else None,
            "differs": bool(null and arm != PROXY_AGAIN and differs(measured, null)),
        }
        for arm, against in pairs
    ]


def _open(runs: Sequence[Sample]) -> dict[str, Any]:
    def middle(name: str, at: str) -> float | None:
        values = [run[name][at] for run in runs if run[name] is not None]
        return median(values) if values else None

    return {
        "arm": runs[0]["arm"],
        "rate": runs[0]["rate"],
        "repeats": len(runs),
        "answered_share": sum(run["answered"] for run in runs) / sum(run["sent"] for run in runs),
        "ttft_p50_ms": middle("ttft_ms", "p50"),
        "e2el_p50_ms": middle("e2el_ms", "p50"),
        "e2el_p99_ms": middle("e2el_ms", "p99"),
        "late_p99_ms": max(run["late_p99_ms"] for run in runs),
    }


def _told(interval: Mapping[str, Any]) -> str:
    return str(Interval(**interval))


def _point_in_words(point: Mapping[str, Any]) -> str:
    where = f"{point['phase']}, {point['input_len']}/{point['output_len']}, concurrency {point['concurrency']}"
    text = f"{where}, {point['arm']}: {_told(point['output_tokens_per_second'])} output tokens/s"
    if point["of_ceiling"] is not None:
        text += f" ({point['of_ceiling']:.0%} of the ceiling, {point['ceiling']:,.0f})"
    text += f", median time to first token {_told(point['median_ttft_ms'])} ms"
    if point["median_tpot_ms"] is not None:
        text += f", per output token {_told(point['median_tpot_ms'])} ms"
    return f"{text}."


def _rates_in_words(rates: Mapping[str, Any] | None) -> list[str]:
    if rates is None:
        return []
    return [
        f"at concurrency {rates['concurrency']}, prompts of {rates['input_len']} tokens: prefill "
        f"{_told(rates['prefill_input_tokens_per_second'])} input tokens/s, decode "
        f"{_told(rates['decode_output_tokens_per_second'])} output tokens/s."
    ]


def _comparison_in_words(entry: Mapping[str, Any]) -> str:
    ratio = Ratio(**entry["ratio"])
    what = f"concurrency {entry['concurrency']}: output tokens per second, {entry['arm']} over {entry['against']}"
    if entry["arm"] == PROXY_AGAIN:
        return f"{what}, which is the same thing twice: {ratio}."
    if entry["null"] is None:
        return f"{what}: {ratio}; without two equal proxies it is not known what noise alone gives."
    return f"{what}: {in_words(ratio, Ratio(**entry['null']))}."


def _open_in_words(phase: str, entry: Mapping[str, Any]) -> str:
    where = "with the collector away" if phase == OUTAGE else "open loop"
    text = f"{where}, {entry['rate']:.3g} requests/s, {entry['arm']}: {entry['answered_share']:.0%} answered"
    if entry["e2el_p50_ms"] is not None:
        text += f", {entry['e2el_p50_ms']:,.0f} ms at the median, {entry['e2el_p99_ms']:,.0f} ms at the 99th percentile"
    return f"{text}, from the intended time."


def _faults(samples: Sequence[Sample], points: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    faults = []
    fewest = min(len(runs) for runs in _groups(samples, (*CLOSED, OPEN)))
    if fewest < MINIMUM_REPEATS:
        faults.append(f"{fewest} repeats are too few: a range needs at least {MINIMUM_REPEATS}")
    for sample in samples:
        faults += [f"{_where(sample)}: {fault}" for fault in _faults_of(sample, kind)]
    faults += [
        f"{point['phase']}, {point['arm']}, concurrency {point['concurrency']}: {point['of_ceiling']:.0%} of the "
        "ceiling, which cannot be"
        for point in points
        if (point["of_ceiling"] or 0) > _ROUNDING
    ]
    others = fmean(sample["others_cores"] for sample in samples)
    if others > QUIET_CORES:
        faults.append(f"busy machine: others used {others:.2f} cores while it was measured, more than {QUIET_CORES}")
    return faults


def _faults_of(sample: Sample, kind: str) -> list[str]:
    faults = []
    if sample["phase"] in CLOSED:
        completed = sample["client"]["completed"]
        if completed != sample["num_prompts"]:
            faults.append(f"{completed} of {sample['num_prompts']} requests were completed")
        if _under_way(sample) > sample["concurrency"] * _ROUNDING:
            faults.append(f"Little's law: {_under_way(sample):.3g} under way, more than the concurrency")
    elif sample["phase"] == OPEN:
        if sample["errors"]:
            faults.append(f"requests failed: {sample['errors']}")
        if sample["e2el_ms"] and sample["late_p99_ms"] > _MOST_LATE * sample["e2el_ms"]["p50"]:
            faults.append(f"the client was late itself: {sample['late_p99_ms']:.3g} ms at the 99th percentile")
    if sample["phase"] == OUTAGE:
        return faults  # what is lost there is the finding
    if sample["counted_completion_tokens"] != sample["counted_requests"] * sample["output_len"]:
        faults.append(
            f"the engine counted {sample['counted_completion_tokens']} output tokens for "
            f"{sample['counted_requests']} answers of {sample['output_len']}"
        )
    if sample["arm"] in EXPORTING:
        if sample["spans"] != sample["counted_requests"]:
            faults.append(f"{sample['spans']} spans arrived, expected {sample['counted_requests']}")
        for tokens in ("prompt_tokens", "completion_tokens"):
            recorded, counted = sample[f"recorded_{tokens}"], sample[f"counted_{tokens}"]
            if recorded != counted:
                faults.append(f"the records have {recorded} {tokens}, the engine counted {counted}")
    # The mock is none the faster for a token from its cache.
    if kind != MOCK and sample["cache_hits"] > _MOST_CACHE_HITS * sample["cache_queries"]:
        faults.append(f"the prefix cache gave {sample['cache_hits']} of {sample['cache_queries']} prompt tokens")
    return faults


def _where(sample: Sample) -> str:
    load = f"{sample['rate']:.3g}/s" if sample["phase"] in (OPEN, OUTAGE) else f"concurrency {sample['concurrency']}"
    return (
        f"repeat {sample['repeat']}, {sample['phase']}, {sample['arm']}, "
        f"{sample['input_len']}/{sample['output_len']}, {load}"
    )
