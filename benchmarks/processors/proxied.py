"""The real proxy: what becomes of the records of its calls on a bad day, and whom a dead collector holds up.

Three span processors, OpenTelemetry's Simple and Batch and the plugin's Durable, each with its own defaults, send the
records of the LiteLLM proxy to the real receiver by OTLP. Everything is started anew for each of them and each scenario
of *proxy*, and the same number of calls is made:

- ``kill``: ``kill -9`` of the proxy in the middle of them; it is started again and gets the rest;
- ``away``: after a quarter of them the collector's process is gone, and comes back on its port;
- ``503``: as before, but the collector is there and answers 503;
- ``slow``: as before, and the collector takes each export, but needs a second for it.

While the collector fails, half of the calls are made, as fast as the proxy answers, or as many as it answers in that
time. Then the collector is well again and the rest is made. The caller's list of answered calls, by the id in each
answer, is held against what the receiver has when everything has come to rest. In the end the proxy gets SIGTERM and
exports what it still holds: that is the batch's best case.

For *collector* there is one caller. First the collector is there, then its port is closed. In both cases the caller
makes rounds of three steps, one after the other and a fifth of a second apart: a request, another request,
``GET /health/liveliness``. Two requests, and a pause, because LiteLLM calls the plugin a moment after it has answered:
whom a slow export holds up is whoever comes next, a caller or the probe. Before the rounds one of each, which is not
kept: it opens connections and imports what is needed.
"""

from __future__ import annotations

import resource
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.harness.benchmark import Measurement, NotMeasured, Parameters
from benchmarks.harness.ledgers import SpanCount
from benchmarks.harness.load import Load, Request, closed_loop
from benchmarks.harness.machine import CpuMeter
from benchmarks.harness.rounds import Sample
from benchmarks.processors import names
from benchmarks.processors.findings import AT_A_TIME, collector, records
from otel_cost_logger.ledger.file import open_for_reading
from otel_cost_logger.ledger.reading import Status, status
from otel_cost_logger.settings import GRPC
from workbook.counters import wait_idle
from workbook.engine import MODEL_NAME
from workbook.services import Receiver
from workbook.stacks import Processor, Stack, stack

_TENANT = "tenant-acme"
_BODY = {
    "model": "mistral-7b",
    "messages": [{"role": "user", "content": "How is the weather in Delft?"}],
    "max_tokens": 16,
}
# Each processor's own default, where the workbook's stacks have spans wait for less.
_DELAY_MS = {names.SIMPLE: "", names.BATCH: "5000", names.DURABLE: "1000"}
_SLOW_SECONDS = 1.0
_REST_SECONDS = 120.0
_SETTLE_SECONDS = 15.0  # without a new span, after which Simple and Batch are taken to be through
_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 60.0
_PATIENT_SECONDS = 120.0
_PAUSE_SECONDS = 0.2

_Deed = Callable[[Receiver], None]
_OUTAGES: dict[str, tuple[_Deed, _Deed]] = {  # how each begins and ends
    names.AWAY: (Receiver.stop, Receiver.restart),
    names.REFUSES: (partial(Receiver.fail, status=503), Receiver.recover),
    names.SLOW: (partial(Receiver.fail, delay=_SLOW_SECONDS), Receiver.recover),
}


def measure_records(parameters: Parameters) -> Measurement:
    """Every scenario with every processor, side by side. Each takes half a minute, and the outage if it has one."""
    plan = [(processor, scenario) for scenario in names.PROXY_SCENARIOS for processor in names.PROCESSORS]
    samples = []
    with tqdm(plan, unit="run", disable=None) as progress:
        for processor, scenario in progress:
            progress.set_description(f"{processor}, {scenario}")
            samples.append(_sample(processor, scenario, parameters))
    return records(samples, parameters)


def _house(name: str, processor: Processor, parameters: Parameters) -> Stack:
    return stack(
        f"processors_{name}",
        processor=processor,
        protocol="grpc" if parameters["protocol"] == GRPC else "http/protobuf",
        tenants=[_TENANT],
        env={"OTEL_BSP_SCHEDULE_DELAY": _DELAY_MS[processor]},
    )


def _sample(processor: Processor, scenario: str, parameters: Parameters) -> Sample:
    others, began = _others_seconds(), time.monotonic()
    with _house(f"{processor}_{scenario}", processor, parameters) as house:
        run = _Run(house, processor, parameters)
        found = run.kill() if scenario == names.KILL else run.outage(*_OUTAGES[scenario])
        counted = run.at_rest()
    others_cores = (_others_seconds() - others) / (time.monotonic() - began)
    where = {"processor": processor, "scenario": scenario}
    return {**where, **found, **counted, "others_cores": round(others_cores, 4)}


def _others_seconds() -> float:
    """CPU seconds used by everybody else, in differences from before a stack's start to after its end."""
    ours_that_ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return CpuMeter({}).read()["others"] - ours_that_ended.ru_utime - ours_that_ended.ru_stime


class _Run:
    """The calls of one scenario to one stack, and where their records are."""

    def __init__(self, house: Stack, processor: Processor, parameters: Parameters) -> None:
        self._house = house
        self._durable = processor == names.DURABLE
        self._calls = int(parameters["calls"])
        self._outage_seconds = float(parameters["outage_seconds"])
        self._request = Request(
            f"{house.proxy_url}/v1/chat/completions",
            _BODY,
            expected=b'"completion_tokens":',
            headers=house.headers(_TENANT),
        )
        self._made: list[Load] = []

    @property
    def _produced(self) -> list[str]:
        return [call_id for made in self._made for call_id in made.call_ids]

    @contextmanager
    def _making(self, calls: int, **how: Any) -> Iterator[tuple[Load, Future[Load]]]:
        """Calls in the background: what there is so far, and a future of the end, which is waited for."""
        self._made.append(made := Load())
        with ThreadPoolExecutor(1) as background:
            asked = partial(closed_loop, self._request, connections=AT_A_TIME, timeout=_ANSWER_SECONDS)
            end = background.submit(asked, calls=calls, seen=made, **how)
            yield made, end
            end.result()

    def _make(self, calls: int) -> None:
        with self._making(calls):
            pass

    def _make_the_rest(self) -> None:
        self._make(self._calls - sum(made.answered + made.errors.total() for made in self._made))

    def kill(self) -> dict[str, Any]:
        """Half of the calls, ``kill -9`` while they go on, a new start, and the rest."""
        with self._making(self._calls, break_off=True) as (made, end):
            while made.answered < self._calls // 2 and not end.done():
                time.sleep(0.002)
            self._house.proxy.kill()
        pending = self._pending()
        self._house.proxy.restart()
        self._make_the_rest()
        return {"pending_after_outage": pending, "outage_seconds": None, "outage_ms": []}

    def outage(self, begin: _Deed, end: _Deed) -> dict[str, Any]:
        """A quarter of the calls, half of them while the collector fails, and the rest."""
        self._make(self._calls // 4)
        begin(self._house.collector)
        over = time.monotonic() + self._outage_seconds
        with self._making(self._calls // 2, seconds=self._outage_seconds) as (made, _):
            time.sleep(max(0.0, over - time.monotonic()))
            pending = self._pending()
            end(self._house.collector)
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
            "failed": dict(sum((made.errors for made in self._made), Counter())),
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

        Of the ledger that can be known. Of the other processors it is guessed: nothing new for `_SETTLE_SECONDS`.
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
            elif arrived >= expected or time.monotonic() > since + _SETTLE_SECONDS:
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


def measure_collector(parameters: Parameters) -> Measurement:
    """Both states of the collector with each processor. Simple waits seven seconds for each request of the second."""
    samples: list[Sample] = []
    with tqdm(total=len(names.PROCESSORS) * 2 * int(parameters["runs"]), unit="round", disable=None) as progress:
        for processor in names.PROCESSORS:
            progress.set_description(processor)
            for sample in _waits(processor, parameters):
                samples.append(sample)
                progress.update(sample["step"] == names.PROBE)
    return collector(samples, parameters)


def _waits(processor: Processor, parameters: Parameters) -> Iterator[Sample]:
    with _house(f"{processor}_dead", processor, parameters) as house:
        with house.http(_TENANT) as caller:
            caller.timeout = httpx.Timeout(_PATIENT_SECONDS)
            for step in (names.REQUEST, names.PROBE):
                _seconds(caller, step)
            for state in (names.ALIVE, names.DEAD):
                if state == names.DEAD:
                    house.collector.stop()
                for number in range(int(parameters["runs"])):
                    for step in (names.REQUEST, names.REQUEST, names.PROBE):
                        time.sleep(_PAUSE_SECONDS)
                        where = {"processor": processor, "collector": state, "round": number, "step": step}
                        yield {**where, "seconds": round(_seconds(caller, step), 5)}
        house.proxy.kill()  # an orderly end would try for half a minute to export to nobody


def _seconds(caller: httpx.Client, step: str) -> float:
    """How long one step takes. Raises `NotMeasured` when it is not answered well."""
    began = time.perf_counter()
    answer = (
        caller.get("/health/liveliness") if step == names.PROBE else caller.post("/v1/chat/completions", json=_BODY)
    )
    seconds = time.perf_counter() - began
    if answer.status_code != httpx.codes.OK:
        raise NotMeasured(f"a {step} was answered with HTTP {answer.status_code}: {answer.text[:200]}")
    return seconds
