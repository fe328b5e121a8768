"""Does the mock serve at least five times the requests per second that the LiteLLM proxy can ask of it?

If not, a measurement of the proxy in front of the mock would partly be one of the mock.

One client asks for the same chat completion in a closed loop: of the mock itself (twice, for the A/A comparison),
and of the proxy, with the cost callback and its spans sent in batches, which asks the mock. Each round measures
these three for plain and for streamed answers, six blocks in random order. Two answers to the question come out:

- requests per second: the mock's own, over those that the proxy passes on to it while it does all it can;
- CPU time per request: the proxy's, over the mock's. It does not depend on how client, proxy and mock happen to
  share the cores, and says how many proxies with a core each one mock with a core could serve.

The proxy runs with one worker, as it ships.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from tqdm import tqdm

from benchmarks.harness import ledgers, load, machine, statistics
from benchmarks.harness.benchmark import Benchmark, Measurement, Parameter, Parameters
from benchmarks.harness.ledgers import SpanCount
from benchmarks.harness.load import Request, closed_loop
from benchmarks.harness.machine import CpuMeter
from benchmarks.mock_headroom import findings
from benchmarks.mock_headroom.findings import (
    ARMS,
    MINIMUM_ROUNDS,
    MOCK,
    MOCK_AGAIN,
    PROXY,
    SHAPES,
    WARM_UP_ROUNDS,
    Sample,
    evaluate,
)
from workbook.ports import listener
from workbook.stacks import Stack, stack

NAME = "mock_headroom"

_TENANT = "tenant-acme"
_SERVED = re.compile(r"^vllm:request_success_total\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class _Block:
    round: int
    shape: str
    arm: str


def measure(parameters: Parameters) -> Measurement:
    """Start mock, receiver and proxy, measure all blocks, stop them. Takes six blocks a round, and a minute."""
    print("starting the mock, the receiver and the proxy ...", file=sys.stderr)
    with stack(NAME, tenants=[_TENANT]) as running:
        bench = _Bench(running, parameters)
        for block in _plan(WARM_UP_ROUNDS, seed=0):
            bench.sample(block)  # and not kept: first imports, connection pools, caches
        plan = list(_plan(int(parameters["rounds"]), int(parameters["seed"])))
        samples = [bench.sample(block) for block in tqdm(plan, unit="block", disable=None)]
    return evaluate(samples)


def _plan(rounds: int, seed: int) -> Iterator[_Block]:
    order = random.Random(seed)
    for number in range(rounds):
        blocks = [_Block(number, shape, arm) for shape in SHAPES for arm in ARMS]
        order.shuffle(blocks)
        yield from blocks


class _Bench:
    """The running programs, and what to ask of them."""

    def __init__(self, running: Stack, parameters: Parameters) -> None:
        self._parameters = parameters
        self._mock_url = running.mock_url
        self._spans = SpanCount(running.ledger)
        self._meter = CpuMeter(
            {
                "mock": _listener(running.mock_url),
                "proxy": _listener(running.proxy_url),
                "receiver": _listener(running.receiver_url),
            }
        )
        urls = {MOCK: running.mock_url, MOCK_AGAIN: running.mock_url, PROXY: running.proxy_url}
        headers = running.headers(_TENANT)
        self._requests = {
            (shape, arm): _request(url, headers, shape, int(parameters["max_tokens"]))
            for arm, url in urls.items()
            for shape in SHAPES
        }

    def sample(self, block: _Block) -> Sample:
        """Measure one block. The CPU time goes on until the block's last span has arrived."""
        served_before, spans_before = self._served(), self._spans.so_far()
        began, before = time.perf_counter(), self._meter.read()
        seen = closed_loop(
            self._requests[block.shape, block.arm],
            connections=int(self._parameters["connections"]),
            seconds=float(self._parameters["seconds"]),
        )
        if block.arm == PROXY:
            self._spans.wait_for(spans_before + seen.answered)
        after, ended = self._meter.read(), time.perf_counter()
        used = {name: after[name] - before[name] for name in after}
        return {
            **asdict(block),
            "answered": seen.answered,
            "errors": dict(seen.errors),
            "seconds": seen.seconds,
            "client_cpu_seconds": seen.cpu_seconds,
            "served_by_mock": self._served() - served_before,
            "spans": self._spans.so_far() - spans_before,
            "mock_cpu_seconds": used["mock"],
            "proxy_cpu_seconds": used["proxy"],
            "receiver_cpu_seconds": used["receiver"],
            "others_cores": used["others"] / (ended - began),
        }

    def _served(self) -> int:
        metrics = httpx.get(f"{self._mock_url}/metrics", timeout=10, trust_env=False).raise_for_status().text
        return round(sum(float(value) for value in _SERVED.findall(metrics)))


def _listener(url: str) -> int:
    port = urlsplit(url).port
    pid = listener(port) if port else None
    if pid is None:
        raise ProcessLookupError(f"no process of this user listens at {url}, so its CPU time cannot be read")
    return pid


def _request(url: str, headers: Mapping[str, str], shape: str, max_tokens: int) -> Request:
    body: dict[str, Any] = {
        "model": "mistral-7b",
        "messages": [{"role": "user", "content": "How is the weather in Delft?"}],
        "max_tokens": max_tokens,
    }
    if shape == "streamed":
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    # The usage ends both kinds of answer: one without it is not complete.
    return Request(f"{url}/v1/chat/completions", body, expected=b'"completion_tokens":', headers=headers)


BENCHMARK = Benchmark(
    name=NAME,
    question="Does the mock serve at least five times the requests per second that the LiteLLM proxy can ask of it?",
    parameters=(
        Parameter("rounds", 20, 2, f"pairs of blocks; fewer than {MINIMUM_ROUNDS} are not for quoting"),
        Parameter("seconds", 1.5, 0.05, "length of a block"),
        Parameter("connections", 16, 1, "connections of the client, each with one request at a time"),
        Parameter("max_tokens", 16, 1, "tokens of an answer"),
        Parameter("seed", 0, 0, "of the order of blocks and of the bootstrap"),
    ),
    measure=measure,
    modules=(sys.modules[__name__], ledgers, load, machine, findings, statistics),
)
