"""Shared by the tests of processors: what became of the records of calls through the proxy."""

from __future__ import annotations

import pytest

from benchmarks.harness.rounds import Sample
from benchmarks.processors.names import AWAY, BATCH, DURABLE, KILL, SIMPLE


@pytest.fixture
def survival_samples() -> list[Sample]:
    """Two scenarios of 1,000 calls: the proxy is killed, and the collector is away."""
    quiet = {"pending": 0, "duplicates": 0, "settled": True, "seconds_to_rest": 1.5, "others_cores": 0.01}
    killed = {"scenario": KILL, "failed": {"disconnected": 16}, "produced": 984, "served_by_mock": 990}
    killed |= quiet | {"outage_seconds": None, "outage_ms": [], "pending_after_outage": None}
    away = {"scenario": AWAY, "failed": {}, "produced": 1000, "served_by_mock": 1000, "pending_after_outage": None}
    away |= quiet | {"outage_seconds": 5.0, "outage_ms": [80.0] * 496 + [900.0] * 4}
    few = {"outage_seconds": 60.0, "outage_ms": [7000.0] * 6, "failed": {"HTTP 500": 10}, "produced": 990}
    return [
        {**killed, "processor": SIMPLE, "exported": 984, "dropped": 0, "noticed": 0},
        {**killed, "processor": BATCH, "exported": 700, "dropped": 284, "noticed": 0},
        {**killed, "processor": DURABLE, "exported": 980, "dropped": 4, "noticed": 4, "pending_after_outage": 150},
        {**away, "processor": SIMPLE, "exported": 984, "dropped": 6, "noticed": 0, **few},
        {**away, "processor": BATCH, "exported": 500, "dropped": 500, "noticed": 0},
        {**away, "processor": DURABLE, "exported": 1000, "dropped": 0, "noticed": 0, "pending_after_outage": 500},
    ]
