"""What becomes of the same calls' records when the proxy is killed, or the collector is away, refuses, or is slow?

Three span processors, OpenTelemetry's Simple and Batch and the plugin's Durable, each with its own defaults, send the
records of the real LiteLLM proxy to the real receiver by OTLP over HTTP. For each of them and each scenario everything
is started anew and the same number of calls is made:

- ``kill``: ``kill -9`` of the proxy in the middle of them; it is started again and gets the rest;
- ``away``: after a quarter of them the collector's process is gone, and comes back on its port;
- ``503``: as before, but the collector is there and answers 503;
- ``slow``: as before, and the collector takes each export, but needs a second for it.

While the collector fails, half of the calls are made, as fast as the proxy answers, or as many as it answers in that
time. Then the collector is well again and the rest is made. The caller's list of answered calls, by the id in each
answer, is held against what the receiver has when everything has come to rest. In the end the proxy gets SIGTERM and
exports what it still holds: that is the batch's best case.
"""

from __future__ import annotations

import resource
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

from tqdm import tqdm

from benchmarks.harness import ledgers, load, machine
from benchmarks.harness.benchmark import Benchmark, Measurement, Parameter, Parameters
from benchmarks.harness.ledgers import SpanCount
from benchmarks.harness.load import Request
from benchmarks.harness.machine import CpuMeter
from benchmarks.survival import calls, findings
from benchmarks.survival.calls import Callers, Calls
from benchmarks.survival.findings import (
    AWAY,
    BATCH,
    DURABLE,
    KILL,
    MINIMUM_CALLS,
    MINIMUM_OUTAGE_SECONDS,
    PROCESSORS,
    REFUSES,
    SCENARIOS,
    SIMPLE,
    SLOW,
    Sample,
    evaluate,
)
from otel_cost_logger.ledger.file import open_for_reading
from otel_cost_logger.ledger.reading import Status, status
from workbook.counters import wait_idle
from workbook.engine import MODEL_NAME
from workbook.services import Receiver
from workbook.stacks import Processor, Stack, stack

NAME = "survival"

_TENANT = "tenant-acme"
# Each processor's own default, where the workbook's stacks have spans wait for less.
_DELAY_MS = {SIMPLE: "", BATCH: "5000", DURABLE: "1000"}
_SLOW_SECONDS = 1.0
_REST_SECONDS = 120.0
_POLL_SECONDS = 0.1

_Deed = Callable[[Receiver], None]
_OUTAGES: dict[str, tuple[_Deed, _Deed]] = {  # how each begins and ends
    AWAY: (Receiver.stop, Receiver.restart),
    REFUSES: (partial(Receiver.fail, status=503), Receiver.recover),
    SLOW: (partial(Receiver.fail, delay=_SLOW_SECONDS), Receiver.recover),
}


def measure(parameters: Parameters) -> Measurement:
    """Every scenario with every processor, side by side. Each takes half a minute, and the outage if it has one."""
    plan = [(processor, scenario) for scenario in SCENARIOS for processor in PROCESSORS]
    samples = []
    with tqdm(plan, unit="run", disable=None) as progress:
        for processor, scenario in progress:
            progress.set_description(f"{processor}, {scenario}")
            samples.append(sample(processor, scenario, parameters))
    return evaluate(samples, parameters)


def sample(processor: Processor, scenario: str, parameters: Parameters) -> Sample:
    """One scenario with one processor; see `findings` for what is in a sample."""
    others, began = _others_seconds(), time.monotonic()
    with stack(
        f"{NAME}_{processor}_{scenario}",
        processor=processor,
        tenants=[_TENANT],
        env={"OTEL_BSP_SCHEDULE_DELAY": _DELAY_MS[processor]},
    ) as house:
        run = _Run(house, processor, parameters)
        found = run.kill() if scenario == KILL else run.outage(*_OUTAGES[scenario])
        counted = run.at_rest()
    others_cores = (_others_seconds() - others) / (time.monotonic() - began)
    return {
        "processor": processor,
        "scenario": scenario,
        **found,
        **counted,
        "others_cores": round(others_cores, 4),
    }


def _others_seconds() -> float:
    """CPU seconds used by everybody else, in differences from before a stack's start to after its end."""
    ours_that_ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return CpuMeter({}).read()["others"] - ours_that_ended.ru_utime - ours_that_ended.ru_stime


class _Run:
    """The calls of one scenario to one stack, and where their records are."""

    def __init__(self, house: Stack, processor: Processor, parameters: Parameters) -> None:
        self._house = house
        self._durable = processor == DURABLE
        self._calls = int(parameters["calls"])
        self._outage_seconds = float(parameters["outage_seconds"])
        self._settle_seconds = float(parameters["settle_seconds"])
        self._callers = Callers(_request(house, int(parameters["max_tokens"])), at_a_time=int(parameters["at_a_time"]))
        self._made: list[Calls] = []

    @property
    def _produced(self) -> list[str]:
        return [call_id for made in self._made for call_id in made.call_ids]

    def _make_the_rest(self) -> None:
        self._made.append(self._callers.make(self._calls - sum(made.sent for made in self._made)))

    def kill(self) -> dict[str, Any]:
        """Half of the calls, ``kill -9`` while they go on, a new start, and the rest."""
        with self._callers.making(self._calls, break_off=True) as (made, end):
            while len(made.call_ids) < self._calls // 2 and not end.done():
                time.sleep(0.002)
            self._house.proxy.kill()
        self._made.append(made)
        pending = self._pending()
        self._house.proxy.restart()
        self._make_the_rest()
        return {"pending_after_outage": pending, "outage_seconds": None, "outage_ms": []}

    def outage(self, begin: _Deed, end: _Deed) -> dict[str, Any]:
        """A quarter of the calls, half of them while the collector fails, and the rest."""
        self._made.append(self._callers.make(self._calls // 4))
        begin(self._house.collector)
        over = time.monotonic() + self._outage_seconds
        with self._callers.making(self._calls // 2, until=over) as (made, _):
            time.sleep(max(0.0, over - time.monotonic()))
            pending = self._pending()
            end(self._house.collector)
        self._made.append(made)
        self._make_the_rest()
        return {
            "pending_after_outage": pending,
            "outage_seconds": round(made.seconds, 3),
            "outage_ms": [round(duration * 1000, 2) for duration in made.durations],
        }

    def at_rest(self) -> dict[str, Any]:
        """Where the records are when nothing moves any more and the proxy has ended in order."""
        from workbook.spans import read_ledger  # needs pandas, which a host with nothing but vLLM has not

        began = time.monotonic()
        settled = self._settle(began + _REST_SECONDS)
        seconds = time.monotonic() - began
        self._house.proxy.stop()
        arrived = read_ledger(self._house.ledger)
        ids = set(self._produced)
        here = ids & set(arrived["call_id"].dropna())
        waiting, known = (ids & found for found in self._in_the_file())
        dropped = ids - here - waiting
        return {
            "failed": dict(sum((made.failed for made in self._made), Counter())),
            "served_by_mock": wait_idle(self._house.mock_url).models[MODEL_NAME].requests,
            "produced": len(self._produced),
            "exported": len(here),
            "pending": len(waiting),
            "dropped": len(dropped),
            "noticed": len(dropped & known),
            "duplicates": SpanCount(self._house.ledger).so_far() - len(arrived),
            "settled": settled,
            "seconds_to_rest": round(seconds, 1),
        }

    def _settle(self, deadline: float) -> bool:
        """Wait until all has arrived, or no more will; False when things still moved at the ``deadline``.

        Of the ledger that can be known. Of the other processors it is guessed: nothing new for ``settle_seconds``.
        """
        spans, expected = SpanCount(self._house.ledger), len(self._produced)
        before, since = -1, time.monotonic()
        while time.monotonic() < deadline:
            if self._durable:
                now = self._status()
                if not now.pending and not now.calls_in_flight:
                    return True
            elif (arrived := spans.so_far()) != before:
                before, since = arrived, time.monotonic()
            elif arrived >= expected or time.monotonic() > since + self._settle_seconds:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _status(self) -> Status:
        with closing(open_for_reading(self._house.durable_ledger)) as book:
            return status(book)

    def _pending(self) -> int | None:
        return self._status().pending if self._durable else None

    def _in_the_file(self) -> tuple[set[str], set[str]]:
        """Ids of calls whose record waits in the plugin's own file, and of those that it knows to have none."""
        if not self._durable:
            return set(), set()

        def ids(book: sqlite3.Connection, table: str) -> set[str]:
            return {call_id for (call_id,) in book.execute(f"SELECT call_id FROM {table}")}

        with closing(open_for_reading(self._house.durable_ledger)) as book:
            return ids(book, "spans JOIN outbox USING (id)"), ids(book, "calls_in_flight")


def _request(house: Stack, max_tokens: int) -> Request:
    body = {
        "model": "mistral-7b",
        "messages": [{"role": "user", "content": "How is the weather in Delft?"}],
        "max_tokens": max_tokens,
    }
    return Request(
        f"{house.proxy_url}/v1/chat/completions", body, expected=b'"completion_tokens":', headers=house.headers(_TENANT)
    )


BENCHMARK = Benchmark(
    name=NAME,
    question="What becomes of the same calls' records when the proxy is killed, or the collector is away, refuses, or "
    "is slow?",
    parameters=(
        Parameter("calls", 1000, 8, f"in each scenario; fewer than {MINIMUM_CALLS} are not for quoting"),
        Parameter("outage_seconds", 60.0, 0.1, f"of the collector; fewer than {MINIMUM_OUTAGE_SECONDS:g} likewise"),
        Parameter("at_a_time", 16, 1, "callers, each with one call at a time"),
        Parameter("max_tokens", 16, 1, "tokens of an answer"),
        Parameter(
            "settle_seconds", 15.0, 0.1, "without a new span, after which Simple and Batch are taken to be through"
        ),
    ),
    measure=measure,
    modules=(sys.modules[__name__], calls, findings, ledgers, load, machine),
)
