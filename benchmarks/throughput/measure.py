"""How many tokens per second does the engine give, directly and through proxies that account for them differently?

The client is vLLM's own, ``vllm bench serve``, from the engine's environment: the reference for such figures, and the
same program and flags on every way, so what differs is what stands between. It is the Python one: the Rust one
(``VLLM_USE_RUST_BENCH``) is not in every wheel, and not in that for CPUs.

- *sweep*: the engine alone, for each length of prompt and answer, at rising concurrency; *prefill*: the same prompts at
  the highest concurrency with answers of one token.
- *arms*: every way (`findings.ARMS`) with the first lengths, at each load. All runs of a repeat are made in random
  order before those of the next, all proxies are up all the time, and two of them are equal: what differs between
  these two is noise.
- *open*: callers who come when they come, at a share of what the slowest way answered in *arms*, with latency from the
  intended time (`open_loop`).
- *latency*: straight lines are fitted to the sweep's times, and when the engine is gone, a mock with those lines as its
  latency model is swept by the same client.
- *workers*: how far several workers of one proxy scale, in front of the mock (`workers`).

Every run has a seed of its own. The engine's prefix cache is off: the client's random prompts begin alike more often
than callers' do where the vocabulary is small, and its warm-up asks what it asks again.

Tokens are the engine's count, not the client's. LiteLLM puts the usage of a stream into a chunk that has a choice,
where the client does not look; it then counts the answer's text with its own tokenizer (measured: 96 tokens for
192), and its tokens per second and times per token follow from that. Times and requests are the client's.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness import backends, devices, ledgers, load, machine, rounds, statistics, streams
from benchmarks.harness.backends import ATTEMPTS, KINDS, MOCK, SHAPE, backend, described
from benchmarks.harness.benchmark import (
    Benchmark,
    Choice,
    Measurement,
    NotMeasured,
    OrPreset,
    Parameter,
    Parameters,
    WholeNumbers,
    Words,
)
from benchmarks.harness.ledgers import SpanCount, recorded
from benchmarks.harness.machine import CpuMeter
from benchmarks.harness.rounds import Sample
from benchmarks.harness.streams import streamed
from benchmarks.throughput import arms as ways
from benchmarks.throughput import client as vllm_client
from benchmarks.throughput import findings, latency_fit, open_loop, plan, roofline, worker_findings, workers
from benchmarks.throughput.arms import TENANT, proxies
from benchmarks.throughput.client import Client
from benchmarks.throughput.findings import evaluate, fit
from benchmarks.throughput.open_loop import Arrival, intended_times
from benchmarks.throughput.plan import LENGTHS, SHORT, SIZES, Plan, Run
from workbook.counters import wait_idle
from workbook.engine import MODEL_NAME, Engine, model_dir
from workbook.services import Backend
from workbook.stacks import Stack

NAME = "throughput"

_NO_CACHE = ("--no-enable-prefix-caching",)
_MOCK_TOKENIZER = "small"  # the mock has no model; the client needs some tokenizer to make prompts with
_TOKENS_PER_WORD = 3.5  # of a varied prompt, with the tokenizer of our shapes
_OPEN_TIMEOUT = 60.0
_WARM_UPS = 2  # requests before each run of the client that are not measured
_GOOD_TTFT_MS, _GOOD_TPOT_MS = 1000.0, 100.0  # the limits of goodput


def measure(parameters: Parameters) -> Measurement:
    """Start the engine and the proxies, make the runs that are planned, stop them; then what needs the mock alone.

    Raises `EngineNotBuilt` when no environment has the client, `NotMeasured` when a run of it gives no result.
    """
    chosen = plan.plan(parameters)
    _require_possible(chosen)
    if set(chosen.phases) == {findings.WORKERS}:
        found = evaluate([], seed=chosen.seed, engine={"kind": MOCK, "version": "", "shape": None})
    else:
        found = _with_client(chosen, parameters)
    if findings.WORKERS in chosen.phases:
        scale = workers.measure(parameters)
        found.samples.extend({"phase": findings.WORKERS, **sample} for sample in scale.samples)
        found.summary[findings.WORKERS] = scale.summary
        for name in ("findings", "faults", "caveats"):
            getattr(found, name).extend(getattr(scale, name))
    return found


def _with_client(chosen: Plan, parameters: Parameters) -> Measurement:
    kind = str(parameters["engine"])
    eager = {"yes": True, "no": False}.get(str(parameters["eager"]), kind != "vllm")
    attempt = ATTEMPTS[int(parameters["attempt"])]
    how: dict[str, Any] = {"shape": str(parameters["shape"]), "env": attempt.env, "eager": eager}
    args = () if kind == MOCK else (*_NO_CACHE, *attempt.args)
    print(f"starting {kind} and {len(chosen.proxied)} proxies ...", file=sys.stderr)
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="throughput-")))
        client = running.enter_context(Client(kind, folder))
        with ExitStack() as of_engine:
            engine = of_engine.enter_context(backend(NAME, kind, args=args, **how))
            stacks = of_engine.enter_context(proxies(NAME, chosen.proxied, engine.url, int(parameters["workers"])))
            what = _about(engine, eager)
            bench = _Bench(client, engine, stacks, parameters)
            states = devices.device_states()
            samples, cut_off = bench.all(chosen)
            states_after = devices.device_states()
        if findings.LATENCY in chosen.phases and not cut_off:
            flags = fit(samples).flags()
            fitted = [word for flag, value in flags.items() for word in (f"--{flag.replace('_', '-')}", f"{value:g}")]
            with backend(f"{NAME}_fitted", MOCK, args=fitted) as mock:
                bench = _Bench(client, mock, {}, parameters)
                samples += [bench.closed(run, chosen) for run in tqdm(chosen.fitted(), unit="run", disable=None)]
    found = evaluate(samples, seed=chosen.seed, engine=what, cut_off=cut_off, **_ceiling(what))
    found.summary["device_states"] = {"before": states, "after": states_after}
    found.summary["plan"] = rounds.stored(asdict(chosen))
    found.caveats.extend(_slowdowns(states_after))
    return found


def _require_possible(chosen: Plan) -> None:
    phases = set(chosen.phases)
    if phases & {findings.ARMS_PHASE, findings.OPEN, findings.WORKERS} and not backends.proxy_is_there():
        raise NotMeasured("this Python has no LiteLLM, so nothing goes through a proxy; ask for --phases sweep,prefill")
    if findings.OPEN in phases and findings.ARMS_PHASE not in phases:
        raise NotMeasured("the rate of an open loop is a share of what `arms` measures; add it to --phases")
    if findings.LATENCY in phases and (findings.SWEEP not in phases or len(chosen.concurrencies) < 3):
        raise NotMeasured("a latency model is fitted to the sweep of three or more concurrencies: --concurrencies")


def _about(engine: Backend, eager: bool) -> dict[str, Any]:
    found = devices.devices()
    device = found[0]["name"] if found and isinstance(engine, Engine) and engine.kind == "vllm" else None
    return {**described(engine), "eager": eager and isinstance(engine, Engine), "device": device, "parameters": None}


def _ceiling(what: dict[str, Any]) -> dict[str, Any]:
    """The model and the device that decide the ceiling; notes the model's parameters in ``what``."""
    if what["shape"] is None:
        return {}
    config = json.loads((model_dir(what["shape"]) / "config.json").read_text(encoding="utf-8"))
    of = roofline.model(config)
    what["parameters"] = of.parameters
    return {"of": of, "on": roofline.device(what["device"])}


def _slowdowns(states: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for state in states:
        try:
            reasons = int(str(state["slowdown_reasons"]), 16) & ~devices.HARMLESS_SLOWDOWNS
        except ValueError:  # an older driver does not tell
            continue
        if reasons:
            yield f"the device was slowed down at the end, NVML's reasons {reasons:#x}"


class _Bench:
    """The running programs, and the clients to run against them."""

    def __init__(self, client: Client, engine: Backend, stacks: Mapping[str, Stack], parameters: Parameters) -> None:
        self._client = client
        self._engine_url = engine.url
        self._stacks = stacks
        self._parameters = parameters
        self._tokenizer = model_dir(engine.shape if isinstance(engine, Engine) else _MOCK_TOKENIZER)
        self._spans = {arm: SpanCount(running.ledger) for arm, running in stacks.items()}
        self._meter = CpuMeter({arm: running.proxy.child.pid for arm, running in stacks.items()})

    def all(self, chosen: Plan) -> tuple[list[Sample], str | None]:
        """A sample of each run, and why there are not all of them: no time, or somebody interrupted."""
        samples = list[Sample]()
        limit = float(self._parameters["limit_minutes"])
        deadline = time.monotonic() + 60 * limit if limit else math.inf

        def take(runs: Iterable[Run], act: Callable[[Run], Sample]) -> bool:
            for run in tqdm(runs, unit="run", disable=None):
                if time.monotonic() > deadline:
                    return False
                samples.append(act(run))
            return True

        try:
            for run in chosen.warm_up():
                # First imports, connection pools, kernels. Their records are waited for: they are not a sample's.
                self._counted(run, partial(self._run_client, run))
            whole = take(chosen.closed(), lambda run: self.closed(run, chosen))
            if whole and findings.OPEN in chosen.phases:
                rate = _capacity(samples) * float(self._parameters["open_share"])
                whole = take(chosen.opened(), lambda run: self._open(run, rate))
        except KeyboardInterrupt:
            if not samples:
                raise
            return samples, f"interrupted after {len(samples)} runs"
        return samples, None if whole else f"cut off after {limit:g} minutes: {len(samples)} runs were made"

    def closed(self, run: Run, chosen: Plan) -> Sample:
        """One run of the client."""
        told, counted = self._counted(run, lambda: self._run_client(run))
        times = _times(told, run.output_len)
        each = [tpot for _, tpot in times if tpot is not None]
        return {
            **counted,
            "client": _figures(told),
            "num_prompts": run.requests,
            "median_tpot_ms": round(median(each), 6) if each else None,
            "good": sum(first <= _GOOD_TTFT_MS and (tpot or 0) <= _GOOD_TPOT_MS for first, tpot in times),
            **({"paired_output_len": chosen.lengths[0][1]} if run.phase == findings.PREFILL else {}),
        }

    def _open(self, run: Run, rate: float) -> Sample:
        times = intended_times(rate, float(self._parameters["open_seconds"]), self._seed(run)) or [0.0]
        headers = self._stacks[run.arm].headers(TENANT) if run.arm != findings.DIRECT else {}
        make = streamed(self._url(run), headers, round(run.input_len / _TOKENS_PER_WORD), self._seed(run) * 1000)
        arrivals, counted = self._counted(
            run, lambda: open_loop.open_loop(make, times, max_tokens=run.output_len, timeout=_OPEN_TIMEOUT)
        )
        return {**counted, "rate": rate, **_told(arrivals)}

    def _counted(self, run: Run, act: Callable[[], Any]) -> tuple[Any, Sample]:
        """What ``act`` gives, and what engine, receiver and kernel counted meanwhile."""
        proxied = self._stacks.get(run.arm)
        spans_before = self._spans[run.arm].so_far() if proxied else 0
        size_before = proxied.ledger.stat().st_size if proxied else 0
        before, cpu_before, began = wait_idle(self._engine_url), self._meter.read(), time.perf_counter()
        told = act()
        counted = wait_idle(self._engine_url).since(before)[MODEL_NAME]
        if run.arm in findings.EXPORTING:
            self._spans[run.arm].wait_for(spans_before + counted.requests)
        cpu, ended = self._meter.read(), time.perf_counter()
        sums = recorded(proxied.ledger, size_before) if proxied else None
        return told, {
            **{name: getattr(run, name) for name in ("phase", "repeat", "arm", "input_len", "output_len")},
            "concurrency": run.concurrency,
            "seed": self._seed(run),
            "counted_requests": counted.requests,
            "counted_prompt_tokens": counted.prompt_tokens,
            "counted_completion_tokens": counted.generation_tokens,
            "cache_queries": counted.cache_queries,
            "cache_hits": counted.cache_hits,
            "spans": self._spans[run.arm].so_far() - spans_before if proxied else 0,
            "recorded_prompt_tokens": sums.prompt_tokens if sums else 0,
            "recorded_completion_tokens": sums.completion_tokens if sums else 0,
            "proxy_cpu_seconds": round(cpu[run.arm] - cpu_before[run.arm], 4) if proxied else None,
            "others_cores": round((cpu["others"] - cpu_before["others"]) / (ended - began), 4),
        }

    def _seed(self, run: Run) -> int:
        """Of the prompts, not of sampling: the clients send no ``seed``."""
        return int(self._parameters["seed"]) * 100_000 + run.number

    def _url(self, run: Run) -> str:
        return self._stacks[run.arm].proxy_url if run.arm in self._stacks else self._engine_url

    def _run_client(self, run: Run) -> dict[str, Any]:
        proxied = self._stacks.get(run.arm)
        return self._client.run(
            [
                *("--backend", "openai-chat", "--base-url", self._url(run), "--endpoint", "/v1/chat/completions"),
                *("--model", MODEL_NAME, "--tokenizer", str(self._tokenizer)),
                *("--dataset-name", "random", "--seed", str(self._seed(run))),
                *("--random-input-len", str(run.input_len), "--random-output-len", str(run.output_len)),
                *("--num-prompts", str(run.requests), "--num-warmups", str(_WARM_UPS)),
                *("--max-concurrency", str(run.concurrency), "--ignore-eos", "--temperature", "0"),
                *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"),
            ],
            api_key=proxied.keys[TENANT] if proxied else "none",
        )


def _capacity(samples: Sequence[Sample]) -> float:
    """Requests per second of the slowest arm at the highest load, its median over repeats."""
    most = max(int(sample["concurrency"]) for sample in samples if sample["phase"] == findings.ARMS_PHASE)
    rates = dict[str, list[float]]()
    for sample in samples:
        if (sample["phase"], sample["concurrency"]) == (findings.ARMS_PHASE, most):
            client = sample["client"]
            rates.setdefault(sample["arm"], []).append(client["completed"] / client["duration"])
    return min(median(values) for values in rates.values())


def _told(arrivals: Sequence[Arrival]) -> dict[str, Any]:
    def percentiles(seconds: Iterable[float | None]) -> dict[str, float] | None:
        known = [1000 * value for value in seconds if value is not None]
        if not known:
            return None
        return {"p50": round(float(np.quantile(known, 0.5)), 3), "p99": round(float(np.quantile(known, 0.99)), 3)}

    errors = Counter(arrival.answer for arrival in arrivals if isinstance(arrival.answer, str))
    late = 1000 * float(np.quantile([arrival.late for arrival in arrivals], 0.99))
    return {
        "sent": len(arrivals),
        "answered": len(arrivals) - errors.total(),
        "errors": dict(errors),
        "late_p99_ms": round(late, 3),
        "ttft_ms": percentiles(arrival.first_token() for arrival in arrivals),
        "e2el_ms": percentiles(arrival.latency() for arrival in arrivals),
    }


def _times(told: Mapping[str, Any], output_len: int) -> list[tuple[float, float | None]]:
    """For each answer, milliseconds to its first token and for each after it; None where there is no other."""
    return [
        (1000 * first, 1000 * (latency - first) / (output_len - 1) if output_len > 1 else None)
        for latency, first, error in zip(told["latencies"], told["ttfts"], told["errors"], strict=True)
        if not error
    ]


def _figures(told: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers of the client's report, whichever its version writes."""
    return {
        name: value
        for name, value in told.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


BENCHMARK = Benchmark(
    name=NAME,
    question="How many tokens per second does the engine give, directly and through proxies that account for them "
    "differently?",
    parameters=(
        Choice("engine", "vllm", KINDS, "what is asked"),
        SHAPE,
        Choice("size", SHORT, SIZES, "decides what is 'preset'; short takes 2 to 3 minutes"),
        OrPreset("phases", Words("phases", "", findings.PHASES, "what is measured")),
        OrPreset("arms", Words("arms", "", findings.ARMS, "ways to the engine")),
        OrPreset(
            "lengths",
            Words("lengths", "", LENGTHS, "tokens of a prompt and of an answer"),
        ),
        OrPreset("concurrencies", WholeNumbers("concurrencies", "", 1, "of the sweep: requests under way at once")),
        OrPreset("loads", WholeNumbers("loads", "", 1, "of the arms: requests under way at once")),
        OrPreset(
            "repeats",
            Parameter("repeats", 0, 2, f"of every run; under {findings.MINIMUM_REPEATS} not for quoting"),
        ),
        OrPreset("per_caller", Parameter("per_caller", 0, 1, "requests of a run, for each that is under way at once")),
        Parameter("workers", 1, 1, "processes of each proxy of the arms"),
        Choice("eager", "default", ("default", "yes", "no"), "no compiling, no CUDA graphs; default: on a CPU"),
        Parameter("attempt", 0, 0, f"the way to start vLLM that the smoke test found, 0 to {len(ATTEMPTS) - 1}"),
        Parameter("open_share", 0.6, 0.01, "of what the slowest arm answers: the rate of the open loop"),
        Parameter("open_seconds", 10.0, 0.1, "length of an open-loop run"),
        WholeNumbers("counts", "1,2,4", 1, "of the phase workers: processes of a proxy"),
        Parameter("rounds", 10, 2, "of the phase workers, one block for each proxy"),
        Parameter("block_seconds", 1.0, 0.05, "of the phase workers, for each block"),
        Parameter("limit_minutes", 0.0, 0.0, "no run begins later than this after the start of the runs; 0: no limit"),
        Parameter("seed", 0, 0, "of the order of runs, the prompts and the bootstrap"),
    ),
    measure=measure,
    modules=(
        *(sys.modules[__name__], findings, plan, ways, vllm_client, open_loop, roofline, latency_fit),
        *(workers, worker_findings, backends, ledgers, load, machine, rounds, statistics, streams),
    ),
)
