"""One record per call: repetitions recognised, failures that were retried left out, nothing kept for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from otel_cost_logger.once import PendingFailures, Seen
from otel_cost_logger.pricing import Cost
from otel_cost_logger.progress import Progress
from otel_cost_logger.record import CallRecord, build_record


@pytest.fixture
def record(make_call: Any) -> CallRecord:
    return build_record(make_call(), None, None, None, failed=True, behind_proxy=True)


def test_a_second_report_of_the_same_call_is_not_new(record: CallRecord) -> None:
    seen = Seen()
    assert seen.first_time(record)
    assert not seen.first_time(record._replace())


def test_two_calls_under_one_id_are_two_calls(record: CallRecord) -> None:
    """The id can be chosen by the caller; reusing one must not make the second call free."""
    seen = Seen()
    assert seen.first_time(record)
    assert seen.first_time(record._replace(start_ns=record.start_ns + 1))


def test_exactly_one_of_many_threads_is_first(record: CallRecord) -> None:
    seen = Seen()
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(seen.first_time, [record] * 400)) == 1


def test_memory_is_bounded(record: CallRecord) -> None:
    seen = Seen(capacity=10)
    for number in range(100):
        seen.first_time(record._replace(call_id=str(number)))
    assert not seen.first_time(record._replace(call_id="99"))
    assert seen.first_time(record._replace(call_id="0"))


def test_a_held_failure_is_given_out_once(record: CallRecord) -> None:
    pending = PendingFailures()
    assert pending.hold("key", record, Progress()) is None
    assert pending.overdue() == []
    assert pending.settle("key") is record
    assert pending.settle("key") is None


def test_a_failure_that_nobody_settles_is_overdue_in_the_end(record: CallRecord) -> None:
    pending = PendingFailures(wait_seconds=0.0)
    pending.hold("key", record, Progress())
    assert pending.overdue() == [record]
    assert pending.overdue() == []


def test_a_displaced_failure_is_not_lost(record: CallRecord) -> None:
    pending = PendingFailures()
    other = record._replace(start_ns=record.start_ns + 1)
    pending.hold("key", record, Progress())
    assert pending.hold("key", other, Progress()) is record
    assert pending.overdue(everything=True) == [other]


def test_a_failure_is_given_out_with_its_calls_attempts(record: CallRecord) -> None:
    """What the later attempts made the engine do nobody has counted."""
    pending, progress = PendingFailures(), Progress(attempts=1)
    pending.hold("key", record._replace(cost=Cost(0, "not_charged", None)), progress)
    progress.attempts = 3
    final = pending.settle("key")
    assert final is not None
    assert (final.attempts, final.cost_source) == (3, "unknown")
