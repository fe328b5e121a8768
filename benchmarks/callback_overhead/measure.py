"""What does a cost callback add to an LLM call?

LiteLLM calls that it answers itself (``mock_response``) are made in one process, in blocks; before each block another
callback is put into place, in random order, every one of them in every round. Read are the CPU time of the threads
inside a callback's hooks, which is sharp; the CPU time of the whole process, which also has what LiteLLM does around a
callback and what background threads do; and the time that callers wait. Beside the callbacks stand two floors, a span
of OpenTelemetry's SDK that is given our attributes ready-made and a line of JSON, hooks that do nothing (twice: the A/A
comparison) and no callback. One of ours was made a tenth slower on purpose: a measurement that does not notice it could
not notice a regression either.

Other instrumentations have an environment of their own (``make others``), where the same is done with them, ours and no
callback. In processes of their own: how memory grows over a hundred thousand calls, and how long imports take. What a
callback costs the proxy is asked by `throughput`, in its phase *workers*.

Every callback has to leave one record per call, in every block; otherwise the result is not for quoting. Python's
garbage collector is on, and leaves alone what existed before the first block: LiteLLM's own hundred thousands of
objects.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.callback_overhead import findings, names
from benchmarks.callback_overhead.findings import evaluate
from benchmarks.harness import machine, receiver, rounds, statistics
from benchmarks.harness.benchmark import Benchmark, Choice, Measurement, NotMeasured, Parameter, Parameters
from benchmarks.harness.machine import CpuMeter
from benchmarks.harness.provenance import unimported
from benchmarks.harness.receiver import CountingReceiver, counting_receiver
from benchmarks.harness.rounds import Sample
from otel_cost_logger.settings import HTTP_PROTOBUF
from workbook.environment import child_environment
from workbook.paths import ROOT, build_dir

NAME = "callback_overhead"
OTHERS_PYTHON = ROOT / ".venv-others" / "bin" / "python"
_PACKAGE = "benchmarks.callback_overhead"
_MEMORY_ARMS = (names.NOOP, names.OURS, names.NAIVE)
_IMPORTS = ("litellm", "opentelemetry.sdk.trace", "otel_cost_logger", "otel_cost_logger.logger")


@dataclass(frozen=True)
class Size:
    """How much is measured: rounds of blocks, calls in a block by mode; rounds of the other instrumentations; calls
    until memory is read, and runs of imports. Nothing where a number is 0."""

    rounds: int
    calls: Mapping[str, int]
    other_rounds: int = 0
    memory_calls: int = 0
    import_runs: int = 0


SIZES = {
    "full": Size(40, {names.ASYNC: 48, names.SYNC: 48, names.STREAM: 16}, 25, 150_000, 5),
    "short": Size(20, {names.ASYNC: 24, names.SYNC: 24, names.STREAM: 6}, import_runs=2),
    "smoke": Size(2, {names.ASYNC: 4, names.SYNC: 4, names.STREAM: 2}),
}
_SHORT = "only a full measurement has it"
_TIME_IMPORTS = """
import importlib, json, sys, time
for module in sys.argv[1:]:
    began, cpu = time.perf_counter(), time.process_time()
    importlib.import_module(module)
    took = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - began}
    print(json.dumps({"what": module, **took}), flush=True)
"""


def measure(parameters: Parameters) -> Measurement:
    """Measure all parts of the chosen size: ten minutes for the full one, two for the short one.

    Raises `NotMeasured` when a measuring process fails, with the last lines that it wrote.
    """
    size, seed = SIZES[str(parameters["size"])], int(parameters["seed"])
    folder = build_dir() / "runs" / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    left_out: dict[str, str] = {"synchronous calls with LiteLLM's OpenTelemetry v2": "it has no hook for them"}
    samples: list[Sample] = []
    setting: dict[str, Any] = {}
    with counting_receiver(folder) as receiver:
        plan = {"arms": names.ARMS, "rounds": size.rounds, "calls": dict(size.calls), "warm_up_rounds": 1, "seed": seed}
        samples += _blocks(findings.CALLS, plan, sys.executable, folder, receiver, setting)
        if not size.other_rounds:
            left_out["other instrumentations"] = _SHORT
        elif not OTHERS_PYTHON.exists():
            left_out["other instrumentations"] = "their environment is not there: make others"
        else:
            plan |= {"arms": dict.fromkeys(names.MODES, names.OTHERS_ARMS), "rounds": size.other_rounds}
            theirs: dict[str, Any] = {}
            samples += _blocks(findings.OTHER_CALLS, plan, str(OTHERS_PYTHON), folder, receiver, theirs)
            setting["others_packages"] = theirs["packages"]
        samples += _memory(size, folder, left_out)
        samples += _imports(size, folder, left_out)
    shutil.rmtree(folder)
    return evaluate(samples, setting=setting, left_out=left_out, short=parameters["size"] != "full")


def _blocks(
    part: str,
    plan: Mapping[str, Any],
    python: str,
    folder: Path,
    receiver: CountingReceiver,
    setting: dict[str, Any],
) -> Iterator[Sample]:
    """The samples of `worker` in the environment of ``python``; ``setting`` gets what it says of itself."""
    own = folder / part
    own.mkdir()
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoints[HTTP_PROTOBUF]}
    meter = CpuMeter({})
    blocks = plan["rounds"] * sum(len(arms) for arms in plan["arms"].values())
    with tqdm(total=blocks, unit="block", desc=part, disable=None) as progress:
        looked, before = time.perf_counter(), meter.read()["others"]
        for found in _told("worker", {**plan, "folder": str(own)}, own, python=python, environment=environment):
            if "round" not in found:
                setting |= found
                looked, before = time.perf_counter(), meter.read()["others"]
                continue
            now, others = time.perf_counter(), meter.read()["others"]
            yield {"part": part, **found, "others_cores": round((others - before) / (now - looked), 4)}
            looked, before = now, others
            progress.update()


def _memory(size: Size, folder: Path, left_out: dict[str, str]) -> Iterator[Sample]:
    if not size.memory_calls:
        left_out["memory"] = _SHORT
        return
    left_out["memory of LiteLLM's OpenTelemetry"] = (
        "it takes the one call that is reported again and again for the same"
    )
    for arm in tqdm(_MEMORY_ARMS, unit="callback", desc=findings.MEMORY, disable=None):
        # The plugin remembers its last 65,536 calls: only after them does its growth stop.
        calls = size.memory_calls if arm in (names.NOOP, names.OURS) else size.memory_calls // 8
        checkpoints = [calls // 4, calls * 5 // 8, calls]
        own = folder / f"{findings.MEMORY}_{arm}"
        own.mkdir()
        for found in _told("memory", {"arm": arm, "checkpoints": checkpoints, "folder": str(own)}, own):
            yield {"part": findings.MEMORY, **found}


def _imports(size: Size, folder: Path, left_out: dict[str, str]) -> Iterator[Sample]:
    if not size.import_runs:
        left_out["imports"] = _SHORT
        return
    for run in tqdm(range(size.import_runs), unit="run", desc=findings.IMPORT, disable=None):
        for found in _lines([sys.executable, "-c", _TIME_IMPORTS, *_IMPORTS], folder / "imports.log", {}):
            yield {"part": findings.IMPORT, "run": run, **found}


def _told(
    module: str,
    plan: Mapping[str, Any],
    folder: Path,
    *,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """What ``python -m benchmarks.callback_overhead.MODULE PLAN`` prints."""
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    yield from _lines([python, "-m", f"{_PACKAGE}.{module}", str(path)], folder / "log", environment or {})


def _lines(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The JSON objects that ``command`` prints, each when it comes. Raises `NotMeasured` when it fails."""
    # In the other environment nothing of the workbook is installed.
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'support'}"}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment({**paths, **environment}),
            text=True,
        )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
        if code := process.wait():
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise NotMeasured(f"{command[2][:60]} ended with exit code {code}: {last}")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


BENCHMARK = Benchmark(
    name=NAME,
    question="What does a cost callback add to an LLM call: ours, naive ones, and LiteLLM's own?",
    parameters=(
        Choice("size", "full", tuple(SIZES), "full: ten minutes; short: two, not for quoting; smoke: does it run?"),
        Parameter("seed", 0, 0, "of the order of blocks and of the bootstrap"),
    ),
    measure=measure,
    modules=(
        *(sys.modules[__name__], findings, names, machine, receiver, rounds, statistics),
        # These import LiteLLM.
        *(unimported(f"{_PACKAGE}.{name}") for name in ("callbacks", "calls", "memory", "others", "worker")),
    ),
)
