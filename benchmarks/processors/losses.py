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
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from benchmarks.harness.benchmark import Measurement, NotMeasured, Parameters
from benchmarks.harness.receiver import MOST_SPANS, CountingReceiver
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
        samples += _Scenario(scenario, processors, parameters, folder / scenario, attributes).measure()
    return losses(samples, parameters)


class _Run:
    """One process, its number, and its files in ``folder``."""

    def __init__(self, number: int, processor: str, task: Callable[..., Task], folder: Path) -> None:
        self.number = number
        self.processor = processor
        self.seconds = 0.0
        self._folder = folder
        self._ended = folder / f"ended-{number}"
        self._ended.write_bytes(bytes(COUNT_BYTES))
        self._ledger = folder / f"ledger-{number}.db"
        self._begin = folder / f"begin-{number}"
        self._task = partial(
            task,
            run=number,
            processor=processor,
            ended=str(self._ended),
            ledger=str(self._ledger),
            begin=str(self._begin),
        )
        self._child: Child | None = None
        self._began = 0.0

    @property
    def ended(self) -> int:
        """How many of its spans have ended."""
        return int.from_bytes(self._ended.read_bytes(), "little")

    @property
    def pending(self) -> int:
        """How many spans wait in its file; 0 without one."""
        if not self._ledger.exists():
            return 0
        with closing(open_for_reading(self._ledger)) as book:
            return status(book).pending

    def launch(self, spans: int) -> None:
        """Start the process, which is to make so many ``spans``."""
        task = json.dumps(asdict(self._task(spans=spans)))
        command = [sys.executable, "-m", "benchmarks.processors.emitter", task]
        self._child = Child(f"emitter {self.number}", command, log=self._folder / f"emitter-{self.number}.log")

    def begin(self) -> None:
        """Let it make spans, when it can. Raises `ChildDied` or `ChildNotReady`."""
        self.child.wait_for_announcement(_READY_SECONDS)
        self._begin.touch()
        self._began = time.monotonic()

    @property
    def child(self) -> Child:
        """The process."""
        assert self._child is not None
        return self._child

    def wait_for_all(self, spans: int) -> None:
        """Return when so many spans have ended."""
        self.child.wait_until(lambda: self.ended == spans or None, _BURST_SECONDS)

    def signal_at(self, seconds: float, which: signal.Signals) -> None:
        """Send the signal so many ``seconds`` after the first span, and return when the process has ended."""
        time.sleep(max(0.0, self._began + seconds - time.monotonic()))
        os.kill(self.child.pid, which)
        self.seconds = time.monotonic() - self._began
        self.child.wait_until(lambda: None if self.child.running else True, _STOP_SECONDS)
        self.child.stop()

    def stop(self) -> None:
        """Let it end in order."""
        self.seconds = time.monotonic() - self._began
        self.child.stop(_STOP_SECONDS)

    def kill(self) -> None:
        """End it if it runs."""
        if self._child is not None:
            self._child.stop(grace=0)


class _Scenario:
    """All runs of one scenario, and their receiver."""

    def __init__(
        self, scenario: str, processors: Sequence[str], parameters: Parameters, folder: Path, attributes: Path
    ) -> None:
        folder.mkdir()
        self._scenario = scenario
        self._rate = 0.0 if scenario == BURST else float(parameters["rate"])
        self._burst = int(parameters["flood"])
        self._chance = random.Random(f"{parameters['seed']} {scenario}")
        count = int(parameters["runs"])
        self._receiver = CountingReceiver(folder, count * len(processors))
        task = partial(
            Task,
            per_second=self._rate,
            protocol=str(parameters["protocol"]),
            endpoint=self._receiver.endpoints[str(parameters["protocol"])],
            attributes=str(attributes),
        )
        order = [processor for _ in range(count) for processor in processors]
        self._runs = [_Run(number, processor, task, folder) for number, processor in enumerate(order, 1)]

    def measure(self) -> list[Sample]:
        """Let it happen; a sample of each run, by processor. Nothing is left running, whatever goes wrong."""
        try:
            if self._scenario == BURST:
                self._bursts()
            else:
                for run in self._runs:
                    run.launch(MOST_SPANS - 1)
                for run in self._runs:
                    run.child.wait_for_announcement(_READY_SECONDS)
                for run in self._runs:
                    run.begin()
                self._signals()
            time.sleep(_AT_REST_SECONDS)
            at_once = {run.number: self._delivered(run) for run in self._runs}
            self._together(self._drain, [run for run in self._runs if run.pending])
            return [
                self._sample(run, at_once[run.number])
                for processor in LOSS_PLAN[self._scenario]
                for run in self._runs
                if run.processor == processor
            ]
        finally:
            for run in self._runs:
                run.kill()
            self._receiver.stop()

    def _together(self, do: Callable[[_Run], None], runs: Sequence[_Run]) -> None:
        with ThreadPoolExecutor(max(1, len(runs))) as pool:
            list(pool.map(do, runs))

    def _signals(self) -> None:
        moments = {run.number: self._chance.uniform(_EARLIEST, _LATEST) for run in self._runs}
        which = _SIGNALS[self._scenario]
        self._together(lambda run: run.signal_at(moments[run.number], which), self._runs)

    def _bursts(self) -> None:
        for run in self._runs:
            run.launch(self._burst)
            run.begin()
            run.wait_for_all(self._burst)
            run.stop()

    def _drain(self, run: _Run) -> None:
        """Send what waits in the run's file, by a new process."""
        made = run.seconds
        run.launch(0)
        deadline = time.monotonic() + _DRAIN_SECONDS
        while run.pending and time.monotonic() < deadline:
            time.sleep(0.1)
        run.stop()
        run.seconds = made

    def _delivered(self, run: _Run) -> int:
        return int((self._receiver.times(run.number)[: run.ended] > 0).sum())

    def _sample(self, run: _Run, at_once: int) -> Sample:
        ended, delivered, pending = run.ended, self._delivered(run), run.pending
        times = self._receiver.times(run.number)[:ended]
        return {
            "scenario": self._scenario,
            "processor": run.processor,
            "run": run.number,
            "due": self._burst if self._scenario == BURST else round(self._rate * run.seconds),
            "ended": ended,
            "delivered_at_once": at_once,
            "delivered": delivered,
            "pending": pending,
            "dropped": ended - delivered - pending,
            "duplicates": int((times > 1).sum()),
            "seconds": round(run.seconds, 3),
        }
