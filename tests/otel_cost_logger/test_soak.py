"""A minute of 2,000 spans a second against a collector in trouble, of each kind: `make test-soak`, some nine minutes.

`make test` leaves them out; `test_durable_outage.py` has the same kinds at the length of a test.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from workbook.paths import BUILD_VARIABLE
from workbook.services import Receiver

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

SECONDS = 60
SPANS_PER_SECOND = 2000
MOST_MEMORY = 100_000_000  # bytes above those of an idle process

EMITTER = """
import json, sys, time
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from otel_cost_logger.durable import DurableSpanProcessor

ledger, url, ids = sys.argv[1:4]
per_second, seconds = map(int, sys.argv[4:])
durable = DurableSpanProcessor(OTLPSpanExporter(url), ledger)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(durable)
tracer = provider.get_tracer("soak")
ATTRIBUTES = {
    "llm.tenant_id": "tenant-acme", "llm.model": "mistral-7b", "llm.call_id": "11111111-2222-3333-4444-555555555555",
    "llm.prompt_tokens": 140, "llm.completion_tokens": 24, "llm.total_tokens": 164, "llm.cost_nano_usd": 42_400,
    "llm.success": True, "gen_ai.operation.name": "chat", "gen_ai.request.model": "mistral-7b",
}

def memory(name):  # VmRSS is what is resident now, VmHWM the most that ever was
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

def emit():
    span = tracer.start_span("llm.completion.acompletion", attributes=ATTRIBUTES)
    began = time.perf_counter()
    span.end()
    return span.context.span_id, time.perf_counter() - began

def report(**values):
    print(json.dumps(values), flush=True)
    sys.stdin.readline()

first, _ = emit()
assert durable.force_flush()
idle = memory("VmRSS")
report(first="%016x" % first)
longest, emitted, began = 0.0, 0, time.monotonic()
with open(ids, "w") as file:
    while emitted < per_second * seconds:
        ahead = emitted / per_second - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
        for _ in range(20):
            id_, took = emit()
            longest = max(longest, took)
            emitted += 1
            file.write("%016x\\n" % id_)
took = time.monotonic() - began
report(seconds=took, longest=longest, exported=durable.counts.exported, pending=durable.pending)
began = time.monotonic()
durable.force_flush(600_000)
drained = time.monotonic() - began
report(drained=drained, memory=memory("VmHWM") - idle, counts=str(durable.counts), pending=durable.pending)
"""


@dataclass(frozen=True)
class Trouble:
    """What is wrong with the collector while spans are emitted, and with ``lasting`` until all have arrived. ``away``:
    it does not run."""

    fault: dict[str, Any] = field(default_factory=dict)
    away: bool = False
    lasting: bool = False
    dead_letters: bool = False

    @property
    def delay(self) -> float:
        """Seconds that each request takes, answered or not."""
        return float(self.fault.get("delay", 0.0))


TROUBLES = {
    "down": Trouble(away=True),
    "503": Trouble({"status": 503, "delay": 1.0}),
    "429": Trouble({"status": 429, "retry_after": 2, "delay": 1.0}),
    "resets": Trouble({"reset": True, "delay": 1.0}),
    "partial success": Trouble({"reject_every": 3}),
    "all rejected": Trouble({"reject_every": 1, "requests": 20}, dead_letters=True),
    "slow": Trouble({"delay": 1.0}, lasting=True),
}


def told(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, "the emitting process has ended; its words are above"
    said: dict[str, Any] = json.loads(line)
    return said


def go_on(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def put_fault(receiver: Receiver, fault: dict[str, Any]) -> None:
    url = f"{receiver.endpoint('http/protobuf')}/fault"
    assert httpx.put(url, json=fault, trust_env=False).status_code == httpx.codes.OK


@pytest.mark.parametrize("name", TROUBLES)
def test_a_minute_of_trouble_costs_no_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    trouble = TROUBLES[name]
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    ledger, ids = tmp_path / "ledger.db", tmp_path / "ids"
    with Receiver("soak") as receiver:
        url = f"{receiver.endpoint('http/protobuf')}/v1/traces"
        arguments = map(str, (ledger, url, ids, SPANS_PER_SECOND, SECONDS))
        command = [sys.executable, "-c", EMITTER, *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            first = told(child)["first"]
            put_fault(receiver, trouble.fault)
            if trouble.away:
                receiver._stop()
            go_on(child)
            during = told(child)
            if trouble.away:
                receiver.restart()
            elif not trouble.lasting:
                put_fault(receiver, {})
            go_on(child)
            after = told(child)
            go_on(child)
        print(name, json.dumps({**during, **after}))
        arrived = re.findall(rb'"spanId": "([0-9a-f]{16})"', receiver.ledger.read_bytes())
        receiver.ledger.unlink()
    emitted = {first, *ids.read_text().split()}
    assert len(emitted) == SPANS_PER_SECOND * SECONDS + 1
    with sqlite3.connect(ledger) as connection:
        dead = connection.execute("SELECT s.span_id, d.reason FROM dead_letters d JOIN spans s USING (id)").fetchall()
    assert {id_.decode() for id_ in arrived} | {id_ for id_, _ in dead} == emitted
    assert {reason for _, reason in dead} == (
        {"partial success: rejected on purpose"} if trouble.dead_letters else set()
    )
    assert after["pending"] == 0
    assert after["memory"] < MOST_MEMORY
    assert not trouble.delay or during["longest"] < trouble.delay / 2, "on_end waited for the network"
