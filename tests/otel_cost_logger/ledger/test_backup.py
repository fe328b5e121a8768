"""``ledger backup``, ``restore`` and ``check``: a copy made at any moment is whole, and goes back only where it may."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

from otel_cost_logger.__main__ import main
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.spend import with_spend
from otel_cost_logger.ledger.writer import LedgerWriter

NS = 10**9


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    def run(command: str, *arguments: object, code: int = 0) -> SimpleNamespace:
        done = main(["ledger", command, *map(str, arguments)])
        out, err = capsys.readouterr()
        assert done == code, out + err
        return SimpleNamespace(out=out, err=err)

    return run


def rows(ledger: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(ledger)) as connection, connection:
        return connection.execute(sql).fetchall()


def fill(ledger: Path, spans: list[Any]) -> None:
    processor = DurableSpanProcessor(None, ledger)
    for span in spans:
        processor.on_end(span)
    processor.shutdown()


# As a proxy's worker: three calls are in flight at any time. What it has recorded it says at once.
WORKER = """
import select, sys
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from otel_cost_logger.durable import DurableSpanProcessor

ledger, url, name = sys.argv[1:]
durable = DurableSpanProcessor(OTLPSpanExporter(url), ledger, schedule_delay_millis=20)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(durable)
tracer = provider.get_tracer("t")

def expect(number):
    durable.expect_call(f"{name}-{number}", "acme", "mistral")

for number in range(3):
    expect(number)
number = 0
while number < 500 or not select.select([sys.stdin], [], [], 0)[0]:
    expect(number + 3)
    attributes = {"llm.call_id": f"{name}-{number}", "llm.tenant_id": "acme", "llm.cost_nano_usd": 7}
    tracer.start_span("call", attributes=attributes).end()
    print(number, flush=True)
    number += 1
durable.shutdown()
"""


def test_a_copy_from_the_middle_of_a_thousand_calls_lacks_only_what_came_after(
    ledger: Path, tmp_path: Path, collector: Any, make_spans: Any, say: Any
) -> None:
    copy, elsewhere = tmp_path / "copy.db", tmp_path / "elsewhere.db"
    command = [sys.executable, "-c", WORKER, str(ledger), collector.traces_url]
    workers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=(tmp_path / name).open("w")) for name in "ab"
    ]

    def recorded() -> dict[str, int]:
        return {name: (tmp_path / name).read_text().count("\n") for name in "ab"}

    try:
        while min(recorded().values()) < 200:
            assert all(worker.poll() is None for worker in workers)
        before = recorded()
        backup = [sys.executable, "-m", "otel_cost_logger", "ledger", "backup", str(copy), "--file", str(ledger)]
        done = subprocess.run(backup, capture_output=True, text=True, timeout=60, check=False)
        after = recorded()
        assert done.returncode == 0, done.stderr
        assert all(worker.poll() is None for worker in workers)
    finally:
        for worker in workers:
            worker.communicate(b"stop\n", timeout=60)
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sum(recorded().values()) >= 1000

    say("restore", copy, "--file", elsewhere)
    found = json.loads(say("check", "--json", "--file", elsewhere).out)
    assert found["cost_nano_usd"] == 7 * found["rows"]["spans"]
    for name in "ab":
        ids = [call_id for (call_id,) in rows(elsewhere, f"SELECT call_id FROM spans WHERE call_id LIKE '{name}-%'")]
        assert ids == [f"{name}-{number}" for number in range(len(ids))]  # a beginning, without a gap
        assert before[name] <= len(ids) <= after[name] + 1
    ((seen,),) = rows(elsewhere, "SELECT sum(calls_seen) FROM processes")
    assert seen == found["rows"]["spans"] + found["rows"]["calls_in_flight"]
    assert say("check", "--file", ledger).out.startswith("sound: ")

    processor = DurableSpanProcessor(HttpExporter(collector.traces_url), elsewhere, schedule_delay_millis=20)
    processor.on_end(make_spans(1)[0])  # the copy goes on where it was made
    assert processor.force_flush(60_000)
    processor.shutdown()
    assert rows(elsewhere, "SELECT count(*) FROM spans") == [(found["rows"]["spans"] + 1,)]
    assert {span_id for (span_id,) in rows(elsewhere, "SELECT span_id FROM spans")} <= set(collector.ids())


def test_a_copy_is_one_file_of_its_owner_and_never_over_another(
    ledger: Path, tmp_path: Path, make_spans: Any, say: Any
) -> None:
    fill(ledger, make_spans(3))
    copy = tmp_path / "copies" / "copy.db"
    assert "the folder" in say("backup", copy, "--file", ledger, code=2).err
    copy.parent.mkdir()
    old = os.umask(0)
    try:
        assert say("backup", copy, "--file", ledger).out == f"3 spans in {copy} ({copy.stat().st_size:,} bytes)\n"
    finally:
        os.umask(old)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in copy.parent.iterdir()] == ["copy.db"]
    content = copy.read_bytes()
    assert f"{copy} exists; name a new file" in say("backup", copy, "--file", ledger, code=2).err
    assert copy.read_bytes() == content
    copy.parent.chmod(0o500)  # nothing needs to be written beside it to read it
    assert say("check", "--file", copy).out.startswith(f"sound: {copy}, schema ")
    assert [path.name for path in copy.parent.iterdir()] == ["copy.db"]


def test_a_ledger_in_use_is_not_replaced(ledger: Path, tmp_path: Path, durable: Any, make_spans: Any, say: Any) -> None:
    copy = tmp_path / "copy.db"
    processor = durable(None)
    processor.on_end(make_spans(1)[0])
    say("backup", copy, "--file", ledger)
    processor.on_end(make_spans(1)[0])
    assert f"{ledger} exists; --yes moves it aside" in say("restore", copy, "--file", ledger, code=2).err
    assert f"{ledger} is in use" in say("restore", copy, "--yes", "--file", ledger, code=2).err
    assert rows(ledger, "SELECT count(*) FROM spans") == [(2,)]
    assert not list(tmp_path.glob("*.part"))
    processor.on_end(make_spans(1)[0])
    assert processor.counts.waiting == 0
    processor.shutdown()
    said = say("restore", copy, "--yes", "--file", ledger).out
    (aside,) = tmp_path.glob("ledger.db.replaced-*")
    assert said == f"what was there is now {aside}\n1 spans in {ledger}\n"
    assert [rows(path, "SELECT count(*) FROM spans") for path in (ledger, aside)] == [[(1,)], [(3,)]]


KILLED = """
import os, pathlib, signal, sys
from otel_cost_logger.ledger.writer import LedgerWriter

LedgerWriter(pathlib.Path(sys.argv[1]), exporting=False).expect("call", "acme", "mistral")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("lost", [[], ["ledger.db"], ["ledger.db", "ledger.db-wal", "ledger.db-shm"]])
def test_what_a_killed_process_left_does_not_get_into_the_restored_ledger(
    ledger: Path, tmp_path: Path, make_spans: Any, say: Any, lost: list[str]
) -> None:
    fill(tmp_path / "other.db", make_spans(2))
    subprocess.run([sys.executable, "-c", KILLED, str(ledger)], check=False)
    assert ledger.with_name("ledger.db-wal").stat().st_size > 0
    for name in lost:
        (tmp_path / name).unlink()
    if len(lost) < 3:
        assert "exists; --yes" in say("restore", tmp_path / "other.db", "--file", ledger, code=2).err
    say("restore", tmp_path / "other.db", "--file", ledger, *(["--yes"] if len(lost) < 3 else []))
    assert rows(ledger, "SELECT (SELECT count(*) FROM spans), (SELECT count(*) FROM calls_in_flight)") == [(2, 0)]
    if not lost:
        (aside,) = tmp_path.glob("ledger.db.replaced-*")
        assert rows(aside, "SELECT call_id FROM calls_in_flight") == [("call",)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_ledger_that_root_restores_is_still_the_proxys(
    ledger: Path, tmp_path: Path, make_spans: Any, say: Any
) -> None:
    fill(tmp_path / "other.db", make_spans(1))
    folder = tmp_path / "proxys"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    say("restore", tmp_path / "other.db", "--file", folder / "ledger.db")
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in folder.iterdir()} == {(65534, 0o600)}


def test_a_damaged_ledger_is_named_and_not_copied(ledger: Path, tmp_path: Path, make_spans: Any, say: Any) -> None:
    fill(ledger, make_spans(50))
    copy = tmp_path / "copy.db"
    say("backup", copy, "--file", ledger)
    for path in (ledger, copy):
        with path.open("r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xff" * 8192)
        assert say("check", "--file", path, code=1).out.startswith("wrong: ")
    assert "cannot be copied: " in say("backup", tmp_path / "second.db", "--file", ledger, code=2).err
    assert "cannot be copied: " in say("restore", copy, "--yes", "--file", ledger, code=2).err
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["copy.db", "ledger.db"]


@pytest.mark.parametrize("version", [1, 99])
def test_another_version_is_copied_and_a_newer_one_not_put_in_place(
    ledger: Path, tmp_path: Path, make_spans: Any, say: Any, version: int
) -> None:
    fill(ledger, make_spans(2))
    rows(ledger, f"PRAGMA user_version = {version}")
    rows(ledger, "DROP TABLE export_failure")
    copy, elsewhere = tmp_path / "copy.db", tmp_path / "elsewhere.db"
    say("backup", copy, "--file", ledger)
    assert rows(copy, "PRAGMA user_version") == [(version,)]
    if version == 99:
        assert "newer version" in say("restore", copy, "--file", elsewhere, code=2).err
        assert not elsewhere.exists()
        return
    say("restore", copy, "--file", elsewhere)
    assert "schema 1\n2 spans" in say("check", "--file", elsewhere).out
    fill(elsewhere, make_spans(1))
    assert "spans        3" in say("status", "--file", elsewhere).out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("INSERT INTO outbox VALUES (77)", "1 spans to send are not in the book"),
        ("INSERT INTO dead_letters VALUES (77, 'no', 1)", "1 dead letters are not in the book"),
        ("DELETE FROM spans WHERE id = 2", "1 payloads belong to no span"),
        ("DELETE FROM scopes", "3 payloads have no envelope"),
        ("INSERT INTO dead_letters SELECT id, 'no', 1 FROM outbox", "3 spans are both dead and to be sent"),
        ("DELETE FROM payloads WHERE id > 1", "2 spans cannot be sent again: they have no payload"),
        ("UPDATE spans SET cost_nano_usd = 8 WHERE id = 1", "spent by tenant acme, key , on 20"),
        ("DELETE FROM spend", "0.000000000 USD, but its records cost 0.000000021"),
        ("UPDATE spend SET day = day + 1", ": 0.000000021 USD, but its records cost 0.000000000"),
    ],
)
def test_check_names_what_does_not_fit(ledger: Path, make_spans: Any, say: Any, change: str, words: str) -> None:
    writer = LedgerWriter(ledger, exporting=False)
    writer.transact(lambda connection: with_spend(connection, lambda: connection.execute("SELECT 1 FROM spend")))
    writer.close()
    fill(ledger, make_spans(3, **{"llm.tenant_id": "acme", "llm.cost_nano_usd": 7}))
    rows(ledger, "INSERT INTO outbox SELECT id FROM spans")
    say("check", "--file", ledger)
    rows(ledger, change)
    assert words in say("check", "--file", ledger, code=1).out
    assert any(words in wrong for wrong in json.loads(say("check", "--json", "--file", ledger, code=1).out)["wrong"])


def test_what_pruned_records_have_spent_is_named_and_not_wrong(ledger: Path, make_spans: Any, say: Any) -> None:
    writer = LedgerWriter(ledger, exporting=False)
    writer.transact(lambda connection: with_spend(connection, lambda: connection.execute("SELECT 1 FROM spend")))
    writer.close()
    fill(ledger, make_spans(3, **{"llm.tenant_id": "acme", "llm.cost_nano_usd": 7}))
    rows(ledger, "UPDATE spans SET written_ns = 0 WHERE id < 3")
    say("prune", "--days", 1, "--yes", "--file", ledger)
    assert "0.000000014 USD were spent by records that are pruned" in say("check", "--file", ledger).out
    say("prune", "--days", 0, "--yes", "--file", ledger)
    assert "0.000000021 USD were spent by records that are pruned" in say("check", "--file", ledger).out
