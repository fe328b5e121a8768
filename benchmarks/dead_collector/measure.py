"""What does a dead collector do to the latency of requests, and to the proxy's liveness probe?

The real LiteLLM proxy, with one worker and the mock of vLLM behind it, sends its cost spans by OTLP through one of
three span processors, each with its defaults. First the collector is there, then its port is closed. In both cases a
caller makes rounds of three steps, one after the other and a fifth of a second apart: a request, another request,
``GET /health/liveliness``. Two requests, and a pause, because LiteLLM calls the plugin a moment after it has answered:
whom a slow export holds up is whoever comes next, a caller or the probe. Before the rounds one of each, which is not
kept: it opens connections and imports what is needed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import httpx
from tqdm import tqdm

from benchmarks.dead_collector import findings
from benchmarks.dead_collector.findings import ALIVE, DEAD, MINIMUM_ROUNDS, PROBE, PROCESSORS, REQUEST, Sample, evaluate
from benchmarks.harness.benchmark import Benchmark, Choice, Measurement, NotMeasured, Parameter, Parameters
from otel_cost_logger.settings import GRPC, HTTP_PROTOBUF
from workbook.stacks import Processor, Stack, stack

NAME = "dead_collector"

_TENANT = "tenant-acme"
_BODY = {
    "model": "mistral-7b",
    "messages": [{"role": "user", "content": "How is the weather in Delft?"}],
    "max_tokens": 16,
}
# Each processor's own default, where the workbook's stacks have spans wait for less.
_DELAY_MS = {"simple": "", "batch": "5000", "durable": "1000"}
_TIMEOUT_SECONDS = 120.0
_PAUSE_SECONDS = 0.2


def measure(parameters: Parameters) -> Measurement:
    """Both states of the collector with each processor. Simple waits seven seconds for each request of the second."""
    samples: list[Sample] = []
    steps = len(PROCESSORS) * 2 * int(parameters["rounds"])
    with tqdm(total=steps, unit="round", disable=None) as progress:
        for processor in PROCESSORS:
            progress.set_description(processor)
            for sample in _measured(processor, str(parameters["protocol"]), int(parameters["rounds"])):
                samples.append(sample)
                progress.update(sample["step"] == PROBE)
    return evaluate(samples, parameters)


def _measured(processor: Processor, protocol: str, rounds: int) -> Iterator[Sample]:
    with stack(
        f"{NAME}_{processor}",
        processor=processor,
        protocol="grpc" if protocol == GRPC else "http/protobuf",
        tenants=[_TENANT],
        env={"OTEL_BSP_SCHEDULE_DELAY": _DELAY_MS[processor]},
    ) as house:
        with house.http(_TENANT) as caller:
            caller.timeout = httpx.Timeout(_TIMEOUT_SECONDS)
            for step in (REQUEST, PROBE):
                _seconds(caller, step)
            for collector in (ALIVE, DEAD):
                if collector == DEAD:
                    house.collector.stop()
                for number in range(rounds):
                    for step in (REQUEST, REQUEST, PROBE):
                        time.sleep(_PAUSE_SECONDS)
                        seconds = round(_seconds(caller, step), 5)
                        yield {
                            "processor": processor,
                            "collector": collector,
                            "round": number,
                            "step": step,
                            "seconds": seconds,
                        }
        _end(house)


def _seconds(caller: httpx.Client, step: str) -> float:
    """How long one step takes. Raises `NotMeasured` when it is not answered well."""
    began = time.perf_counter()
    answer = caller.get("/health/liveliness") if step == PROBE else caller.post("/v1/chat/completions", json=_BODY)
    seconds = time.perf_counter() - began
    if answer.status_code != httpx.codes.OK:
        raise NotMeasured(f"a {step} was answered with HTTP {answer.status_code}: {answer.text[:200]}")
    return seconds


def _end(house: Stack) -> None:
    """At once: an orderly end would try for half a minute to export to nobody."""
    house.proxy.kill()


BENCHMARK = Benchmark(
    name=NAME,
    question="What does a dead collector do to the latency of requests, and to the proxy's liveness probe?",
    parameters=(
        Parameter("rounds", 3, 1, f"of two requests and a probe; fewer than {MINIMUM_ROUNDS} are not for quoting"),
        Choice("protocol", HTTP_PROTOBUF, (HTTP_PROTOBUF, GRPC), "of the OTLP exporter"),
    ),
    measure=measure,
    modules=(sys.modules[__name__], findings),
)
