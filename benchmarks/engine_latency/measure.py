"""How do time to first token and time per output token grow with concurrency, and does the fitted mock follow?

First the real engine: in each round every concurrency is measured once, in random order, as a closed loop of streamed
chat completions with prompts of one length that share no prefix. Then, with the engine gone, a straight line each is
fitted to the medians, a mock is started with those lines as its latency model, and the same rounds are measured
with it. So the two never share the machine, and the mock is judged by the same client.

The answers' lengths are fixed (``ignore_eos``). Tokens are counted by the engine; its counters must agree.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

from benchmarks.engine_latency import findings, latency_fit
from benchmarks.engine_latency.findings import ENGINE, MINIMUM_ROUNDS, Sample, evaluate, fit
from benchmarks.harness import backends, load, machine, statistics, streams
from benchmarks.harness.backends import MOCK, REAL_KINDS, SHAPE, backend, described
from benchmarks.harness.benchmark import (
    Benchmark,
    Choice,
    Measurement,
    Parameter,
    Parameters,
    WholeNumbers,
    whole_numbers,
)
from benchmarks.harness.load import Request
from benchmarks.harness.machine import CpuMeter
from benchmarks.harness.streams import closed_loop, varied_prompt
from workbook.counters import wait_idle
from workbook.engine import MODEL_NAME
from workbook.services import Backend

NAME = "engine_latency"


@dataclass(frozen=True)
class _Block:
    round: int
    concurrency: int


def measure(parameters: Parameters) -> Measurement:
    """Measure the engine, fit, measure the mock. Takes about a minute, and two blocks per round and concurrency."""
    kind = str(parameters["engine"])
    print(f"starting {kind} ...", file=sys.stderr)
    with backend(NAME, kind, shape=str(parameters["shape"])) as engine:
        what = described(engine)
        samples = _measured(ENGINE, engine, parameters)
    fitted = fit(samples)
    flags = [word for flag, value in fitted.flags().items() for word in (f"--{flag.replace('_', '-')}", f"{value:g}")]
    with backend(NAME, MOCK, args=flags) as mock:
        samples += _measured(MOCK, mock, parameters)
    return evaluate(samples, engine=what)


def _measured(arm: str, server: Backend, parameters: Parameters) -> list[Sample]:
    bench = _Bench(arm, server, parameters)
    concurrencies = whole_numbers(parameters["concurrencies"])
    for concurrency in (concurrencies[0], concurrencies[-1]):
        bench.sample(_Block(-1, concurrency))  # and not kept: first requests, first large batches
    plan = list(_plan(int(parameters["rounds"]), concurrencies, int(parameters["seed"])))
    return [bench.sample(block) for block in tqdm(plan, unit="block", desc=arm, disable=None)]


def _plan(rounds: int, concurrencies: tuple[int, ...], seed: int) -> Iterator[_Block]:
    order = random.Random(seed)
    for number in range(rounds):
        yield from (_Block(number, concurrency) for concurrency in order.sample(concurrencies, len(concurrencies)))


class _Bench:
    """One running server, and what to ask of it."""

    def __init__(self, arm: str, server: Backend, parameters: Parameters) -> None:
        self._arm = arm
        self._url = server.url
        self._parameters = parameters
        # No prompt is used twice, within a run or in the next one that finds the engine's cache warm.
        self._prompts = random.Random(f"{arm} {parameters['seed']}")
        self._meter = CpuMeter({})

    def sample(self, block: _Block) -> Sample:
        """Measure one block, which is over when the engine's counters stand still."""
        before, others_before, began = wait_idle(self._url), self._others(), time.perf_counter()
        seen = closed_loop(
            self._request,
            concurrency=block.concurrency,
            requests=int(self._parameters["requests"]),
            max_tokens=int(self._parameters["max_tokens"]),
        )
        others, ended = self._others() - others_before, time.perf_counter()
        counted = wait_idle(self._url).since(before)[MODEL_NAME]
        return {
            "round": block.round,
            "arm": self._arm,
            "concurrency": block.concurrency,
            "ttft_ms": [round(answer.first_token * 1000, 3) for answer in seen.kept],
            "tpot_ms": [round(answer.per_output_token * 1000, 3) for answer in seen.kept],
            "prompt_tokens_each": sorted({answer.prompt_tokens for answer in seen.kept}),
            "max_tokens": int(self._parameters["max_tokens"]),
            "answered": seen.answered,
            "errors": dict(seen.errors),
            "seconds": round(seen.seconds, 6),
            "client_cpu_seconds": round(seen.cpu_seconds, 6),
            "prompt_tokens": seen.prompt_tokens,
            "completion_tokens": seen.completion_tokens,
            "counted_prompt_tokens": counted.prompt_tokens,
            "counted_completion_tokens": counted.generation_tokens,
            "cache_queries": counted.cache_queries,
            "cache_hits": counted.cache_hits,
            "others_cores": round(others / (ended - began), 4),
        }

    def _others(self) -> float:
        return self._meter.read()["others"]

    def _request(self, number: int, max_tokens: int) -> Request:
        del number  # the order in which streams ask is not the same in every run; the prompts' kind is
        body = {
            "model": MODEL_NAME,
            "messages": [
                {
                    "role": "user",
                    "content": varied_prompt(int(self._parameters["prompt_words"]), self._prompts.getrandbits(64)),
                }
            ],
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return Request(f"{self._url}/v1/chat/completions", body, expected=b"")


BENCHMARK = Benchmark(
    name=NAME,
    question="How do time to first token and time per output token grow with concurrency, and does the fitted mock "
    "follow?",
    parameters=(
        Choice("engine", "vllm-cpu", REAL_KINDS, "the real engine"),
        SHAPE,
        WholeNumbers("concurrencies", "1,2,4,8,16,32", 1, "streams under way at once", count=3),
        Parameter("rounds", 10, 2, f"of one block per concurrency; fewer than {MINIMUM_ROUNDS} are not for quoting"),
        Parameter("requests", 8, 1, "answers measured in a block, at least one per stream"),
        Parameter("prompt_words", 40, 1, "words of a prompt"),
        Parameter("max_tokens", 32, 4, "tokens of an answer"),
        Parameter("seed", 0, 0, "of the order of blocks, the prompts and the bootstrap"),
    ),
    measure=measure,
    modules=(
        *(sys.modules[__name__], findings, latency_fit, backends),
        *(load, machine, statistics, streams),
    ),
)
