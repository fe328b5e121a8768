"""The durable processor when processes are killed, fork, and share a file."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

from otel_cost_logger.durable import DurableSpanProcessor

# Modules that every child needs, and what emits in one.
CHILD = """
import json, os, random, signal, sys, time
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from otel_cost_logger.durable import DurableSpanProcessor

ledger, url = sys.argv[1:3]

def processor(**options):
    return DurableSpanProcessor(OTLPSpanExporter(url), ledger, **{"schedule_delay_millis": 20, **options})

def tracer(durable):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(durable)
    return provider.get_tracer("t")

def emit(tracer):
    span = tracer.start_span("call", attributes={"llm.tenant_id": "acme", "llm.cost_nano_usd": 7, "pid": os.getpid()})
    span.end()
    return span.context.span_id
"""


def run(body: str, *arguments: object, seconds: float = 90) -> Any:
    """Run ``body`` in a child that has `CHILD`; what it prints, as JSON."""
    command = [sys.executable, "-c", CHILD + textwrap.dedent(body), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stored(ledger: Path) -> list[str]:
    with sqlite3.connect(ledger) as connection:
        return [id_ for (id_,) in connection.execute("SELECT span_id FROM spans ORDER BY id")]


def flush(ledger: Path, url: str) -> None:
    """As the next start of the program would."""
    processor = DurableSpanProcessor(HttpExporter(url), ledger)
    try:
        assert processor.force_flush(60_000)
    finally:
        processor.shutdown()


KILLED = """
runs = []
for _ in range(int(sys.argv[3])):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        ours = tracer(processor(max_export_batch_size=64))
        while True:
            os.write(writing, b"%016x\\n" % emit(ours))  # its on_end has returned
    os.close(writing)
    returned = os.read(reading, 17)
    time.sleep(random.uniform(0, 0.05))  # at any moment
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 65536):
        returned += more
    os.close(reading)
    runs.append(returned.decode().split())
print(json.dumps(runs))
"""


def test_fifty_kills_lose_nothing(tmp_path: Path, collector: Any) -> None:
    ledger = tmp_path / "ledger.db"
    runs = run(KILLED, ledger, collector.traces_url, 50)
    returned = {id_ for ids in runs for id_ in ids}
    assert len(runs) == 50
    assert all(runs)
    kept = stored(ledger)
    assert len(kept) == len(set(kept))
    assert returned <= set(kept)
    assert len(set(kept) - returned) <= 50  # one in each run may have been written and not reported
    flush(ledger, collector.traces_url)
    assert set(collector.ids()) == set(kept)


TOGETHER = """
durable = processor()
ours = tracer(durable)
ids = ["%016x" % emit(ours) for _ in range(int(sys.argv[3]))]
durable.force_flush(60_000)
durable.shutdown()
print(json.dumps({"ids": ids, "waiting": durable.counts.waiting, "exported": durable.counts.exported}))
"""


def test_four_processes_share_a_file(tmp_path: Path, collector: Any) -> None:
    ledger, each = tmp_path / "ledger.db", 5000
    command = [sys.executable, "-c", CHILD + TOGETHER, str(ledger), collector.traces_url, str(each)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    reports = [json.loads(child.communicate(timeout=100)[0]) for child in children]
    ids = [id_ for report in reports for id_ in report["ids"]]
    assert len(set(ids)) == 4 * each
    assert sorted(stored(ledger)) == sorted(ids)
    assert [report["waiting"] for report in reports] == [0] * 4
    flush(ledger, collector.traces_url)
    assert sorted(collector.ids()) == sorted(ids)  # and none of them twice
    with sqlite3.connect(ledger) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


FORKS = """
durable = processor()
ours = tracer(durable)
ids = ["%016x" % emit(ours)]
durable.force_flush()
reading, writing = os.pipe()
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(20):
            os.write(writing, b"%016x\\n" % emit(ours))
        os._exit(0)  # without a goodbye
    children.append(child)
    ids.append("%016x" % emit(ours))
for child in children:
    assert os.waitpid(child, 0)[1] == 0
os.close(writing)
ids += os.read(reading, 65536).decode().split()
flushed = durable.force_flush()
print(json.dumps({"ids": ids, "flushed": flushed}))
"""


def test_children_go_on_with_their_parents_processor(tmp_path: Path, collector: Any) -> None:
    ledger = tmp_path / "ledger.db"
    report = run(FORKS, ledger, collector.traces_url)
    assert report["flushed"]
    assert len(report["ids"]) == 1 + 3 * 21
    assert sorted(stored(ledger)) == sorted(report["ids"])
    assert sorted(collector.ids()) == sorted(report["ids"])
    with sqlite3.connect(ledger) as connection:
        assert connection.execute("SELECT count(DISTINCT process) FROM spans").fetchone() == (4,)


GRPC_FORKS = """
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

durable = DurableSpanProcessor(GrpcExporter(url, timeout=5), ledger, schedule_delay_millis=20)
ours = tracer(durable)
ids = ["%016x" % emit(ours)]
assert durable.force_flush()  # the channel is live, with threads of its own
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    durable._drain._lock_file.take()  # the parent has let go of it below
    os.write(writing, b"%016x\\n" % emit(ours))
    os._exit(0 if durable.force_flush(20_000) else 1)
durable._drain._lock_file.release()
status = os.waitpid(child, 0)[1]
ids += [os.read(reading, 4096).decode().strip(), "%016x" % emit(ours)]
print(json.dumps({"ids": ids, "child": status, "flushed": durable.force_flush(20_000)}))
durable.shutdown()
"""


def test_a_child_exports_by_grpc_although_its_parent_did(tmp_path: Path, collector: Any) -> None:
    report = run(GRPC_FORKS, tmp_path / "ledger.db", collector.grpc_url)
    assert (report["child"], report["flushed"]) == (0, True)
    assert sorted(collector.ids()) == sorted(report["ids"])


ORPHAN = """
durable = processor()
ours = tracer(durable)
ids = ["%016x" % emit(ours)]
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:  # as a daemon does
        os.write(writing, b"%016x\\n" % emit(ours))
        os.write(writing, b"sent" if durable.force_flush() else b"kept")
    os._exit(0)
os.wait()
os.close(writing)
durable.shutdown()  # the lock on exporting is the child's from here on
seen = b""
while more := os.read(reading, 4096):
    seen += more
print(json.dumps({"ids": ids + [seen[:16].decode()], "end": seen[17:].decode()}))
"""


def test_a_child_sends_when_its_parent_has_stopped(tmp_path: Path, collector: Any) -> None:
    ledger = tmp_path / "ledger.db"
    report = run(ORPHAN, ledger, collector.traces_url)
    assert report["end"] == "sent"
    assert sorted(set(collector.ids())) == sorted(report["ids"])


def test_only_one_of_two_sends(tmp_path: Path, collector: Any, make_spans: Any, ids_of: Any) -> None:
    """Two processors in one process stand for two workers: the lock is the file's."""
    ledger = tmp_path / "ledger.db"
    first = DurableSpanProcessor(HttpExporter(collector.traces_url), ledger, schedule_delay_millis=20)
    second = DurableSpanProcessor(HttpExporter(collector.traces_url), ledger, schedule_delay_millis=20)
    spans = make_spans(200)
    for number, span in enumerate(spans):
        (first, second)[number % 2].on_end(span)
    assert first.force_flush()
    assert second.force_flush()
    assert sorted(collector.ids()) == sorted(ids_of(spans))
    assert sorted([first.counts.exported, second.counts.exported]) == [0, 200]
    holder, other = (first, second) if first.counts.exported else (second, first)
    holder.shutdown()
    other.on_end(make_spans(1)[0])
    assert other.force_flush()  # it takes over
    other.shutdown()
    assert other.counts.exported == 1


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_a_program_that_is_told_to_stop_leaves_the_rest_in_the_file(
    tmp_path: Path, collector: Any, signal_name: str
) -> None:
    ledger = tmp_path / "ledger.db"
    body = f"""
    durable = processor(schedule_delay_millis=3_600_000)
    ours = tracer(durable)
    ids = ["%016x" % emit(ours) for _ in range(10)]
    print(json.dumps(ids), flush=True)
    signal.signal(signal.{signal_name}, signal.SIG_DFL)
    os.kill(os.getpid(), signal.{signal_name})
    """
    command = [sys.executable, "-c", CHILD + textwrap.dedent(body), str(ledger), collector.traces_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode < 0, done.stderr
    assert collector.ids() == []
    flush(ledger, collector.traces_url)
    assert collector.ids() == json.loads(done.stdout)


SERVER = """
from otel_cost_logger.termination import FlushOnTermination

stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))  # as a server does
durable = processor(schedule_delay_millis=3_600_000)
ours = tracer(FlushOnTermination(durable, int(sys.argv[3])))
ids = ["%016x" % emit(ours)]
signal.raise_signal(signal.SIGTERM)
assert stopping
ids.append("%016x" % emit(ours))
print(json.dumps(ids), flush=True)
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # and then dies of the signal, without exit handlers
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize("away", [False, True])
def test_a_terminated_server_sends_what_it_can(tmp_path: Path, collector: Any, away: bool) -> None:
    ledger = tmp_path / "ledger.db"
    collector.fault({"status": 503} if away else {})
    patience = 300 if away else 10_000
    command = [sys.executable, "-c", CHILD + SERVER, str(ledger), collector.traces_url, str(patience)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM, done.stderr
    ids = json.loads(done.stdout)
    assert collector.ids() == ([] if away else ids)
    assert stored(ledger) == ids


def test_the_ledger_is_nobody_elses(tmp_path: Path) -> None:
    ledger = tmp_path / "new" / "ledger.db"
    old = os.umask(0)
    try:
        DurableSpanProcessor(None, ledger).shutdown()
        processor = DurableSpanProcessor(None, ledger)
        processor.expect_call("id", "tenant", "model")
        for path in [ledger.parent, *ledger.parent.iterdir()]:
            assert path.stat().st_mode & 0o077 == 0, path
        processor.shutdown()
    finally:
        os.umask(old)
