"""The one hand with which a process writes to the ledger: spans, calls that begin, and what became of them.

A write never raises. While the file cannot be written (disk full, read-only, locked by somebody), spans wait in
memory, up to a limit, for a background thread to try again; what is over the limit is lost, and counted.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from otel_cost_logger.ledger.file import (
    FileIdentity,
    LedgerError,
    identity,
    is_broken,
    is_locked,
    move_aside,
    open_for_writing,
)
from otel_cost_logger.ledger.group_commit import GroupCommit
from otel_cost_logger.ledger.processes import this_process
from otel_cost_logger.ledger.schema import COLUMNS, INSERT_SPAN
from otel_cost_logger.ledger.stored_span import StoredSpan

_BUSY_SECONDS = 1.0  # an event loop may be waiting
_RETRY_ROWS = 500
_PROCESS = list(COLUMNS).index("process")
_FILE_ERRORS = (sqlite3.Error, OSError, LedgerError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WriteCounts:
    """Spans of this process: ``written`` to the file, ``waiting`` in memory for a file that can be written, ``lost``
    because too many waited, or because the collector refused one that was in no file. ``files_replaced`` is how often
    the file vanished while it was in use."""

    written: int = 0
    waiting: int = 0
    lost: int = 0
    files_replaced: int = 0


@dataclass(frozen=True, slots=True)
class CallInFlight:
    """A call that begins, and what is reserved of its tenant's budget for it: billionths of a US dollar, None where no
    budget asks."""

    call_id: str
    tenant_id: str
    model: str
    key_alias: str | None = None
    reserved_nano_usd: int | None = None


class LedgerWriter:
    """Writes to the ledger at ``path``. Thread-safe.

    With ``exporting``, spans are also put into the outbox. ``ledger.group_commit`` flushes each write to the disk.
    ``capacity`` is how many spans may wait for a file that cannot be written.
    """

    def __init__(
        self, path: Path, *, exporting: bool, group_commit: GroupCommit | None = None, capacity: int = 10_000
    ) -> None:
        self._path = path
        self._name = str(path)
        self._exporting = exporting
        self._group_commit = group_commit
        self._capacity = capacity
        self._connection: sqlite3.Connection | None = None
        self._identity: FileIdentity | None = None
        self._process: tuple[FileIdentity | None, int] | None = None  # which file, and this process's id in it
        self._scopes: set[int] = set()
        self._forsaken: list[tuple[sqlite3.Connection, int]] = []
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()  # of the file
        self._memory = threading.Lock()  # of what waits for it: held for a moment only
        self._backlog: deque[StoredSpan] = deque()
        self._who = (*this_process(), socket.gethostname())
        self._trouble: str | None = None
        self._written = self._lost = self._replaced = 0
        self._unwritten = self._unwritten_noted = 0  # spans that are in no file, lost or not

    @property
    def counts(self) -> WriteCounts:
        """What became of this process's spans."""
        return WriteCounts(self._written, len(self._backlog), self._lost, self._replaced)

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return self._path

    @property
    def trouble(self) -> str | None:
        """Why the file cannot be written, while it cannot."""
        return self._trouble

    def open(self) -> None:
        """Open the file before there is anything to write. Raises `LedgerError` when that will never work; a file that
        somebody else holds for a moment is no such case."""
        with self._lock:
            try:
                self._transaction(lambda _: None)
            except _FILE_ERRORS as error:
                self._disconnect()
                if not is_locked(error):
                    raise LedgerError(
                        f"{_said(self._path, error)}; name a local file that this user may write"
                    ) from error

    # From the threads that serve calls.

    def write(self, span: StoredSpan) -> None:
        """Write ``span``; it is in the file when this returns, or waits in memory, or is counted as lost."""
        if self._keep(span, only_in_trouble=True):
            return
        with self._lock:
            if self._trouble is not None or not self._attempt(partial(self._insert, span=span)):
                self._keep(span)
                return
            self._written += 1
        if self._group_commit is not None:
            self._group_commit.committed()

    def expect(self, call_id: str, tenant_id: str, model: str) -> None:
        """A call begins: from now until a record with its id is written, it is in flight."""
        call = CallInFlight(call_id, tenant_id, model)
        self.transact(partial(self.note_call, call=call))

    def transact(self, action: Callable[[sqlite3.Connection], object]) -> bool:
        """Run ``action`` in a transaction of its own; False when the file cannot be written. It may run twice, when the
        first time the file turns out to be broken."""
        if self._trouble is not None:  # the lock may be held until the file gives way
            return False
        with self._lock:
            return self._trouble is None and self._attempt(action)

    def note_call(self, connection: sqlite3.Connection, call: CallInFlight) -> None:
        """Note in a `transact` that ``call`` begins."""
        process = self._process[1] if self._process else 0
        held = (call.key_alias, call.reserved_nano_usd)
        connection.execute(_CALL_BEGINS, (process, call.call_id, call.tenant_id, call.model, time.time_ns(), *held))
        connection.execute(_CALL_SEEN, (process, *self._who, time.time_ns()))

    # From the background thread.

    def recover(self) -> None:
        """Write what waits in memory, and what a file that has vanished still held for the outbox."""
        if self._trouble is not None or self._unwritten > self._unwritten_noted:
            if not self._guarded(None, self._note_unwritten):
                return
            while not self._recovered():
                batch = self.waiting(_RETRY_ROWS)
                if not self._guarded(None, partial(self._insert_all, spans=batch)):
                    return
                self._forget_waiting(len(batch))
                self._written += len(batch)
        while self._forsaken:
            self._rescue(*self._forsaken.pop())

    def _recovered(self) -> bool:
        """True when nothing waits any more: from now on spans go to the file again."""
        with self._memory:
            if self._backlog:
                return False
            if self._trouble is not None:
                self._trouble = None
                _log.warning("the ledger %s can be written again; %d spans lost in all", self._path, self._lost)
            return True

    def waiting(self, limit: int) -> list[StoredSpan]:
        """The first spans that wait in memory."""
        with self._memory:
            return list(islice(self._backlog, limit))

    def settle_unwritten(self, count: int, *, accepted: bool) -> None:
        """The collector has accepted (or refused) the first ``count`` of `waiting`: they wait no longer, and are in no
        file."""
        self._forget_waiting(count)
        self._unwritten += count
        self._lost += 0 if accepted else count

    def confirm(self, file: FileIdentity, ids: Sequence[int]) -> bool:
        """The collector has the spans ``ids`` of ``file``: all that its outbox holds from the first to the last."""
        ends = (ids[0], ids[-1])

        def remove(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM outbox WHERE id BETWEEN ? AND ?", ends)
            connection.execute("DELETE FROM export_failure")

        return self._guarded(file, remove)

    def note_failure(self, reason: str) -> bool:
        """An attempt to export came to nothing."""
        now = time.time_ns()
        return self._guarded(None, lambda connection: connection.execute(_EXPORT_FAILED, (reason, now, now)))

    def set_aside(self, file: FileIdentity, ids: Sequence[int], reason: str) -> bool:
        """The collector has refused the spans ``ids`` of ``file`` for good."""

        def move(connection: sqlite3.Connection) -> None:
            now = time.time_ns()
            letters = [(id_, reason, now) for id_ in ids]
            connection.executemany("INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?)", letters)
            connection.executemany("DELETE FROM outbox WHERE id = ?", [(id_,) for id_ in ids])
            connection.execute("DELETE FROM export_failure")  # it answers

        return self._guarded(file, move)

    def revive(self, file: FileIdentity, ids: Iterable[int]) -> bool:
        """A collector has accepted the dead letters ``ids`` of ``file`` after all."""
        rows = [(id_,) for id_ in ids]
        return self._guarded(
            file, lambda connection: connection.executemany("DELETE FROM dead_letters WHERE id = ?", rows)
        )

    def delete(self, file: FileIdentity, ids: Iterable[int]) -> bool:
        """Take the spans ``ids`` out of ``file``."""
        rows = [(id_,) for id_ in ids]

        def remove(connection: sqlite3.Connection) -> None:
            for table in ("spans", "payloads", "dead_letters"):
                connection.executemany(f"DELETE FROM {table} WHERE id = ?", rows)

        return self._guarded(file, remove)

    def forget_processes(self, file: FileIdentity, before_ns: int) -> bool:
        """Take calls that began before ``before_ns`` and left no record out of ``file``, and then processes that ended,
        or began without an end, before it and have no such call."""

        def remove(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM calls_in_flight WHERE began_ns < ?", (before_ns,))
            connection.execute(_FORGET_PROCESSES, (before_ns, self._process[1] if self._process else 0))

        return self._guarded(file, remove)

    def replace_broken(self, file: FileIdentity, reason: str) -> None:
        """What is in ``file`` can no longer be read: a new one takes its place."""
        with self._lock:
            self._disconnect()
            try:
                move_aside(self._path, file, reason)
            except _FILE_ERRORS as error:
                _log.error("the broken ledger %s could not be moved aside: %s", self._path, error)

    # Around the life of the process.

    def close(self) -> None:
        """Close the file. A later write opens it again."""
        with self._lock:
            self.recover()
            if self._connection is not None and self._process is not None:
                ended = (time.time_ns(), self._process[1])
                self._attempt(lambda connection: connection.execute(_PROCESS_ENDED, ended))
            self._disconnect()

    def before_fork(self) -> None:
        """No connection crosses a fork: SQLite's locks belong to the process that took them."""
        self._lock.acquire()
        self.recover()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: what waits in memory is the parent's to write."""
        self._process = None
        self._forsaken.clear()
        self._forget()

    def _guarded(self, file: FileIdentity | None, action: Callable[[sqlite3.Connection], object]) -> bool:
        """Run ``action``, unless another file has taken the place of ``file``, where the ids mean other spans."""

        def guarded(connection: sqlite3.Connection) -> None:
            if file is None or self._identity == file:
                action(connection)

        with self._lock:
            return self._attempt(guarded)

    # Below, the lock is held.

    def _attempt(self, action: Callable[[sqlite3.Connection], object]) -> bool:
        """Run ``action`` in a transaction; False when the file could not be written."""
        try:
            try:
                self._transaction(action)
            except sqlite3.DatabaseError as error:
                if not is_broken(error):
                    raise
                self._disconnect()
                move_aside(self._path, self._identity, str(error))
                self._transaction(action)
        except _FILE_ERRORS as error:
            self._disconnect()  # whatever it was, the next attempt opens the file anew
            if self._trouble is None:
                self._trouble = _said(self._path, error)
                _log.error("%s; spans wait in memory", self._trouble)
            return False
        return True

    def _transaction(self, action: Callable[[sqlite3.Connection], object]) -> None:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            action(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _connected(self) -> sqlite3.Connection:
        now = identity(self._path)
        if self._connection is not None:
            if now == self._identity:
                return self._connection
            self._replaced += 1
            _log.error("the ledger %s was removed or replaced while in use; a new one begins", self._path)
            if self._process is not None:
                # Its file lives on, without a name, until the last connection is closed.
                self._forsaken.append((self._connection, self._process[1]))
            self._connection = None
        connection = open_for_writing(self._path, busy_seconds=_BUSY_SECONDS)
        self._connection, self._identity = connection, identity(self._path)
        self._scopes.clear()
        if self._process is None or self._process[0] != self._identity:
            id_ = connection.execute(_PROCESS_STARTED, (*self._who, time.time_ns())).lastrowid
            self._process = (self._identity, id_ or 0)
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _insert(self, connection: sqlite3.Connection, span: StoredSpan) -> None:
        process = self._process[1] if self._process else 0
        columns = (*span.columns[:_PROCESS], process, *span.columns[_PROCESS + 1 :])
        id_ = connection.execute(INSERT_SPAN, columns).lastrowid
        if span.problem is not None:
            connection.execute("INSERT INTO dead_letters VALUES (?, ?, ?)", (id_, span.problem, time.time_ns()))
            return
        connection.execute("INSERT INTO payloads VALUES (?, ?, ?)", (id_, span.scope, span.otlp))
        if span.scope not in self._scopes:
            connection.execute("INSERT OR IGNORE INTO scopes VALUES (?, ?)", (span.scope, span.envelope))
            self._scopes.add(span.scope)
        if self._exporting:
            connection.execute("INSERT INTO outbox VALUES (?)", (id_,))

    def _insert_all(self, connection: sqlite3.Connection, spans: Iterable[StoredSpan]) -> None:
        for span in spans:
            self._insert(connection, span)

    def _note_unwritten(self, connection: sqlite3.Connection) -> None:
        process = self._process[1] if self._process else 0
        connection.execute("UPDATE processes SET spans_unwritten = ? WHERE id = ?", (self._unwritten, process))
        self._unwritten_noted = self._unwritten

    def _keep(self, span: StoredSpan, *, only_in_trouble: bool = False) -> bool:
        """Let ``span`` wait in memory, if there is room; False when it need not, because the file can be written."""
        with self._memory:
            if only_in_trouble and self._trouble is None:
                return False
            if len(self._backlog) < self._capacity:
                self._backlog.append(span)
                return True
            if not self._lost:
                _log.error("the ledger %s: %d spans wait in memory; more are lost", self._path, self._capacity)
            self._lost += 1
            self._unwritten += 1
            return True

    def _forget_waiting(self, count: int) -> None:
        with self._memory:
            for _ in range(count):
                self._backlog.popleft()

    def _rescue(self, forsaken: sqlite3.Connection, process: int) -> None:
        """Carry what this process still had in the outbox over into the new file."""
        rescued = 0
        try:
            for spans in _pending_of(forsaken, process):
                if not self._guarded(None, partial(self._insert_all, spans=spans)):
                    break
                rescued += len(spans)
        except sqlite3.Error as error:
            _log.error("what the vanished ledger still held could not be read: %s", error)
        finally:
            forsaken.close()
        _log.warning("the ledger %s: %d spans that were still to be sent were carried over", self._path, rescued)


_PROCESS_STARTED = "INSERT INTO processes (pid, pid_started, host, started_ns) VALUES (?, ?, ?, ?)"
_PROCESS_ENDED = "UPDATE processes SET ended_ns = ? WHERE id = ?"
_CALL_BEGINS = (
    "INSERT INTO calls_in_flight (process, call_id, tenant_id, model, began_ns, key_alias, reserved_nano_usd) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
# A process that was forgotten, because it began so long ago and did nothing since, is back with its next call.
_CALL_SEEN = (
    "INSERT INTO processes (id, pid, pid_started, host, started_ns, calls_seen) VALUES (?, ?, ?, ?, ?, 1) "
    "ON CONFLICT (id) DO UPDATE SET calls_seen = calls_seen + 1"
)
# The last one stays, so that no other gets its id.
_FORGET_PROCESSES = (
    "DELETE FROM processes WHERE coalesce(ended_ns, started_ns) < ? AND id != ? "
    "AND id < (SELECT max(id) FROM processes) AND id NOT IN (SELECT process FROM calls_in_flight)"
)
_EXPORT_FAILED = (
    "INSERT INTO export_failure (id, reason, since_ns, last_ns, attempts) VALUES (1, ?, ?, ?, 1) "
    "ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, last_ns = excluded.last_ns, attempts = attempts + 1"
)


def _said(path: Path, error: Exception) -> str:
    return str(error) if isinstance(error, LedgerError) else f"the ledger {path} cannot be written: {error}"


def _pending_of(connection: sqlite3.Connection, process: int) -> Iterator[list[StoredSpan]]:
    names = ", ".join(f's."{name}"' for name in COLUMNS)
    found = connection.execute(
        f"SELECT p.scope, c.otlp, p.otlp, {names} FROM outbox o JOIN spans s ON s.id = o.id "
        "JOIN payloads p ON p.id = o.id JOIN scopes c ON c.id = p.scope WHERE s.process = ? ORDER BY o.id",
        (process,),
    )
    while rows := found.fetchmany(_RETRY_ROWS):
        yield [StoredSpan(tuple(columns), scope, envelope, otlp) for scope, envelope, otlp, *columns in rows]
