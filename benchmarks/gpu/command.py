"""``python -m benchmarks gpu``: all steps within a time budget, each with a result file as soon as it is done.

It needs a Python with vLLM and this checkout: ``PYTHONPATH=support:. python3 -m benchmarks gpu``. The proxy's steps are
taken where that Python has LiteLLM too. The first step finds out how the engine can be started here, and the others
start it so. A step that cannot be measured is told and the next one begun; SIGTERM and Ctrl-C end the step that runs,
which stores what it has, and all that follow. Nothing of the device's settings is changed.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.gpu.smoke import CPU, START
from benchmarks.gpu.steps import NAMES, STEPS, Step
from benchmarks.harness.backends import ATTEMPTS, proxy_is_there
from benchmarks.harness.results import Result
from benchmarks.harness.run import run

MEASURED, NOT_BEGUN, NOT_MEASURED, NOT_FOR_QUOTING = "measured", "not begun", "not measured", "not for quoting"
_MARGIN = 1.5  # minutes of a step before its first run and after its last


@dataclass(frozen=True)
class Taken:
    """What became of a step; ``text`` is the reason, or the file's place."""

    step: str
    outcome: str
    seconds: float
    text: str


class Stopped:
    """Whether somebody has asked us to end, by SIGTERM or Ctrl-C (if it was not ignored from the start)."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt

    def watch(self) -> None:
        """From now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)


def take_all(
    *,
    engine: str,
    shape: str,
    minutes: float,
    chosen: Sequence[str],
    root: Path,
    label: str,
    argv: Sequence[str],
    report: Callable[[Path, Result], str],
    not_measured: tuple[type[Exception], ...],
) -> list[Taken]:
    """Take the ``chosen`` steps of `NAMES` on ``engine`` within ``minutes``; what became of each.

    The smoke test is taken in any case. ``report`` tells a stored result; ``not_measured`` are the errors that a
    benchmark ends with when there is nothing to store.
    """
    stopped = Stopped()
    stopped.watch()
    begun, deadline = time.monotonic(), time.monotonic() + 60 * minutes
    taken = list[Taken]()
    how: dict[str, int | bool] | None = None
    for step in STEPS:
        if step.name != NAMES[0] and step.name not in chosen:
            continue
        left = (deadline - time.monotonic()) / 60
        if reason := _why_not(step, how if taken else {}, left, engine, stopped.asked):
            taken.append(Taken(step.name, NOT_BEGUN, 0.0, reason))
            continue
        print(f"\n{step.name}: {step.what} ({left:.0f} minutes are left)", file=sys.stderr)
        known = how or {}
        parameters = step.parameters(engine, shape, int(known.get("attempt", 0)), bool(known.get("compiles")))
        if "limit_minutes" in parameters:
            parameters["limit_minutes"] = round(max(0.5, left - _MARGIN), 2)
        began = time.monotonic()
        try:
            path, result = run(step.benchmark, parameters, root=root, label=label, argv=argv)
        except KeyboardInterrupt:
            stopped.asked = True
            taken.append(Taken(step.name, NOT_MEASURED, time.monotonic() - began, "interrupted"))
        except not_measured as error:
            taken.append(Taken(step.name, NOT_MEASURED, time.monotonic() - began, str(error).partition("\n")[0]))
        else:
            print(report(path, result), flush=True)
            outcome = MEASURED if result.validity.valid else NOT_FOR_QUOTING
            taken.append(Taken(step.name, outcome, time.monotonic() - began, path.name))
            if step.name == NAMES[0]:
                how = how_to_start(result)
    print(f"\n{_table(taken)}\nin all {(time.monotonic() - begun) / 60:.1f} minutes", flush=True)
    return taken


def how_to_start(smoke: Result) -> dict[str, int | bool] | None:
    """From the smoke test: the number of the ``attempt`` that worked, whether it ``compiles`` and the ``proxy`` works.

    None when the engine did not start at all.
    """
    outcomes = {str(sample["step"]): sample["outcome"] for sample in smoke.samples}
    for number, attempt in enumerate(ATTEMPTS):
        if outcomes.get(START + attempt.name) == "ok":
            return {
                "attempt": number,
                "compiles": outcomes.get("calls to the compiled engine") == "ok",
                "proxy": outcomes.get("calls through the proxy") == "ok",
            }
    return None


def _why_not(step: Step, how: dict[str, int | bool] | None, left: float, engine: str, stopped: bool) -> str | None:
    if stopped:
        return "we were asked to end"
    if how is None:
        return "the engine did not start"
    if step.proxied and not proxy_is_there():
        return "this Python has no LiteLLM"
    if step.proxied and not how.get("proxy", False):
        return "the proxy did not pass the smoke test"
    if left < (step.minutes / 2 if engine != CPU else _MARGIN):
        return f"{max(left, 0):.1f} minutes are left, and it takes about {step.minutes:g}"
    return None


def _table(taken: Sequence[Taken]) -> str:
    return "\n".join(f"{one.step:<12} {one.outcome:<16} {one.seconds:6.0f} s  {one.text}" for one in taken)
