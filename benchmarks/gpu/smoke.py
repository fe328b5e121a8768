"""Does a real vLLM start on this machine's GPU, answer directly and through the proxy, and count the same tokens?

The first step of ``python -m benchmarks gpu``, with any Python that has vLLM, straight from the checkout. Each step
becomes one sample, with what it found or why it failed and the end of the log, and there is a result whatever happens:
on a rented GPU the report of a failure is what was paid for. Nothing of the device's settings is changed. ``--engine
vllm-cpu`` rehearses the same steps without a GPU.

The engine starts in eager mode first: it compiles nothing and needs the fewest kernels. If that fails, it is
started with ever fewer of the optional ones (`backends.ATTEMPTS`).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import httpx

from benchmarks.harness import backends, devices, ledgers, load, streams
from benchmarks.harness.backends import ATTEMPTS, backend, caveat, described
from benchmarks.harness.benchmark import Benchmark, Choice, Measurement, Parameters
from benchmarks.harness.ledgers import SpanCount, recorded
from benchmarks.harness.streams import streamed, varied_prompt
from benchmarks.throughput import open_loop
from workbook.children import ChildError
from workbook.counters import wait_idle
from workbook.engine import MODEL_NAME
from workbook.services import Backend
from workbook.stacks import stack

NAME = "gpu_smoke"
CPU = "vllm-cpu"
START = "start in eager mode, "
"""A step of this name and an attempt's is the engine's start in eager mode."""

_TENANT = "tenant-acme"
_PLAIN_CALLS, _STREAMS = 4, 16
_PROMPT_WORDS, _MAX_TOKENS = 40, 32
_LOG_LINES, _LINE_LENGTH = 80, 300
_DEVICE_SECONDS = 180.0  # importing torch from a cold disk takes its time
_IDLE_MEMORY_MIB, _IDLE_PERCENT = 1024, 10

_ASK_TORCH = """
import json, torch
from importlib.metadata import PackageNotFoundError, version
def of(name):
    try: return version(name)
    except PackageNotFoundError: return None
found = range(torch.cuda.device_count())
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "vllm": of("vllm"),
                  "transformers": of("transformers"), "cuda_available": torch.cuda.is_available(),
                  "cuda_devices": [torch.cuda.get_device_name(index) for index in found]}))
"""


class StepFailed(RuntimeError):
    """A step did not do what it should; ``facts`` is what it found out before."""

    def __init__(self, what: str, facts: Mapping[str, Any]) -> None:
        super().__init__(what)
        self.facts = dict(facts)


class Skipped(Exception):
    """A step cannot be taken on this machine; the message says why."""


class Journal:
    """The steps so far, each one a sample of the result."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def take(self, name: str, act: Callable[[], Mapping[str, Any]]) -> bool:
        """Do ``act``, note what it found or how it failed, and go on; True when it worked."""
        print(f"{name} ...", file=sys.stderr)
        began = time.perf_counter()
        outcome, found = "ok", dict[str, Any]()
        try:
            found = dict(act())
        except Skipped as reason:
            outcome, found = "skipped", {"reason": str(reason)}
        except Exception as error:  # whatever it is: the result must say it
            outcome, found = "failed", _described_failure(error)
        self.steps.append({"step": name, "outcome": outcome, "seconds": round(time.perf_counter() - began, 3), **found})
        return outcome == "ok"

    def measurement(self, kind: str) -> Measurement:
        """Everything noted, as a measurement: failed steps are faults, skipped ones caveats."""
        told = {step["step"]: f"{step['step']}: {step.get('reason')}" for step in self.steps}
        outcomes = {step["step"]: step["outcome"] for step in self.steps}
        return Measurement(
            samples=self.steps,
            summary={"engine": kind, "outcomes": outcomes},
            findings=[_sentence(step) for step in self.steps],
            faults=[told[step] for step, outcome in outcomes.items() if outcome == "failed"],
            caveats=[caveat(kind), *(told[step] for step, outcome in outcomes.items() if outcome == "skipped")],
        )


def measure(parameters: Parameters) -> Measurement:
    """Take all steps that can be taken. Takes one to ten minutes for each start of the engine."""
    kind = str(parameters["engine"])
    journal = Journal()
    if journal.take("device", lambda: _device(kind)):
        _drive_engine(journal, kind, parameters)
    return journal.measurement(kind)


def _drive_engine(journal: Journal, kind: str, parameters: Parameters) -> None:
    for attempt in ATTEMPTS if kind != CPU else ATTEMPTS[:1]:
        how: dict[str, Any] = {"shape": str(parameters["shape"]), "args": attempt.args, "env": attempt.env}
        engine = backend(NAME, kind, **how, eager=True)
        if journal.take(f"{START}{attempt.name}", partial(_start, engine)):
            break
    else:
        return
    with engine:
        worked = journal.take("calls to the engine", partial(_calls, engine.url, engine.url, {}, seed=1_000_000))
        journal.take("calls through the proxy", partial(_calls_through_the_proxy, engine))
    if worked and parameters["compiled"] == "yes":
        engine = backend(NAME, kind, **how, eager=False)
        try:
            if journal.take("start, compiled", partial(_start, engine)):
                asked = partial(_calls, engine.url, engine.url, {}, seed=3_000_000)
                journal.take("calls to the compiled engine", asked)
        finally:
            engine.stop()


def _device(kind: str) -> dict[str, Any]:
    asked = subprocess.run(
        [*backends.engine_python(kind), "-c", _ASK_TORCH],
        capture_output=True,
        text=True,
        timeout=_DEVICE_SECONDS,
        check=False,
    )
    if asked.returncode:
        raise StepFailed("the engine's Python cannot import torch", {"log": _shareable(asked.stderr)})
    facts = {
        **json.loads(asked.stdout.splitlines()[-1]),
        "devices": devices.devices(),
        "states": devices.device_states(),
    }
    if kind == CPU:
        return facts
    if not facts["cuda_available"]:
        raise StepFailed("torch finds no CUDA device", facts)
    for state in facts["states"]:
        memory, percent = state["memory_used_mib"] or 0, state["utilization_percent"] or 0
        if memory > _IDLE_MEMORY_MIB or percent > _IDLE_PERCENT:
            raise StepFailed(f"the device is in use already: {memory} MiB, {percent} %", facts)
    return facts


def _start(engine: Backend) -> dict[str, Any]:
    engine.start()
    return described(engine)


def _calls_through_the_proxy(engine: Backend) -> dict[str, Any]:
    if not backends.proxy_is_there():
        raise Skipped("this Python has no LiteLLM")
    with stack(f"{NAME}_proxy", backend=engine.url, tenants=[_TENANT]) as running:
        facts = _calls(running.proxy_url, engine.url, running.headers(_TENANT), seed=2_000_000)
        SpanCount(running.ledger).wait_for(facts["answered"])
        records = recorded(running.ledger)
    facts |= {f"recorded_{name}": getattr(records, name) for name in ("prompt_tokens", "completion_tokens")}
    facts["records"] = records.spans
    _require(records.spans == facts["answered"], "there is not one record for each call", facts)
    _require_same(facts, "recorded", "counted")
    return facts


def _calls(url: str, engine_url: str, headers: Mapping[str, str], *, seed: int) -> dict[str, Any]:
    """Plain and streamed calls to ``url``; the engine's counters must agree with the answers' usage to the token."""
    plain = []
    before = wait_idle(engine_url)
    with httpx.Client(base_url=url, headers=dict(headers), timeout=300, trust_env=False) as http:
        for number in range(_PLAIN_CALLS):
            body = {
                "model": MODEL_NAME,
                "messages": [{"role": "user", "content": varied_prompt(_PROMPT_WORDS, seed + number)}],
                **{"max_tokens": _MAX_TOKENS, "ignore_eos": True, "temperature": 0},
            }
            plain.append(http.post("/v1/chat/completions", json=body).raise_for_status().json()["usage"])
    make = streamed(url, headers, _PROMPT_WORDS, seed + _PLAIN_CALLS)
    arrivals = open_loop.open_loop(make, [0.0] * _STREAMS, max_tokens=_MAX_TOKENS, timeout=300.0)
    states = devices.device_states()  # while the device is still warm from it
    counted = wait_idle(engine_url).since(before)[MODEL_NAME]
    answers = [arrival.answer for arrival in arrivals if not isinstance(arrival.answer, str)]
    facts = {
        "answered": len(plain) + len(answers),
        "errors": sorted({arrival.answer for arrival in arrivals if isinstance(arrival.answer, str)}),
        "prompt_tokens": sum(one.prompt_tokens for one in answers) + sum(one["prompt_tokens"] for one in plain),
        "completion_tokens": sum(one.completion_tokens for one in answers)
        + sum(one["completion_tokens"] for one in plain),
        "counted_prompt_tokens": counted.prompt_tokens,
        "counted_completion_tokens": counted.generation_tokens,
        "cache_hits": counted.cache_hits,
        "states": states,
        "concurrency": _STREAMS,
    }
    _require(len(answers) == _STREAMS, "some streamed calls failed", facts)
    facts |= {
        "median_ttft_ms": round(median(answer.first_token for answer in answers) * 1000, 3),
        "median_tpot_ms": round(median(answer.per_output_token for answer in answers) * 1000, 3),
    }
    _require_same(facts, "", "counted")
    return facts


def _require_same(facts: Mapping[str, Any], one: str, other: str) -> None:
    for tokens in ("prompt_tokens", "completion_tokens"):
        left, right = (f"{prefix}_{tokens}".lstrip("_") for prefix in (one, other))
        _require(facts[left] == facts[right], f"{left} are {facts[left]}, {right} {facts[right]}", facts)


def _require(holds: bool, otherwise: str, facts: Mapping[str, Any]) -> None:
    if not holds:
        raise StepFailed(otherwise, facts)


def _described_failure(error: Exception) -> dict[str, Any]:
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if isinstance(error, StepFailed):
        return {"reason": str(error), **error.facts}
    if isinstance(error, ChildError):
        return {"reason": _shareable(reason)[0], "log": _shareable(error.log.read_text(errors="replace"))}
    return {"reason": (_shareable(reason) or [type(error).__name__])[0]}


def _shareable(log: str) -> list[str]:
    """The last lines of a log, with the folders taken out of its paths: they name people and machines."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()][-_LOG_LINES:]
    return [re.sub(r"(?<![\w.:/<])/(?:[^\s/'\":,()]+/)+", ".../", line)[:_LINE_LENGTH] for line in lines]


def _sentence(step: Mapping[str, Any]) -> str:
    if step["outcome"] != "ok":
        return f"{step['step']}: {step['outcome']}: {step['reason']}."
    if "answered" in step:
        return (
            f"{step['step']}: {step['answered']} calls, {step['completion_tokens']} output tokens, the same as the "
            f"engine counted; at concurrency {step['concurrency']} median time to first token "
            f"{step['median_ttft_ms']:.3g} ms, per output token {step['median_tpot_ms']:.3g} ms."
        )
    if "torch" in step:
        names = ", ".join(step["cuda_devices"]) or "no CUDA device"
        return f"{step['step']}: {names}; torch {step['torch']}, vLLM {step['vllm']}."
    return f"{step['step']}: {step['kind']} {step['version']}, shape {step['shape']}, in {step['seconds']:.0f} s."


BENCHMARK = Benchmark(
    name=NAME,
    question="Does a real vLLM start on this machine's GPU, answer directly and through the proxy, and count the same "
    "tokens?",
    parameters=(
        Choice("engine", "vllm", backends.REAL_KINDS, "vllm-cpu rehearses it without a GPU"),
        backends.SHAPE,
        Choice("compiled", "no", ("no", "yes"), "start again without eager mode: compiled, with CUDA graphs"),
    ),
    measure=measure,
    modules=(sys.modules[__name__], backends, devices, ledgers, load, streams, open_loop),
)
