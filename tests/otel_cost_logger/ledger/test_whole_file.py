"""The ledger's main file alone, as ``cp`` takes it: a ledger from its birth, and the whole of it after a clean stop."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger.__main__ import main
from otel_cost_logger.ledger.backup import copied_in_use
from otel_cost_logger.ledger.file import LedgerError, open_for_reading, open_for_writing


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def alone(ledger: Path) -> Path:
    """A copy of the main file in a folder of its own."""
    folder = ledger.parent / "copied"
    folder.mkdir(exist_ok=True)
    return Path(shutil.copy(ledger, folder / "copy.db"))


def spans_in(ledger: Path) -> int:
    with closing(open_for_reading(ledger)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM spans").fetchone()
    return int(count)


def test_a_new_ledger_is_one_before_anything_is_in_it(ledger: Path) -> None:
    with closing(open_for_writing(ledger, busy_seconds=1)):
        assert spans_in(alone(ledger)) == 0


def test_the_last_processor_to_go_leaves_one_file(ledger: Path, durable: Any, make_spans: Any) -> None:
    first, second = durable(InMemorySpanExporter()), durable(InMemorySpanExporter())
    for span in make_spans(20):
        first.on_end(span)
        second.on_end(span)
    first.shutdown()
    second.on_end(make_spans(1)[0])
    second.shutdown()
    assert spans_in(alone(ledger)) == 41
    assert not ledger.with_name("ledger.db-wal").exists()


def test_nor_does_a_reader_who_stays_keep_it_from_that(ledger: Path, durable: Any, make_spans: Any) -> None:
    processor = durable(None)
    processor.on_end(make_spans(1)[0])
    with closing(open_for_reading(ledger)) as reader:
        reader.execute("SELECT count(*) FROM spans").fetchone()
        processor.shutdown()
        assert spans_in(alone(ledger)) == 1


STOPPED = """
import signal, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.termination import FlushOnTermination

class Away(SpanExporter):
    def export(self, spans):
        return SpanExportResult.FAILURE

signal.signal(signal.SIGTERM, lambda *_: None)  # as a server does
durable = DurableSpanProcessor(Away(), sys.argv[1], schedule_delay_millis=20)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(FlushOnTermination(durable, 100, durable.leave_whole))
span = lambda: provider.get_tracer("t").start_span("call").end()
for _ in range(10):
    span()
signal.raise_signal(signal.SIGTERM)
print("stopping", flush=True)
sys.stdin.readline()
for _ in range(10):
    span()
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # and then dies of the signal, without exit handlers
signal.raise_signal(signal.SIGTERM)
"""


def test_the_last_of_two_servers_to_die_of_the_signal_leaves_it_whole(ledger: Path) -> None:
    """Their collector is away, too."""
    command = [sys.executable, "-c", STOPPED, str(ledger)]
    servers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for server in servers:
        assert server.stdout is not None
        assert server.stdout.readline() == "stopping\n"
    for server in servers:
        server.communicate("go on\n", timeout=60)
        assert server.returncode == -signal.SIGTERM
    copy = alone(ledger)
    assert copied_in_use(copy) is None
    assert spans_in(copy) == 40


def test_a_copy_of_the_main_file_alone_while_it_is_in_use_is_doubtful(
    ledger: Path, durable: Any, make_spans: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    processor = durable(None)
    processor.on_end(make_spans(1)[0])
    processor.leave_whole()
    processor.expect_call("takes back that it ended", "acme", "mistral")
    processor.leave_whole()
    copy = alone(ledger)
    assert main(["ledger", "check", "--file", str(copy)]) == 0
    assert "doubtful: 1 processes have not said that they ended." in capsys.readouterr().err
    assert main(["ledger", "backup", str(copy.with_name("whole.db")), "--file", str(ledger)]) == 0
    capsys.readouterr()
    assert main(["ledger", "check", "--file", str(copy.with_name("whole.db"))]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("left", [0, 4096])
def test_a_copy_without_the_log_that_has_everything_says_so(ledger: Path, left: int) -> None:
    """What earlier versions left until SQLite's first checkpoint."""
    if left:
        with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE spans (id)")
            copy = alone(ledger)
    else:
        ledger.touch()
        copy = alone(ledger)
    assert copy.stat().st_size == left
    with pytest.raises(LedgerError, match=r"copy\.db-wal is missing: copy it too, or use `ledger backup`"):
        open_for_reading(copy)
