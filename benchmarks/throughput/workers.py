"""Workers: how many requests per second several workers of one proxy answer, with and without the callback.

LiteLLM's ``--num_workers`` lets uvicorn start that many processes on one listening socket. With the callback, all
workers of a proxy write to one ledger file, and one of them sends what all wrote: every call must have its record at
the receiver, whichever worker answered it.

Proxies with each number of workers, with and without the callback, are all up all the time, in front of one mock that
answers at once. Each round asks every one of them, in random order, and those without the callback twice, in a closed
loop that keeps them busy. The mock itself is asked too, twice: if it did not serve several times what a proxy can ask
of it, a measurement of the proxy would partly be one of the mock. Client, mock and receiver share the machine with the
proxies: their CPU time is told too.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm

from benchmarks.harness.backends import MOCK as MOCK_KIND
from benchmarks.harness.backends import backend
from benchmarks.harness.benchmark import Measurement, Parameters, whole_numbers
from benchmarks.harness.ledgers import SpanCount
from benchmarks.harness.load import Request, closed_loop
from benchmarks.harness.machine import CpuMeter
from benchmarks.harness.rounds import Sample, in_rounds
from benchmarks.throughput import findings as ways
from benchmarks.throughput.arms import TENANT, proxies
from benchmarks.throughput.worker_findings import (
    AGAIN,
    COMPLETE,
    DURABLE,
    MOCK,
    MOCK_AGAIN,
    PLAIN,
    PROXY_ARMS,
    STREAMED,
    evaluate,
)
from workbook.counters import wait_idle
from workbook.engine import MODEL_NAME
from workbook.services import Backend
from workbook.stacks import Stack

_WAYS = {PLAIN: ways.PROXY, AGAIN: ways.PROXY, DURABLE: ways.DURABLE}
_CONNECTIONS = 16
_Block = tuple[str, int, str]
_Proxies = dict[tuple[int, str], Stack]


def measure(parameters: Parameters) -> Measurement:
    """Start the mock and all proxies, measure all blocks, stop them. Starting takes ten seconds for two workers."""
    counts, seed = whole_numbers(parameters["counts"]), int(parameters["seed"])
    print(f"starting the mock and proxies with {', '.join(map(str, counts))} workers ...", file=sys.stderr)
    with ExitStack() as running:
        mock = running.enter_context(backend("throughput_workers", MOCK_KIND))
        started = _Proxies()
        for workers in counts:
            name = f"throughput_{workers}"
            made = running.enter_context(proxies(name, sorted(set(_WAYS.values())), mock.url, workers))
            started |= {(workers, arm): made[_WAYS[arm]] for arm in PROXY_ARMS}
        bench = _Bench(mock, started, float(parameters["block_seconds"]))
        blocks: list[_Block] = [(COMPLETE, *key) for key in started] + [(STREAMED, counts[0], DURABLE)]
        blocks += [(answer, 0, arm) for answer in (COMPLETE, STREAMED) for arm in (MOCK, MOCK_AGAIN)]
        for number, block in in_rounds(blocks, 1, 0):
            bench.sample(number, block)  # and not kept: first imports, connection pools
        plan = list(in_rounds(blocks, int(parameters["rounds"]), seed))
        samples = [bench.sample(*one) for one in tqdm(plan, unit="block", disable=None)]
    return evaluate(samples, cores=len(os.sched_getaffinity(0)))


class _Bench:
    """The running programs, and what to ask of them for so many ``seconds``."""

    def __init__(self, mock: Backend, started: _Proxies, seconds: float) -> None:
        self._mock_url = mock.url
        self._started = started
        self._seconds = seconds
        self._spans = {key: SpanCount(running.ledger) for key, running in started.items()}
        programs = {"mock": mock.child.pid}
        for key, running in started.items():
            programs |= {f"proxy {key}": running.proxy.child.pid, f"receiver {key}": running.collector.child.pid}
        self._meter = CpuMeter(programs)

    def sample(self, number: int, block: _Block) -> Sample:
        """Measure one block. The CPU time goes on until the block's last record has arrived."""
        answer, *_ = block
        key = block[1:]
        running, spans = self._started.get(key), self._spans.get(key)
        served_before, spans_before = wait_idle(self._mock_url), spans.so_far() if spans else 0
        before, began = self._meter.read(), time.perf_counter()
        seen = closed_loop(self._request(running, answer), connections=_CONNECTIONS, seconds=self._seconds)
        if spans and block[2] == DURABLE:
            spans.wait_for(spans_before + seen.answered)
        after, ended = self._meter.read(), time.perf_counter()
        used = {name: round(after[name] - before[name], 4) for name in after}
        return {
            **{"round": number, "answer": answer, "workers": block[1], "arm": block[2]},
            "answered": seen.answered,
            "errors": dict(seen.errors),
            "seconds": round(seen.seconds, 4),
            "served": wait_idle(self._mock_url).since(served_before)[MODEL_NAME].requests,
            "records": spans.so_far() - spans_before if spans else 0,
            "proxy_cpu_seconds": used.get(f"proxy {key}", 0.0),
            "receiver_cpu_seconds": used.get(f"receiver {key}", 0.0),
            "mock_cpu_seconds": used["mock"],
            "client_cpu_seconds": round(seen.cpu_seconds, 4),
            "others_cores": round(used["others"] / (ended - began), 4),
        }

    def _request(self, running: Stack | None, answer: str) -> Request:
        body: dict[str, Any] = {
            "model": MODEL_NAME,
            "messages": [{"role": "user", "content": "How is the weather in Delft?"}],
            "max_tokens": 16,
        }
        if answer == STREAMED:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        url, headers = (running.proxy_url, running.headers(TENANT)) if running else (self._mock_url, {})
        # The usage ends both kinds of answer: one without it is not complete.
        return Request(f"{url}/v1/chat/completions", body, expected=b'"completion_tokens":', headers=headers)
