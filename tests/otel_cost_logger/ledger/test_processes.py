"""Which processes still run: told by their locks, whatever their ids and host names are."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_cost_logger.ledger.file import open_for_reading
from otel_cost_logger.ledger.reading import calls_without_record
from otel_cost_logger.ledger.spend import Reserved, reserved
from otel_cost_logger.ledger.writer import CallInFlight, LedgerWriter

CALL = CallInFlight("c", "t", "m", "k", 7)
HELD, FREE = {"k": Reserved(1, 7)}, {}

# Reserves, says so, and lives until its input ends. With "fork" it leaves that to a child, and waits to be killed.
LIVES = """
import os, signal, sys
from functools import partial
from pathlib import Path
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.writer import CallInFlight

durable = DurableSpanProcessor(None, Path(sys.argv[1]))
assert durable.writer.transact(partial(durable.writer.note_call, call=CallInFlight("c", "t", "m", "k", 7)))
if sys.argv[2] == "fork" and os.fork():
    signal.pause()
print("begun", flush=True)
sys.stdin.read()
"""


def begin(writer: LedgerWriter) -> None:
    """A call of ``writer``'s process begins."""
    assert writer.transact(lambda connection: writer.note_call(connection, CALL))


def asked(ledger: Path) -> dict[str, Reserved]:
    """What calls have reserved, as any process sees it."""
    with closing(open_for_reading(ledger)) as connection:
        return reserved(connection, "t")


def without_record(ledger: Path) -> tuple[int, int]:
    with closing(open_for_reading(ledger)) as connection:
        return calls_without_record(connection)


def change(ledger: Path, sql: str) -> None:
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute(sql)


@contextmanager
def living(ledger: Path, *before: str, how: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """A process that has begun a call; ``before`` are the words in front of its command."""
    command = [*before, sys.executable, "-c", LIVES, str(ledger), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it did not begin"
        try:
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.mark.parametrize(("pid", "host"), [("pid", "host"), ("{own}", "host"), ("pid", "'old-pod'")])
def test_a_killed_process_is_gone_at_once_under_whatever_name(ledger: Path, pid: str, host: str) -> None:
    """In a container the proxy has the same process id after each restart, and a pod another host name."""
    with living(ledger) as process:
        change(ledger, f"UPDATE processes SET pid = {pid.format(own=os.getpid())}, host = {host}")
        assert (asked(ledger), without_record(ledger)) == (HELD, (1, 0))
        kill(process)
        assert (asked(ledger), without_record(ledger)) == (FREE, (0, 1))


def test_workers_that_live_keep_what_they_have_reserved(ledger: Path) -> None:
    with living(ledger) as first, living(ledger):
        assert asked(ledger) == {"k": Reserved(2, 14)}
        kill(first)
        assert asked(ledger) == HELD


def test_containers_on_one_volume_see_each_other(ledger: Path, eventually: Any) -> None:
    """Each has process ids and a host name of its own."""
    container = ["unshare", "--pid", "--uts", "--fork", "--kill-child", "sh", "-c", 'hostname old-pod; exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*container, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces of process ids are not allowed here")
    with living(ledger, *container) as process:
        assert asked(ledger) == HELD
        kill(process)
        eventually(lambda: asked(ledger) == FREE, "the kernel has ended the namespace with its parent")


def test_a_forked_child_does_not_keep_its_parent_alive(ledger: Path) -> None:
    with living(ledger, how="fork") as parent:
        assert asked(ledger) == HELD
        kill(parent)  # its child still waits for input
        assert asked(ledger) == FREE


def test_a_process_whose_ledger_was_replaced_lives_in_the_next_one(ledger: Path) -> None:
    writer = LedgerWriter(ledger, exporting=False)
    begin(writer)
    for suffix in ("", "-wal", "-shm", ".process-locks"):
        ledger.with_name(ledger.name + suffix).unlink()
    begin(writer)
    assert asked(ledger) == HELD
    writer.close()
    assert asked(ledger) == FREE


@pytest.mark.parametrize("how", ["an earlier version", "no such locks"])
def test_a_process_without_a_lock_may_live_for_an_hour(ledger: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(errno.EINVAL, "Invalid argument")

    patched: Callable[..., Any] = refuse if how == "no such locks" else fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", patched)
    writer = LedgerWriter(ledger, exporting=False)
    begin(writer)
    if how == "an earlier version":
        change(ledger, "UPDATE processes SET pid_started = 4711")
        ledger.with_name("ledger.db.process-locks").unlink()
    assert (asked(ledger), without_record(ledger)) == (HELD, (1, 0))
    change(ledger, "UPDATE calls_in_flight SET began_ns = began_ns - 3600000000000")
    assert (asked(ledger), without_record(ledger)) == (FREE, (0, 1))
    writer.close()
