"""Losses: what each span processor loses when its process or its collector fails, or a burst is too large.

Each run is a process of its own that makes cost spans at a steady pace, through one span processor and OpenTelemetry's
own OTLP exporter, to a receiver that notes each span's id. Three things happen:

- ``kill``: SIGKILL at a random moment between six and eleven seconds after the first span, more than the five seconds
  for which ``BatchSpanProcessor`` keeps a span by default; each run has a moment of its own;
- ``terminate``: the same with SIGTERM, at which Python ends without a word; here also with the plugin's own remedy, in
  a process that handles the signal as a server does;
- ``burst``: more spans than the queue of ``BatchSpanProcessor`` holds, as fast as they can be made, and an orderly
  end, which exports what is held.

Where a durable processor's file still holds spans to be sent in the end, a new process on the same file sends them. All
runs of a scenario go on at the same time, but for the bursts, each of which has the machine to itself. What an outage
of the collector takes is asked through the real proxy (`proxied`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.benchmark import Measurement, NotMeasured, Parameters
from benchmarks.harness.receiver import MOST_SPANS, CountingReceiver, counting_receiver
from benchmarks.harness.rounds import Sample
from benchmarks.processors.emitter import COUNT_BYTES, Task
from benchmarks.processors.findings import losses
from benchmarks.processors.names import BURST, KILL, LOSS_PLAN, TERMINATE
from benchmarks.processors.spans import cost_records, cost_spans
from otel_cost_logger.ledger.file import open_for_reading
from otel_cost_logger.ledger.reading import status
from workbook.children import Child

_SIGNALS = {KILL: signal.SIGKILL, TERMINATE: signal.SIGTERM}
_EARLIEST, _LATEST = 6.0, 11.0  # seconds from the first span to the signal
_KINDS = 64  # of spans, which differ in their attributes
_READY_SECONDS = 120.0  # many start at once
_STOP_SECONDS = 60.0  # for an orderly end, which takes a batch half a minute at most
_BURST_SECONDS = 120.0
_DRAIN_SECONDS = 30.0
_AT_REST_SECONDS = 0.5  # for requests that had been sent when their sender was killed


def measure(parameters: Parameters, folder: Path) -> Measurement:
    """Every scenario, each with all its processes. Takes a minute and a half.

    Raises `NotMeasured` for more spans in one run than the receiver can tell apart.
    """
    seconds = _LATEST + _STOP_SECONDS
    if max(int(parameters["flood"]), float(parameters["rate"]) * seconds) >= MOST_SPANS:
        raise NotMeasured(f"more than {MOST_SPANS:,} spans in one run cannot be told apart: lower rate or flood")
    attributes = folder / "attributes.json"
    made = cost_spans(cost_records(_KINDS, seed=int(parameters["seed"])))
    attributes.write_text(json.dumps([dict(span.attributes or {}) for span in made]))
    samples: list[Sample] = []
    for scenario, processors in (progress := tqdm(LOSS_PLAN.items(), unit="scenario", disable=None)):
        progress.set_description(scenario)
        own = folder / scenario
        own.mkdir()
        with counting_receiver(own, int(parameters["runs"]) * len(processors)) as receiver:
            runs = _runs(scenario, processors, parameters, own, receiver, attributes)
            try:
                samples += _scenario(scenario, runs, parameters, receiver)
            finally:
                for run in runs:
                    run.stop(grace=0)
    return losses(samples, parameters)


class _Run:
    """One process that does ``task``, its files in ``folder``, and the ``seconds`` for which it made spans."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task = task
        self.seconds = 0.0
        self._log = folder / f"emitter-{task.run}.log"
        self._began = 0.0
        self._child: Child | None = None
        Path(task.ended).write_bytes(bytes(COUNT_BYTES))

    @property
    def ended(self) -> int:
        """How many of its spans have ended."""
        return int.from_bytes(Path(self.task.ended).read_bytes(), "little")

    @property
    def pending(self) -> int:
        """How many spans wait in its file; 0 without one."""
        if not (ledger := Path(self.task.ledger)).exists():
            return 0
        with closing(open_for_reading(ledger)) as book:
            return status(book).pending

    def launch(self, spans: int | None = None) -> Child:
        """Start the process, which is to make so many ``spans``, or as many as its task says."""
        task = self.task if spans is None else replace(self.task, spans=spans)
        command = [sys.executable, "-m", "benchmarks.processors.emitter", json.dumps(asdict(task))]
        self._child = Child(f"emitter {task.run}", command, log=self._log)
        return self._child

    def begin(self) -> Child:
        """Let it make spans, when it can. Raises `ChildDied` or `ChildNotReady`."""
        assert self._child is not None
        self._child.wait_for_announcement(_READY_SECONDS)
        Path(self.task.begin).touch()
        self._began = time.monotonic()
        return self._child

    def signal_at(self, seconds: float, which: signal.Signals) -> None:
        """Send the signal so many ``seconds`` after the first span, and return when the process has ended."""
        child = self._child
        assert child is not None
        time.sleep(max(0.0, self._began + seconds - time.monotonic()))
        os.kill(child.pid, which)
        self.seconds = time.monotonic() - self._began
        child.wait_until(lambda: None if child.running else True, _STOP_SECONDS)
        child.stop()

    def make_all(self) -> None:
        """Start it, wait until all its spans have ended, and let it end in order."""
        self.launch()
        self.begin().wait_until(lambda: self.ended == self.task.spans or None, _BURST_SECONDS)
        self.seconds = time.monotonic() - self._began
        self.stop()

    def drain(self) -> None:
        """Send what waits in its file, by a new process."""
        self.launch(spans=0)
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.pending and time.monotonic() < deadline:
            time.sleep(0.1)
        self.stop()

    def stop(self, grace: float = _STOP_SECONDS) -> None:
        """Let it end in order, within ``grace`` seconds; nothing where it has ended."""
        if self._child is not None:
            self._child.stop(grace)


def _runs(
    scenario: str,
    processors: Sequence[str],
    parameters: Parameters,
    folder: Path,
    receiver: CountingReceiver,
    attributes: Path,
) -> list[_Run]:
    protocol, burst = str(parameters["protocol"]), scenario == BURST
    return [
        _Run(
            Task(
                run=number,
                spans=int(parameters["flood"]) if burst else MOST_SPANS - 1,
                per_second=0.0 if burst else float(parameters["rate"]),
                processor=processor,
                protocol=protocol,
                endpoint=receiver.endpoints[protocol],
                attributes=str(attributes),
                ended=str(folder / f"ended-{number}"),
                ledger=str(folder / f"ledger-{number}.db"),
                begin=str(folder / f"begin-{number}"),
            ),
            folder,
        )
        for number, processor in enumerate([*processors] * int(parameters["runs"]), 1)
    ]


def _scenario(scenario: str, runs: Sequence[_Run], parameters: Parameters, receiver: CountingReceiver) -> list[Sample]:
    """Let it happen; a sample of each run, by processor."""
    if scenario == BURST:
        for run in runs:
            run.make_all()
    else:
        for child in [run.launch() for run in runs]:
            child.wait_for_announcement(_READY_SECONDS)
        chance = random.Random(f"{parameters['seed']} {scenario}")
        moments = [chance.uniform(_EARLIEST, _LATEST) for _ in runs]
        for run in runs:
            run.begin()
        _together(lambda pair: pair[0].signal_at(pair[1], _SIGNALS[scenario]), list(zip(runs, moments, strict=True)))
    time.sleep(_AT_REST_SECONDS)

    def times(run: _Run) -> Any:
        return receiver.times(run.task.run)[: run.ended]

    at_once = {run: int((times(run) > 0).sum()) for run in runs}
    _together(_Run.drain, [run for run in runs if run.pending])
    samples = []
    for run in sorted(runs, key=lambda run: LOSS_PLAN[scenario].index(run.task.processor)):
        ended, delivered, pending = run.ended, int((times(run) > 0).sum()), run.pending
        due = run.task.spans if scenario == BURST else round(run.task.per_second * run.seconds)
        samples.append(
            {
                **{"scenario": scenario, "processor": run.task.processor, "run": run.task.run, "due": due},
                **{"ended": ended, "delivered_at_once": at_once[run], "delivered": delivered, "pending": pending},
                "dropped": ended - delivered - pending,
                "duplicates": int((times(run) > 1).sum()),
                "seconds": round(run.seconds, 3),
            }
        )
    return samples


def _together(do: Callable[[Any], None], each: Sequence[Any]) -> None:
    with ThreadPoolExecutor(max(1, len(each))) as pool:
        list(pool.map(do, each))
