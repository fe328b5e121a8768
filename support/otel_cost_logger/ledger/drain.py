"""The background half of the durable processor: sends what is in the outbox, oldest first, until it is confirmed.

One thread in each process that has the ledger open; of those that export, only the one that holds the file's export
lock sends. The lock ends with its holder, so another process takes over where it stopped.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value

from otel_cost_logger.file_lock import FileLock
from otel_cost_logger.ledger.batches import BatchSize
from otel_cost_logger.ledger.file import FileIdentity, identity, is_broken, open_beside_writer
from otel_cost_logger.ledger.reading import calls_without_record
from otel_cost_logger.ledger.retention import old_spans
from otel_cost_logger.ledger.suspects import Suspects
from otel_cost_logger.ledger.write_ahead_log import shorten
from otel_cost_logger.ledger.writer import LedgerWriter
from otel_cost_logger.otlp.answers import Accepted, Refused, Unavailable
from otel_cost_logger.otlp.decoding import Payload
from otel_cost_logger.otlp.sending import Sender, deliver, sift

_MAX_REQUEST_BYTES = 3_500_000  # gRPC servers take 4 MiB unless told otherwise
_FIRST_PAUSE_SECONDS = 0.5
_MISDIRECTED_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 30.0
_LONGEST_ASKED_SECONDS = 3600.0  # of what a collector may ask for with Retry-After
_PRUNE_STEPS = 5  # at a time
_PRUNE_EVERY_SECONDS = 60.0
_FLUSH_POLL_SECONDS = 0.02
_LAST_ID = 2**63 - 1

_log = logging.getLogger(__name__)

_NEXT = (
    "SELECT o.id, p.scope, c.otlp, p.otlp FROM outbox o LEFT JOIN payloads p ON p.id = o.id "
    "LEFT JOIN scopes c ON c.id = p.scope ORDER BY o.id LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """What this process's background thread has done: spans ``exported``, ``dead`` (refused for good), and
    ``pruned``; ``failures`` are attempts that came to nothing."""

    exported: int = 0
    dead: int = 0
    pruned: int = 0
    failures: int = 0


class Drain:
    """Sends, prunes and tidies in a thread of its own.

    ``sender`` None sends nothing. ``delay_seconds`` is how long a span waits for others, ``batch_size`` how many do not
    wait any longer (with a backlog, more go together), ``keep_days`` how long exported spans stay in the ledger.
    """

    def __init__(
        self,
        path: Path,
        writer: LedgerWriter,
        sender: Sender | None,
        *,
        delay_seconds: float,
        batch_size: int,
        keep_days: float,
    ) -> None:
        self._path = path
        self._writer = writer
        self._sender = sender
        self._delay_seconds = delay_seconds
        self._batch_size = batch_size
        self._keep_ns = int(keep_days * 86_400 * 1e9)
        self._lock_file = FileLock(path.with_name(path.name + ".export-lock"))
        self._connection: sqlite3.Connection | None = None
        self._identity: FileIdentity | None = None
        self._stop_at = float("inf")  # monotonic seconds
        self._stopped = False
        self._forget()

    def _forget(self) -> None:
        self._reading = threading.RLock()
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._new = 0
        self._not_before = 0.0
        self._asked_to_wait = False
        self._urgent = False
        self._last_resort = False
        self._in_a_row = 0  # failures
        self._size = BatchSize(self._batch_size)
        self._suspects = Suspects()
        self._unmarked: list[tuple[FileIdentity, list[int]]] = []
        self._pruned_to = 0  # the id up to which nothing more is to be pruned now
        self._prune_at = 0.0
        self._trouble = ""
        self._exported = self._dead = self._pruned = self._failures = 0

    @property
    def counts(self) -> ExportCounts:
        """What this process's thread has done."""
        return ExportCounts(self._exported, self._dead, self._pruned, self._failures)

    def start(self) -> None:
        """Start the thread, if it does not run."""
        with self._starting:
            if not self._stopped and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="ledger-drain", daemon=True)
                self._thread.start()

    def span_written(self) -> None:
        """Another one waits. A full batch is sent at once."""
        if self._thread is None:
            self.start()
        self._new += 1
        if self._new >= self._batch_size:
            self._new = 0
            self._awake.set()

    def flush(self, seconds: float) -> bool:
        """Try at once; True when everything that waits now was confirmed within ``seconds``."""
        deadline = time.monotonic() + seconds
        if not self._until(self._nothing_in_memory, deadline - seconds / 2):
            self._last_resort = True  # the file has had its time: now they are sent from memory
            try:
                if not self._until(self._nothing_in_memory, deadline):
                    return False
            finally:
                self._last_resort = False
        pending, dead_before = self._standing(0, _LAST_ID)
        if pending is None:
            return True
        first, last = pending
        confirmed = self._until(lambda: self._standing(first, last)[0] is None, deadline)
        return confirmed and self._standing(first, last)[1] == dead_before

    def _nothing_in_memory(self) -> bool:
        return not self._writer.counts.waiting

    def _until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Hurry the thread until ``condition`` holds; False when it did not by ``deadline``."""
        while not condition():
            if self._stopped or time.monotonic() >= deadline:
                return False
            self.start()
            self._urgent = True
            self._awake.set()
            time.sleep(_FLUSH_POLL_SECONDS)
        return True

    def stop(self, seconds: float) -> None:
        """Send what can be sent within ``seconds``, and end. The rest stays in the file."""
        self._stop_at = time.monotonic() + seconds
        self._stopped = True
        self._awake.set()
        if self._thread is not None:
            self._thread.join(seconds + 1.0)  # a request under way may take longer; it is left to itself
        if self._sender is not None:
            self._sender.shutdown()
        with self._reading:
            self._disconnect()
        self._lock_file.release()

    def before_fork(self) -> None:
        """No connection crosses a fork."""
        self._reading.acquire()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._reading.release()

    def after_fork_in_child(self) -> None:
        """Begin anew; the thread starts with the first span."""
        self._lock_file.release()
        self._forget()
        if self._sender is not None:
            self._sender.after_fork()

    # The thread.

    def _run(self) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # our own requests are nobody's spans
        stopping = False
        while not stopping:
            self._awake.wait(self._delay_seconds)
            self._awake.clear()
            stopping = self._stop_at < float("inf")
            try:
                self._tick()
            except Exception as error:  # the thread must go on: it is the only one that sends
                if is_broken(error) and self._identity is not None:
                    self._writer.replace_broken(self._identity, str(error))
                self._report(f"{type(error).__name__}: {error}")

    def _tick(self) -> None:
        self._new = 0
        self._writer.recover()
        if self._sender is not None:
            if self._urgent and not self._asked_to_wait:
                self._not_before = 0.0
            self._urgent = False
            while self._may_send() and self._export_unwritten(self._sender):
                pass
            if self._holds_lock():
                while self._may_send() and self._send_next(self._sender):
                    self._shorten_log()  # a backlog may take hours
                self._try_suspects(self._sender)
        self._shorten_log()
        self._prune_some()

    def _may_send(self) -> bool:
        return self._not_before <= time.monotonic() < self._stop_at

    def _holds_lock(self) -> bool:
        """True when it falls to this process to send what is in the file."""
        try:
            return self._lock_file.take()
        except OSError:  # a folder that cannot be written: nor can the file in it
            return False

    def _send_next(self, sender: Sender) -> bool:
        """Send one batch; True when another is to follow at once. What is left after a full one waits for more."""
        if not self._mark_all():
            return False
        file, batch, more = self._next_batch()
        if file is None or not batch:
            return False
        if self._suspects.sifting:
            return self._sift(sender, file, batch)
        began = time.monotonic()
        if not all(self._settle(file, part, answer) for part, answer in deliver(sender, batch)):
            return False
        self._size.delivered(len(batch), time.monotonic() - began)
        return more

    def _settle(self, file: FileIdentity, part: list[Payload], answer: Accepted | Refused | Unavailable) -> bool:
        """What ``answer`` means for ``part``: confirmed or set aside; False when that has to wait."""
        ids = [payload.id for payload in part]
        match answer:
            case Accepted():
                self._succeeded()
                self._exported += len(part)
                self._unmarked.append((file, ids))
                return self._mark_all()
            case Refused(reason):
                self._succeeded()
                return self._set_aside(file, ids, reason)
            case Unavailable():
                self._pause(answer)
                return False

    def _set_aside(self, file: FileIdentity, ids: list[int], reason: str) -> bool:
        if not self._dead:
            _log.error("the collector refuses spans for good (%s); they stay as dead letters", reason)
        self._dead += len(ids)
        return self._writer.set_aside(file, ids, reason)

    def _sift(self, sender: Sender, file: FileIdentity, batch: list[Payload]) -> bool:
        """Send a batch that has failed again and again in parts, to learn whether a span of it is to blame."""
        before, alone, failure = self._exported, [], None
        for part, answer in sift(sender, batch):
            if not (isinstance(answer, Unavailable) and answer.doubtful):
                if not self._settle(file, part, answer):
                    return False
                continue
            failure = answer
            if len(part) == 1:
                alone.append((part[0], answer.reason, self._exported))
        if failure is not None and self._exported == before:
            self._pause(failure)  # nothing was taken: it is the collector
            return False
        for payload, reason, exported in alone:
            _log.error("the collector fails over one span alone (%s); it goes by itself from now on", reason)
            self._suspects.accuse(payload, reason, exported)
        return True

    def _try_suspects(self, sender: Sender) -> None:
        """Send each span under suspicion by itself, when its turn has come."""
        if (file := self._identity) is None:
            return
        for suspect in self._suspects.due(self._exported):
            payload = suspect.payload
            if not self._may_send():
                return
            if suspect.convicted:
                reason = f"{suspect.reason} (alone, {suspect.trials} times, while others were taken)"
                if not self._set_aside(file, [payload.id], reason):
                    return
                self._suspects.dismiss(payload)
                continue
            for part, answer in deliver(sender, [payload]):
                if isinstance(answer, Unavailable) and answer.doubtful:
                    self._suspects.accuse(payload, answer.reason, self._exported)
                    continue
                if not isinstance(answer, Unavailable):
                    self._suspects.dismiss(payload)
                if not self._settle(file, part, answer):
                    return

    def _mark_all(self) -> bool:
        """Mark what was confirmed. While that cannot be written nothing more is sent, or it would go twice."""
        while self._unmarked:
            if not self._writer.confirm(*self._unmarked[0]):
                return False
            del self._unmarked[0]
        return True

    def _export_unwritten(self, sender: Sender) -> bool:
        """Send what waits in memory for a broken disk: when much does, and at the last moment. True when some was
        sent."""
        batch = self._writer.waiting(self._batch_size) if self._writer.trouble is not None else []
        last_moment = self._last_resort or self._stopped
        if not batch or (len(batch) < self._batch_size and not last_moment):
            return False
        payloads = [Payload(number, span.scope, span.envelope, span.otlp) for number, span in enumerate(batch)]
        for part, answer in deliver(sender, payloads):
            if isinstance(answer, Unavailable):
                self._pause(answer)
                return False
            self._succeeded()
            accepted = isinstance(answer, Accepted)
            self._exported += len(part) if accepted else 0
            self._writer.settle_unwritten(len(part), accepted=accepted)
        return True

    def _pause(self, answer: Unavailable) -> None:
        self._failures += 1
        first = _MISDIRECTED_PAUSE_SECONDS if answer.misdirected else _FIRST_PAUSE_SECONDS
        wait = min(first * 2 ** min(self._in_a_row, 16), _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
        self._asked_to_wait = answer.retry_after is not None
        if answer.retry_after is not None:
            wait = min(answer.retry_after, _LONGEST_ASKED_SECONDS)
        self._in_a_row += 1
        self._size.failed()
        self._suspects.batch_failed(doubtful=answer.doubtful)
        self._not_before = time.monotonic() + wait
        self._report(answer.reason)
        if self._writer.trouble is None:
            self._writer.note_failure(answer.reason)

    def _report(self, trouble: str) -> None:
        if not self._trouble:
            _log.error("spans cannot be exported now (%s); they wait in the ledger %s", trouble, self._path)
        self._trouble = trouble

    def _succeeded(self) -> None:
        if self._trouble:
            _log.warning("spans are exported again; the last trouble was: %s", self._trouble)
        self._trouble, self._in_a_row, self._asked_to_wait = "", 0, False
        self._suspects.batch_taken()

    # The file.

    def _connected(self) -> sqlite3.Connection | None:
        now = identity(self._path)
        if self._connection is None or now != self._identity:
            self._disconnect()
            self._identity = now
            if now is None or (opened := open_beside_writer(self._path)) is None:
                return None
            self._connection = opened
            self._pruned_to = 0
            self._suspects = Suspects()  # ids of another file
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _next_batch(self) -> tuple[FileIdentity | None, list[Payload], bool]:
        """The file, its oldest spans that are to be sent together, and whether there are more."""
        batch: list[Payload] = []
        size, more = 0, True
        with self._reading:
            if (connection := self._connected()) is None:
                return None, [], False
            file = self._identity
            limit = self._size.now + len(self._suspects)
            rows = connection.execute(_NEXT, (limit + 1,))
            for id_, scope, envelope, otlp in rows:
                if id_ in self._suspects:
                    if batch:
                        break  # a batch is all that the outbox holds from its first to its last
                    continue
                size += len(otlp or b"")
                if batch and (size > _MAX_REQUEST_BYTES or len(batch) == self._size.now):
                    break
                batch.append(Payload(id_, scope or 0, envelope or b"", otlp or b""))
            else:
                more = False
            rows.close()
        return file, batch, more

    def _standing(self, first: int, last: int) -> tuple[tuple[int, int] | None, int]:
        """The first and last id that the outbox holds from ``first`` to ``last``, or None; and how many dead letters
        there are."""
        with self._reading:
            if self._sender is None or (connection := self._connected()) is None:
                return None, 0
            low, high = connection.execute(
                "SELECT min(id), max(id) FROM outbox WHERE id BETWEEN ? AND ?", (first, last)
            ).fetchone()
            (dead,) = connection.execute(
                "SELECT count(*) FROM dead_letters WHERE id BETWEEN ? AND ?", (first, last)
            ).fetchone()
        return (None if low is None else (low, high)), dead

    def pending(self) -> int:
        """How many spans are in the outbox, whoever wrote them."""
        with self._reading:
            if (connection := self._connected()) is None:
                return 0
            return int(connection.execute("SELECT count(*) FROM outbox").fetchone()[0])

    def lost_calls(self) -> int:
        """How many calls have begun and can have no record any more, whichever process noted them."""
        with self._reading:
            if (connection := self._connected()) is None:
                return 0
            return calls_without_record(connection)[1]

    def _shorten_log(self) -> None:
        with self._reading:
            if (connection := self._connected()) is not None:
                shorten(connection, self._path)

    def _prune_some(self) -> None:
        """Prune what is old enough, a little at a time."""
        if time.monotonic() < self._prune_at:
            return
        for _ in range(_PRUNE_STEPS):
            if not self._prune():
                self._prune_at = time.monotonic() + _PRUNE_EVERY_SECONDS
                return

    def _prune(self) -> bool:
        """One step; True when there may be more."""
        with self._reading:
            if (connection := self._connected()) is None or (file := self._identity) is None:
                return False
            limit = time.time_ns() - self._keep_ns
            found = old_spans(connection, self._pruned_to, limit)
        if not found.ids or not self._writer.delete(file, found.ids):
            self._pruned_to = 0
            self._writer.forget_processes(file, limit)
            return False
        self._pruned_to = found.last
        self._pruned += len(found.ids)
        return True
