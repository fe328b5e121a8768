"""What the samples of `throughput` say: figures with intervals, what the proxy and each callback cost, and the ceiling.

A sample is one run: ``phase``, ``repeat``, ``arm``, ``input_len``, ``output_len`` (tokens), ``concurrency``, ``seed``;
what engine and receiver counted, ``counted_*``, warm-up included; ``cache_queries`` and ``cache_hits`` in prompt
tokens; ``spans`` that arrived, and for our own callback ``recorded_*``, their sums; ``proxy_cpu_seconds``;
``others_cores``.

- Closed loop (phases `CLOSED`): ``client``, the numbers that ``vllm bench serve`` reports, under its own names;
  ``median_tpot_ms`` from its times and the answers' true length, None for answers of one token; ``good``, the requests
  within both limits of goodput.
- Open loop (`OPEN`): ``rate`` per second; ``sent``, ``answered``, ``errors`` by kind; ``late_p99_ms``, and from the
  intended time ``ttft_ms`` and ``e2el_ms`` with ``p50`` and ``p99``, None where nothing was answered.

The summary, where every interval is the object of `statistics.Interval` (``median``, ``low``, ``high``, ``confidence``,
``rounds``), and what was not measured is an empty list or None:

- ``engine``: as `backends.described`, and ``eager``, ``device`` (name or None), ``parameters`` (of the model);
- ``points``, one for each phase, arm, shape and concurrency of a closed loop: the intervals of `_FIGURES`, of which
  ``under_way`` is Little's law, to be compared with ``concurrency``, and ``proxy_cpu_ms`` the proxy's, for a request;
  ``ceiling`` in output tokens per second and ``of_ceiling``, numbers or None;
- ``token_rates``, for prices: ``prefill_input_tokens_per_second`` (from answers of one token) and
  ``decode_output_tokens_per_second`` (from the same prompts with full answers, less the time that their prefill
  takes), intervals; with ``input_len``, ``output_len`` and ``concurrency`` that they hold for. At that concurrency the
  engine works ``input tokens / prefill + output tokens / decode`` seconds;
- ``comparisons``, of output tokens per second in `ARMS_PHASE`: ``arm``, ``against``, ``concurrency``, ``ratio``, its
  interval over pairs of one repeat, ``null``, that of two equal proxies, and ``differs``, whether the ratio is beyond
  it;
- ``open``, one for each arm: ``rate``, ``repeats``, ``answered_share``, ``ttft_p50_ms``, ``e2el_p50_ms``,
  ``e2el_p99_ms`` as medians over repeats, ``late_p99_ms`` the worst;
- ``latency``: the ``fit`` of the mock's latency model to the sweep, and ``curves`` of the engine and of that mock;
- from `measure`: ``device_states`` before and after (`devices.device_states`), and ``plan``;
- ``workers``: see `worker_findings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.harness.backends import MOCK, caveat
from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.faults import busy, too_few
from benchmarks.harness.rounds import Measure, Rounds, Sample, stored
from benchmarks.harness.statistics import differs, in_brackets, in_words
from benchmarks.throughput.latency_fit import Fit, fit_line
from benchmarks.throughput.roofline import Device, Model, ceiling

DIRECT, PROXY, PROXY_AGAIN, CALLBACK = "direct", "proxy", "proxy-again", "callback"
SIMPLE, BATCH, DURABLE, LITELLM_OTEL = "simple", "batch", "durable", "litellm-otel"
EXPORTING = (SIMPLE, BATCH, DURABLE)
ARMS = (DIRECT, PROXY, PROXY_AGAIN, CALLBACK, *EXPORTING, LITELLM_OTEL)
"""``proxy`` has no callback, ``proxy-again`` is another process of the same: what differs between them is noise.
``callback`` has ours without an exporter, then with each span processor and OTLP; the last has LiteLLM's own."""

SWEEP, PREFILL, ARMS_PHASE, OPEN, LATENCY, WORKERS = "sweep", "prefill", "arms", "open", "latency", "workers"
PHASES = (SWEEP, PREFILL, ARMS_PHASE, OPEN, LATENCY, WORKERS)
CLOSED = (SWEEP, PREFILL, ARMS_PHASE, LATENCY)
MINIMUM_REPEATS = 3

_MOST_CACHE_HITS = 0.02  # of the prompt tokens
_MOST_LATE = 0.1  # of the latency that an open loop tells
_ROUNDING = 1.01  # of the client's clock, where a number has a limit that it may reach
_POINT = ("phase", "arm", "input_len", "output_len", "concurrency")


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
    kept = [run for run in samples if run["phase"] in PHASES]
    runs = _rounds(kept, *_POINT)
    closed = sorted((key for key in runs.groups if key[0] in CLOSED), key=_order)
    opened = sorted((key for key in runs.groups if key[0] == OPEN), key=_order)
    points = [_point(runs, key, of, on) for key in closed if len(runs.groups[key]) > 1]
    rates = _token_rates(kept)
    loads = sorted({key[4] for key in closed if key[0] == ARMS_PHASE})
    comparisons = [entry for load in loads for entry in _compared(kept, load, len(loads))]
    open_loops = [_open(runs.groups[key]) for key in opened]
    fitted = fit(kept) if any(run["phase"] == LATENCY for run in kept) else None
    about = " ".join(filter(None, (engine["kind"], engine["version"], engine["shape"])))
    eager = ", in eager mode" if engine.get("eager") else ""
    findings = [
        f"{about}{eager}: {caveat(engine['kind'])}.",
        *map(_point_in_words, points),
        *_rates_in_words(rates),
        *map(_comparison_in_words, comparisons),
        *map(_open_in_words, open_loops),
        *(_fit_in_words(fitted) if fitted else []),
        in_brackets(runs.count, len(comparisons), "repeats"),
    ]
    fewest = min((len(group) for group in runs.groups.values()), default=MINIMUM_REPEATS)
    faults = [*([cut_off] if cut_off else []), *too_few(fewest, MINIMUM_REPEATS, "repeats")]
    for run in kept:
        faults += [f"{_where(run)}: {fault}" for fault in _faults_of(run, engine["kind"])]
    faults += [
        f"{point['phase']}, {point['arm']}, concurrency {point['concurrency']}: {point['of_ceiling']:.0%} of the "
        "ceiling, which cannot be"
        for point in points
        if (point["of_ceiling"] or 0) > _ROUNDING
    ]
    no_ceiling = ["no ceiling: the device's bandwidth and arithmetic are not among the published ones"] * (on is None)
    summary = {
        "engine": engine,
        "points": points,
        "token_rates": rates,
        "comparisons": comparisons,
        OPEN: open_loops,
        LATENCY: _latency(fitted, points) if fitted else None,
    }
    return Measurement(kept, stored(summary), findings, faults + busy(kept), [caveat(engine["kind"]), *no_ceiling])


def _rounds(samples: Sequence[Sample], *names: str, comparisons: int = 1) -> Rounds:
    return Rounds(samples, *names, comparisons=comparisons, round="repeat")


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    phase, arm, input_len, output_len, concurrency = key
    return (PHASES.index(phase), input_len, output_len, concurrency or 0, ARMS.index(arm))


def _request_rate(run: Sample) -> float:
    return float(run["client"]["completed"] / run["client"]["duration"])


def _output_rate(run: Sample) -> float:
    return float(run["client"]["completed"] * run["output_len"] / run["client"]["duration"])


def _input_rate(run: Sample) -> float:
    return _request_rate(run) * float(run["counted_prompt_tokens"]) / float(run["counted_requests"])


def _under_way(run: Sample) -> float:
    """Little's law: the rate times the mean time that a request takes."""
    return _request_rate(run) * float(run["client"]["mean_e2el_ms"]) / 1000


_FIGURES: dict[str, Measure] = {
    "output_tokens_per_second": _output_rate,
    "input_tokens_per_second": _input_rate,
    "requests_per_second": _request_rate,
    "good_requests_per_second": lambda run: float(run["good"] / run["client"]["duration"]),
    "median_ttft_ms": lambda run: float(run["client"]["median_ttft_ms"]),
    "median_tpot_ms": lambda run: float(run["median_tpot_ms"]),
    "median_e2el_ms": lambda run: float(run["client"]["median_e2el_ms"]),
    "under_way": _under_way,
    "proxy_cpu_ms": lambda run: 1000 * float(run["proxy_cpu_seconds"]) / float(run["counted_requests"]),
}


def _point(runs: Rounds, key: tuple[Any, ...], of: Model | None, on: Device | None) -> dict[str, Any]:
    group = runs.groups[key]
    first = group[0]
    missing = {
        "median_tpot_ms": any(run["median_tpot_ms"] is None for run in group),
        "proxy_cpu_ms": any(run["proxy_cpu_seconds"] is None for run in group),
    }
    figures = {name: None if missing.get(name) else runs.interval(key, figure) for name, figure in _FIGURES.items()}
    most = None
    if of and on:
        prompt = first["counted_prompt_tokens"] / first["counted_requests"]
        length, concurrency = first["output_len"], first["concurrency"]
        most = ceiling(of, on, input_len=prompt, output_len=length, concurrency=concurrency)
    rate = figures["output_tokens_per_second"]
    return {
        **{name: first[name] for name in _POINT},
        "repeats": len(group),
        **figures,
        "ceiling": most,
        "of_ceiling": rate.median / most if most and rate else None,
    }


def _token_rates(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """From the pairs of runs, of one repeat, that differ in the length of the answer alone: one token, and many."""
    prefills = {run["repeat"]: run for run in samples if run["phase"] == PREFILL}
    if not prefills:
        return None
    one = next(iter(prefills.values()))
    whole = (SWEEP, one["input_len"], one["paired_output_len"], one["concurrency"])
    names = ("phase", "input_len", "output_len", "concurrency")
    decodes = {run["repeat"]: run for run in samples if tuple(run[name] for name in names) == whole}
    both = sorted(prefills.keys() & decodes.keys())
    # Seconds of the engine for one request, and for its prompt alone.
    pairs = [(1 / _request_rate(decodes[repeat]), 1 / _request_rate(prefills[repeat])) for repeat in both]
    if len(both) < 2 or any(request <= prompt for request, prompt in pairs):
        return None
    runs = _rounds(samples, "phase")
    return {
        "prefill_input_tokens_per_second": runs.of([_input_rate(prefills[repeat]) for repeat in both]),
        "decode_output_tokens_per_second": runs.of([whole[2] / (request - prompt) for request, prompt in pairs]),
        "input_len": one["input_len"],
        "output_len": one["paired_output_len"],
        "concurrency": one["concurrency"],
    }


def _compared(samples: Sequence[Sample], load: int, loads: int) -> list[dict[str, Any]]:
    """The ways at one concurrency, from repeats in which every one of them was measured."""
    here = [run for run in samples if (run["phase"], run["concurrency"]) == (ARMS_PHASE, load)]
    repeats = {run["arm"]: {other["repeat"] for other in here if other["arm"] == run["arm"]} for run in here}
    common = set.intersection(*repeats.values())
    if len(common) < 2 or PROXY not in repeats:
        return []
    arms = sorted(repeats, key=ARMS.index)
    pairs = [(PROXY, DIRECT)] * (DIRECT in arms) + [(arm, PROXY) for arm in arms if arm not in (DIRECT, PROXY)]
    whole = [run for run in here if run["repeat"] in common]
    runs = _rounds(whole, "arm", comparisons=loads * len(pairs))
    null = runs.ratio(PROXY_AGAIN, PROXY, _output_rate) if PROXY_AGAIN in repeats else None
    return [
        {
            **{"arm": arm, "against": against, "concurrency": load},
            "ratio": (ratio := runs.ratio(arm, against, _output_rate)),
            "null": null,
            "differs": bool(null and arm != PROXY_AGAIN and differs(ratio, null)),
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


def fit(samples: Sequence[Sample]) -> Fit:
    """The lines through the medians over repeats that the engine has at each concurrency of the first lengths.

    Raises ValueError for fewer than three concurrencies.
    """
    sweep = [run for run in samples if run["phase"] == SWEEP]
    length = sweep[0]["input_len"], sweep[0]["output_len"]
    groups: dict[int, list[Sample]] = {}
    for run in sweep:
        if (run["input_len"], run["output_len"]) == length:
            groups.setdefault(run["concurrency"], []).append(run)
    others = [concurrency - 1.0 for concurrency in groups]
    times = [
        [median(_FIGURES[name](run) for run in group) for group in groups.values()]
        for name in ("median_ttft_ms", "median_tpot_ms")
    ]
    return Fit(*(fit_line(others, each) for each in times))


def _latency(fitted: Fit, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mock = [point for point in points if point["phase"] == LATENCY]
    length = mock[0]["input_len"], mock[0]["output_len"]
    of_length = [point for point in points if (point["input_len"], point["output_len"]) == length]
    engine = [point for point in of_length if point["phase"] == SWEEP]
    names = {"ttft_ms": "median_ttft_ms", "tpot_ms": "median_tpot_ms"}
    return {
        "fit": {**asdict(fitted), "flags": fitted.flags()},
        "curves": {
            arm: [
                {"concurrency": point["concurrency"], **{short: point[name] for short, name in names.items()}}
                for point in curve
            ]
            for arm, curve in (("engine", engine), ("mock", mock))
        },
    }


def _fit_in_words(fitted: Fit) -> list[str]:
    return [
        f"{label} = {line.base_ms:.3g} ms + {line.per_other_ms:.3g} ms for each other request (R2 "
        f"{line.r_squared:.3f}, worst point {line.worst_relative_error:.0%} off)."
        for label, line in (("Time to first token", fitted.ttft), ("Time per output token", fitted.tpot))
    ]


def _point_in_words(point: Mapping[str, Any]) -> str:
    where = f"{point['phase']}, {point['input_len']}/{point['output_len']}, concurrency {point['concurrency']}"
    text = f"{where}, {point['arm']}: {point['output_tokens_per_second']} output tokens/s"
    if point["of_ceiling"] is not None:
        text += f" ({point['of_ceiling']:.0%} of the ceiling, {point['ceiling']:,.0f})"
    text += f", median time to first token {point['median_ttft_ms']} ms"
    if point["median_tpot_ms"] is not None:
        text += f", per output token {point['median_tpot_ms']} ms"
    return f"{text}."


def _rates_in_words(rates: Mapping[str, Any] | None) -> list[str]:
    if rates is None:
        return []
    return [
        f"at concurrency {rates['concurrency']}, prompts of {rates['input_len']} tokens: prefill "
        f"{rates['prefill_input_tokens_per_second']} input tokens/s, decode "
        f"{rates['decode_output_tokens_per_second']} output tokens/s."
    ]


def _comparison_in_words(entry: Mapping[str, Any]) -> str:
    ratio, null = entry["ratio"], entry["null"]
    what = f"concurrency {entry['concurrency']}: output tokens per second, {entry['arm']} over {entry['against']}"
    if entry["arm"] == PROXY_AGAIN:
        return f"{what}, which is the same thing twice: {ratio}."
    if null is None:
        return f"{what}: {ratio}; without two equal proxies it is not known what noise alone gives."
    return f"{what}: {in_words(ratio, null)}."


def _open_in_words(entry: Mapping[str, Any]) -> str:
    text = f"open loop, {entry['rate']:.3g} requests/s, {entry['arm']}: {entry['answered_share']:.0%} answered"
    if entry["e2el_p50_ms"] is not None:
        text += f", {entry['e2el_p50_ms']:,.0f} ms at the median, {entry['e2el_p99_ms']:,.0f} ms at the 99th percentile"
    return f"{text}, from the intended time."


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
    real = kind != MOCK and sample["phase"] != LATENCY
    if real and sample["cache_hits"] > _MOST_CACHE_HITS * sample["cache_queries"]:
        faults.append(f"the prefix cache gave {sample['cache_hits']} of {sample['cache_queries']} prompt tokens")
    return faults


def _where(sample: Sample) -> str:
    load = f"{sample['rate']:.3g}/s" if sample["phase"] == OPEN else f"concurrency {sample['concurrency']}"
    return (
        f"repeat {sample['repeat']}, {sample['phase']}, {sample['arm']}, "
        f"{sample['input_len']}/{sample['output_len']}, {load}"
    )
