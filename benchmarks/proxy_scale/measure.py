"""How many requests per second do several workers of one proxy answer, with and without the callback?

LiteLLM's ``--num_workers`` lets uvicorn start that many processes on one listening socket. With the callback, all
workers of a proxy write to one ledger file, and one of them sends what all wrote: every call must have its record at
the receiver, whichever worker answered it.

Proxies with each number of workers, with and without the callback, are all up all the time, in front of one mock that
answers at once. Each round asks every one of them, in random order, and those without the callback twice, in a closed
loop that keeps them busy. Client, mock and receiver share the machine with them: their CPU time is told too.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from tqdm import tqdm

from benchmarks.harness import backends, ledgers, load, machine, statistics
from benchmarks.harness.backends import MOCK, backend
from benchmarks.harness.benchmark import Benchmark, Measurement, Parameter, Parameters, WholeNumbers, whole_numbers
from benchmarks.harness.ledgers import SpanCount
from benchmarks.harness.load import Request, closed_loop
from benchmarks.harness.machine import CpuMeter
from benchmarks.proxy_scale import findings
from benchmarks.proxy_scale.findings import AGAIN, ARMS, DURABLE, MINIMUM_ROUNDS, PLAIN, Sample, evaluate
from benchmarks.throughput import arms as ways
from benchmarks.throughput import findings as ways_names
from benchmarks.throughput.arms import TENANT, proxies
from workbook.counters import wait_idle
from workbook.engine import MODEL_NAME
from workbook.services import Backend
from workbook.stacks import Stack

NAME = "proxy_scale"

_WAYS = {PLAIN: ways_names.PROXY, AGAIN: ways_names.PROXY, DURABLE: ways_names.DURABLE}
_WARM_UP_ROUNDS = 1
_Proxies = dict[tuple[int, str], Stack]


def measure(parameters: Parameters) -> Measurement:
    """Start the mock and all proxies, measure all blocks, stop them. Starting takes ten seconds for two workers."""
    counts = whole_numbers(parameters["workers"])
    print(f"starting the mock and proxies with {', '.join(map(str, counts))} workers ...", file=sys.stderr)
    with ExitStack() as running:
        mock = running.enter_context(backend(NAME, MOCK))
        started = _Proxies()
        for workers in counts:
            name = f"{NAME}_{workers}"
            made = running.enter_context(proxies(name, sorted(set(_WAYS.values())), mock.url, workers))
            started |= {(workers, arm): made[_WAYS[arm]] for arm in ARMS}
        bench = _Bench(mock, started, parameters)
        for number, workers, arm in _plan(_WARM_UP_ROUNDS, counts, seed=0):
            bench.sample(number, workers, arm)  # and not kept: first imports, connection pools
        plan = list(_plan(int(parameters["rounds"]), counts, int(parameters["seed"])))
        samples = [bench.sample(*block) for block in tqdm(plan, unit="block", disable=None)]
    return evaluate(samples, cores=len(os.sched_getaffinity(0)))


def _plan(rounds: int, counts: tuple[int, ...], seed: int) -> Iterator[tuple[int, int, str]]:
    order = random.Random(seed)
    blocks = [(workers, arm) for workers in counts for arm in ARMS]
    for number in range(rounds):
        for workers, arm in order.sample(blocks, len(blocks)):
            yield number, workers, arm


class _Bench:
    """The running programs, and what to ask of them."""

    def __init__(self, mock: Backend, started: _Proxies, parameters: Parameters) -> None:
        self._mock_url = mock.url
        self._started = started
        self._parameters = parameters
        self._spans = {key: SpanCount(running.ledger) for key, running in started.items()}
        programs = {"mock": mock.child.pid}
        for (workers, arm), running in started.items():
            programs[f"proxy {workers} {arm}"] = running.proxy.child.pid
            programs[f"receiver {workers} {arm}"] = running.collector.child.pid
        self._meter = CpuMeter(programs)

    def sample(self, number: int, workers: int, arm: str) -> Sample:
        """Measure one block. The CPU time goes on until the block's last record has arrived."""
        running, spans = self._started[workers, arm], self._spans[workers, arm]
        served_before, spans_before = wait_idle(self._mock_url), spans.so_far()
        before, began = self._meter.read(), time.perf_counter()
        seen = closed_loop(
            _request(running),
            connections=int(self._parameters["connections"]),
            seconds=float(self._parameters["seconds"]),
        )
        if arm == DURABLE:
            spans.wait_for(spans_before + seen.answered)
        after, ended = self._meter.read(), time.perf_counter()
        used = {name: round(after[name] - before[name], 4) for name in after}
        return {
            "round": number,
            "workers": workers,
            "arm": arm,
            "answered": seen.answered,
            "errors": dict(seen.errors),
            "seconds": round(seen.seconds, 4),
            "served": wait_idle(self._mock_url).since(served_before)[MODEL_NAME].requests,
            "records": spans.so_far() - spans_before,
            "proxy_cpu_seconds": used[f"proxy {workers} {arm}"],
            "receiver_cpu_seconds": used[f"receiver {workers} {arm}"],
            "mock_cpu_seconds": used["mock"],
            "client_cpu_seconds": round(seen.cpu_seconds, 4),
            "others_cores": round(used["others"] / (ended - began), 4),
        }


def _request(running: Stack) -> Request:
    body = {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": "How is the weather in Delft?"}],
        "max_tokens": 16,
    }
    url = f"{running.proxy_url}/v1/chat/completions"
    return Request(url, body, expected=b'"completion_tokens":', headers=running.headers(TENANT))


BENCHMARK = Benchmark(
    name=NAME,
    question="How many requests per second do several workers of one proxy answer, with and without the callback?",
    parameters=(
        WholeNumbers("workers", "1,2,4", 1, "processes of a proxy"),
        Parameter("rounds", 8, 2, f"of one block for each proxy; fewer than {MINIMUM_ROUNDS} are not for quoting"),
        Parameter("seconds", 1.0, 0.05, "length of a block"),
        Parameter("connections", 16, 1, "connections of the client, each with one request at a time"),
        Parameter("seed", 0, 0, "of the order of blocks and of the bootstrap"),
    ),
    measure=measure,
    modules=(sys.modules[__name__], findings, ways, backends, ledgers, load, machine, statistics),
)
