"""The durable processor when its file is gone, broken, full or somebody else's: counted, said once, never raised."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger.durable import DurableSpanProcessor

Make = Callable[..., DurableSpanProcessor]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def ask(ledger: Path, sql: str) -> list[Any]:
    with sqlite3.connect(ledger) as connection:
        return connection.execute(sql).fetchall()


def said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


FULL = """
import json, resource, signal, sys, time
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from otel_cost_logger.durable import DurableSpanProcessor

ledger, url, how = sys.argv[1:4]
durable = DurableSpanProcessor(OTLPSpanExporter(url), ledger, schedule_delay_millis=20, max_export_batch_size=50)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(durable)
tracer = provider.get_tracer("t")

def emit(count):
    ids = []
    for _ in range(count):
        span = tracer.start_span("call", attributes={"text": "x" * 1000})
        span.end()
        ids.append("%016x" % span.context.span_id)
    return ids

def until(condition):
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()

ids = emit(10)
if how == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
ids += emit(600)
troubled = until(lambda: durable.counts.waiting + durable.counts.exported > 10 and durable.counts.written < 610)
if how == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    import os; os.remove(how)  # what filled the disk
ids += emit(10)
recovered = until(lambda: durable.counts.waiting == 0)
flushed = durable.force_flush()
ids += emit(1)
flushed = durable.force_flush() and flushed
durable.shutdown()
counts = durable.counts
print(json.dumps({"ids": ids, "troubled": troubled, "recovered": recovered, "flushed": flushed, "lost": counts.lost}))
"""


def in_namespace(tmp_path: Path, command: list[str]) -> list[str]:
    """``command`` with a tmpfs of 1 MiB at ``tmp_path/small``, most of which a file named ``ballast`` fills."""
    small = tmp_path / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=1m tmpfs {small} && head -c 700000 /dev/zero > {small}/ballast && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *command]


@pytest.mark.parametrize("how", ["limit", "tmpfs"])
def test_a_full_disk_costs_no_span(tmp_path: Path, collector: Any, how: str) -> None:
    command = [sys.executable, "-c", FULL]
    if how == "tmpfs":
        probe = in_namespace(tmp_path, ["true"])
        if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
            pytest.skip("user namespaces with a mount of their own are not allowed here; `limit` tests the same")
        small = tmp_path / "small"
        shutil.rmtree(small)
        command = in_namespace(
            tmp_path, [*command, str(small / "ledger.db"), collector.traces_url, str(small / "ballast")]
        )
    else:
        command += [str(tmp_path / "ledger.db"), collector.traces_url, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {name: report[name] for name in ("troubled", "recovered", "flushed", "lost")} == {
        "troubled": True,
        "recovered": True,
        "flushed": True,
        "lost": 0,
    }
    assert set(collector.ids()) == set(report["ids"])
    assert done.stderr.count("cannot be written") == 1, done.stderr


def test_a_file_that_cannot_be_made_is_counted_and_spans_are_sent_from_memory(
    tmp_path: Path, collector: Any, make_spans: Any, ids_of: Any, caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    (tmp_path / "file").write_text("not a folder")
    processor = DurableSpanProcessor(
        HttpExporter(collector.traces_url), tmp_path / "file" / "ledger.db", schedule_delay_millis=20
    )
    spans = make_spans(20)
    with caplog.at_level(logging.ERROR):
        for span in spans:
            processor.on_end(span)
        assert (processor.counts.written, processor.counts.waiting) == (0, 20)
        assert collector.ids() == []  # the disk may come back
        assert processor.force_flush(2000)  # at the latest now, for there is nowhere to leave them
        assert sorted(collector.ids()) == sorted(ids_of(spans))
        more = make_spans(3)
        for span in more:
            processor.on_end(span)
        processor.shutdown()
    assert sorted(collector.ids()) == sorted(ids_of([*spans, *more]))
    assert (processor.counts.exported, processor.counts.lost) == (23, 0)
    assert said(caplog, "cannot be written") == 1


def test_a_read_only_file_is_counted_and_said_once(
    ledger: Path, durable: Make, make_spans: Any, caplog: pytest.LogCaptureFixture, no_root: None
) -> None:
    with caplog.at_level(logging.ERROR):
        processor = durable(None)
        for span in make_spans(5):
            processor.on_end(span)
        processor.expect_call("id", "tenant", "model")
    assert (processor.counts.written, processor.counts.waiting, processor.counts.lost) == (0, 5, 0)
    assert said(caplog, "cannot be written: attempt to write a readonly database") == 1


def test_what_waits_in_memory_has_a_limit(
    ledger: Path, durable: Make, make_spans: Any, no_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = durable(None)
    monkeypatch.setattr(processor._writer, "_capacity", 3)
    for span in make_spans(5):
        processor.on_end(span)
    assert (processor.counts.waiting, processor.counts.lost) == (3, 2)


def test_spans_lost_are_noted_in_the_file_when_it_can_be_written_again(
    ledger: Path, durable: Make, make_spans: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    processor = durable(None)
    processor.on_end(make_spans(1)[0])
    monkeypatch.setattr(processor._writer, "_capacity", 3)
    with sqlite3.connect(ledger, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")  # somebody works on the file by hand
        for span in make_spans(5):
            processor.on_end(span)
        assert (processor.counts.waiting, processor.counts.lost) == (3, 2)
        other.execute("ROLLBACK")
    eventually(lambda: processor.counts.waiting == 0, "the three are written")
    assert ask(ledger, "SELECT count(*) FROM spans") == [(4,)]
    assert ask(ledger, "SELECT spans_unwritten FROM processes") == [(2,)]


@pytest.mark.parametrize("also", [(), ("-wal", "-shm")])
def test_a_file_deleted_while_in_use_is_noticed_and_what_was_pending_is_carried_over(
    ledger: Path,
    durable: Make,
    collector: Any,
    make_spans: Any,
    ids_of: Any,
    also: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    collector.fault({"status": 503})
    processor = durable(HttpExporter(collector.traces_url))
    before, after = make_spans(20), make_spans(10)
    for span in before:
        processor.on_end(span)
    assert not processor.force_flush(100)
    for suffix in ("", *also):
        ledger.with_name(ledger.name + suffix).unlink()
    for span in after:
        processor.on_end(span)
    collector.fault({})
    assert processor.force_flush()
    assert processor.force_flush()  # what was carried over meanwhile, too
    assert sorted(collector.ids()) == sorted(ids_of([*before, *after]))
    assert processor.counts.files_replaced == 1
    assert said(caplog, "was removed or replaced while in use") == 1
    assert ask(ledger, "SELECT count(*) FROM spans") == [(30,)]
    assert ask(ledger, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("content", [b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_file_is_moved_aside(
    ledger: Path, durable: Make, make_spans: Any, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    ledger.write_bytes(content)
    processor = durable(InMemorySpanExporter())
    for span in make_spans(3):
        processor.on_end(span)
    assert processor.force_flush()
    (aside,) = ledger.parent.glob("ledger.db.corrupt-*")
    assert aside.read_bytes() == content
    assert said(caplog, f"moved to {aside}") == 1
    assert ask(ledger, "SELECT count(*) FROM spans") == [(3,)]


def test_a_file_that_breaks_while_in_use_is_moved_aside(
    ledger: Path, durable: Make, make_spans: Any, ids_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    processor = durable(None, schedule_delay_millis=3_600_000)
    for span in make_spans(200):
        processor.on_end(span)
    processor.shutdown()
    pages = ledger.read_bytes()
    ledger.write_bytes(pages[:4096] + b"\xff" * (len(pages) - 4096))  # its first page still looks well
    processor = durable(None)
    spans = make_spans(3)
    for span in spans:
        processor.on_end(span)
    assert [id_ for (id_,) in ask(ledger, "SELECT span_id FROM spans")] == ids_of(spans)
    assert len(list(ledger.parent.glob("ledger.db.corrupt-*"))) >= 1
    assert said(caplog, "is broken") == 1
    assert processor.counts.lost == 0


def test_a_file_of_which_the_outbox_cannot_be_read_is_moved_aside(
    ledger: Path, durable: Make, make_spans: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = durable(InMemorySpanExporter(), schedule_delay_millis=3_600_000)
    first._drain._stopped = True  # it sends nothing
    for span in make_spans(5):
        first.on_end(span)
    first.shutdown()
    (page,) = ask(ledger, "SELECT rootpage FROM sqlite_master WHERE name = 'outbox'")[0]
    with ledger.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    exporter = InMemorySpanExporter()
    processor = durable(exporter)
    eventually(lambda: list(ledger.parent.glob("ledger.db.corrupt-*")), "it is moved aside")
    processor.on_end(make_spans(1, "after")[0])
    assert processor.force_flush()
    assert [span.name for span in exporter.get_finished_spans()] == ["after"]
    assert said(caplog, "is broken") == 1


def test_two_that_find_the_same_broken_file_move_it_once(
    ledger: Path, durable: Make, make_spans: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.write_bytes(b"x" * 10_000)
    processors = [durable(None), durable(None)]
    for processor in processors:
        for span in make_spans(3):
            processor.on_end(span)
    assert ask(ledger, "SELECT count(*) FROM spans") == [(6,)]
    assert said(caplog, "is broken") == 1


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        ("CREATE TABLE bills (id)", "is a database of another program"),
        ("PRAGMA user_version = 99", "was written by a newer version of this plugin (schema 99, here 3)"),
    ],
)
def test_somebody_elses_file_is_left_alone(
    ledger: Path, durable: Make, make_spans: Any, caplog: pytest.LogCaptureFixture, prepare: str, words: str
) -> None:
    ask(ledger, prepare)
    before = ledger.read_bytes()
    processor = durable(None)
    processor.on_end(make_spans(1)[0])
    assert processor.counts.waiting == 1
    assert said(caplog, words) == 1
    assert ledger.read_bytes() == before


def test_a_ledger_of_an_earlier_record_gets_the_new_columns(ledger: Path, durable: Make, make_spans: Any) -> None:
    first = durable(None)
    first.on_end(make_spans(1, **{"llm.tenant_id": "acme"})[0])
    first.shutdown()
    ask(ledger, "ALTER TABLE spans DROP COLUMN choice_count")
    durable(None).on_end(make_spans(1, **{"llm.choice_count": 2})[0])
    assert ask(ledger, "SELECT tenant_id, choice_count FROM spans ORDER BY id") == [("acme", None), (None, 2)]


def test_processes_that_bring_an_earlier_ledger_up_to_date_at_once_lose_nothing(
    ledger: Path, durable: Make, make_spans: Any
) -> None:
    first = durable(None)
    first.on_end(make_spans(1, **{"llm.tenant_id": "acme"})[0])
    first.shutdown()
    earlier = ("choice_count", "tenant_source", "cost_nano_usd")
    for column in earlier:
        ask(ledger, f"ALTER TABLE spans DROP COLUMN {column}")
    script = f"""
    import sys
    from pathlib import Path
    from otel_cost_logger.ledger.file import open_for_writing
    print("ready", flush=True)
    sys.stdin.readline()
    connection = open_for_writing(Path({str(ledger)!r}), busy_seconds=1)
    connection.execute("INSERT INTO spans (tenant_id, cost_nano_usd) VALUES ('later', 7)")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    for other in others:
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.flush()
    for other in others:
        other.communicate()
        assert other.returncode == 0
    present = [row[1] for row in ask(ledger, "PRAGMA table_info(spans)")]
    assert len(present) == len(set(present))
    assert set(earlier) <= set(present)
    found = ask(ledger, "SELECT tenant_id, cost_nano_usd FROM spans ORDER BY id")
    assert found == [("acme", None), *[("later", 7)] * 6]


def test_a_program_that_leaves_a_transaction_open_stops_nobody_for_good(
    ledger: Path, durable: Make, make_spans: Any, eventually: Any
) -> None:
    processor = durable(InMemorySpanExporter())
    processor.on_end(make_spans(1)[0])
    script = f"""
    import sqlite3, sys
    connection = sqlite3.connect({str(ledger)!r}, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print("locked", flush=True)
    sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        processor.on_end(make_spans(1)[0])  # waits a moment
        began = time.monotonic()
        for span in make_spans(500):  # these do not, although the thread keeps trying
            processor.on_end(span)
        assert time.monotonic() - began < 1  # which is what one attempt takes
        assert processor.counts.waiting == 501
        other.communicate()
    eventually(lambda: processor.counts.written == 502, "everything is written")
    assert processor.force_flush()
