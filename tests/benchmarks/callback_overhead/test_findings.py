"""What is concluded from blocks: costs, targets, a planted regression, and what makes a result worthless."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.callback_overhead.findings import CALLS, IMPORT, MEMORY, evaluate
from benchmarks.callback_overhead.measure import BENCHMARK
from benchmarks.callback_overhead.names import (
    ARMS,
    NONE,
    NOOP,
    OTHERS,
    OTHERS_ARMS,
    OURS,
    OURS_AGAIN,
    OURS_PARTS,
    OURS_SLOWER,
)
from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.results import RESULTS, load_result
from benchmarks.harness.rounds import Sample
from benchmarks.harness.targets import MET, MISSED

BASE = 1300.0  # microseconds of a call
HOOKS = {
    **{"noop": 2.0, "noop_again": 2.0, "bare_span": 42.0, "json_line": 22.0, "naive": 422.0},
    **{"otel_v1": 402.0, "otel_v2": 452.0},
    **dict.fromkeys((OURS, OURS_AGAIN, OURS_PARTS), 72.0),
    **{OURS_SLOWER: 79.0, "ours_batch": 80.0, "ours_durable": 160.0, "ours_simple": 902.0},
}


def samples(rounds: int = 20, noise: float = 0.01, **hooks: float) -> list[Sample]:
    """Blocks of 10 calls whose hooks take what `HOOKS` says, or ``hooks``, within ``noise``."""
    chance = np.random.default_rng(7)
    taken = HOOKS | hooks
    found: list[Sample] = []
    for number in range(rounds):
        for mode, arms in ARMS.items():
            for arm in arms:
                factor = chance.normal(1, noise)
                own = taken.get(arm, 0.0)
                block: Sample = {"part": CALLS, "round": number, "mode": mode, "arm": arm, "calls": 10}
                block |= {"records": None if arm == NONE else 10, "seconds": (BASE + own) * factor * 1e-5}
                block |= {"process_cpu_seconds": (BASE + own) * factor * 1e-5, "others_cores": 0.01}
                if arm != NONE:
                    block |= {"hooks_cpu_seconds": own * factor * 1e-5, "hooks_before_cpu_seconds": 1e-5}
                if arm == OURS_PARTS:
                    parts = {"record": 20.0, "attributes": 5.0, "span": 45.0}
                    block |= {f"{name}_cpu_seconds": part * factor * 1e-5 for name, part in parts.items()}
                found.append(block)
    return found


def measured(found: list[Sample], *, short: bool = False) -> Measurement:
    setting = {"attributes": 31}
    return evaluate(found, setting=setting, left_out={"the proxy": "no time"}, short=short)


def test_costs_are_beyond_hooks_that_do_nothing() -> None:
    costs: Any = measured(samples()).summary["microseconds_per_call"]["async"]
    assert costs["naive"]["hooks_cpu"]["median"] == pytest.approx(420, rel=0.02)
    assert costs[NOOP]["hooks_cpu"]["median"] == 0
    assert costs["naive"]["process_cpu_beyond_noop"]["median"] == pytest.approx(420, rel=0.1)
    assert "hooks_cpu" not in costs[NONE]


def test_targets_are_met_or_missed_and_say_by_how_much() -> None:
    result = measured(samples())
    targets: Any = result.summary["targets"]
    assert {name: target["verdict"] for name, target in targets.items()} == {
        "hooks_cpu_ours_over_bare_span": MET,
        "hooks_cpu_naive_over_ours": MET,
        "hooks_cpu_otel_v1_over_ours": MET,
        "hooks_cpu_otel_v2_over_ours": MET,
        "hooks_cpu_simple_over_batch": MET,
    }
    slow = measured(samples(**dict.fromkeys((OURS, OURS_AGAIN), 130.0)))
    targets = slow.summary["targets"]
    assert targets["hooks_cpu_ours_over_bare_span"]["verdict"] == MISSED
    assert targets["hooks_cpu_naive_over_ours"]["verdict"] == MISSED
    assert "target at most 2: missed by a factor of 1.6" in slow.findings[0]


@pytest.mark.parametrize("tenth", [79.0, 65.0])
def test_a_planted_tenth_is_detected(tenth: float) -> None:
    result = measured(samples(**{OURS_SLOWER: tenth}))
    assert result.summary["planted"]["detected"] is True
    assert any("it was noticed" in finding for finding in result.findings)


def test_a_planted_no_change_is_not_detected() -> None:
    result = measured(samples(**{OURS_SLOWER: HOOKS[OURS]}))
    assert result.summary["planted"]["detected"] is False
    assert any("it was NOT noticed" in finding for finding in result.findings)


def test_a_tenth_drowns_in_noise() -> None:
    assert measured(samples(noise=0.2)).summary["planted"]["detected"] is False


def test_the_parts_add_up_to_the_whole() -> None:
    breakdown: Any = measured(samples(noise=0.0)).summary["breakdown"]
    assert {name: round(part["median"], 3) for name, part in breakdown.items()} == {
        "before_the_call": 0.0,
        "record": 20.0,
        "attributes": 5.0,
        "span": 40.0,
        "rest": 5.0,
    }


def test_a_sound_measurement_has_no_fault() -> None:
    result = measured(samples())
    assert result.faults == []
    assert result.caveats == ["not measured: the proxy: no time"]


def test_the_same_samples_say_the_same() -> None:
    assert measured(samples()) == measured(samples())


def test_a_missing_record_is_a_fault() -> None:
    """A callback that LiteLLM could not call costs nothing, and looks best of all."""
    found = samples()
    victim = next(sample for sample in found if sample["arm"] == OURS and sample["round"] == 3)
    victim["records"] = 0
    assert measured(found).faults == [f"calls, round 3, {victim['mode']}, ours: 0 records of 10 calls"]


@pytest.mark.parametrize(
    ("found", "short", "fault"),
    [
        (samples(rounds=19), False, "19 rounds are too few: an interval needs at least 20"),
        (samples(), True, "a short measurement, to see what happens"),
        (samples(**{OURS_AGAIN: 60.0}), False, "the A/A comparison of hooks cpu should contain 1"),
        ([{**sample, "others_cores": 0.5} for sample in samples()], False, "busy machine: others used 0.50 cores"),
    ],
)
def test_what_is_not_for_quoting(found: list[Sample], short: bool, fault: str) -> None:
    (only,) = measured(found, short=short).faults
    assert only.startswith(fault)


def test_the_other_parts_are_told() -> None:
    found = samples()
    for number in range(20):
        for arm in OTHERS_ARMS:
            cpu = (BASE + (300.0 if arm in OTHERS else 70.0 if arm == OURS else 0.0)) * 1e-5
            own = {"hooks_cpu_seconds": 7e-4, "hooks_before_cpu_seconds": 0.0} if arm not in (NONE, *OTHERS) else {}
            block: Sample = {"part": "others", "round": number, "mode": "async", "arm": arm, "calls": 10, "records": 10}
            found.append({**block, "seconds": cpu, "process_cpu_seconds": cpu, **own})
    memory = [(25_000, 8_000_000), (62_500, 20_000_000), (100_000, 20_000_000)]
    found += [{"part": MEMORY, "arm": OURS, "calls": calls, "grown_bytes": grown} for calls, grown in memory]
    found += [
        {"part": IMPORT, "run": run, "what": "litellm", "cpu_seconds": 2.0 + run, "wall_seconds": 3.0}
        for run in range(3)
    ]
    result = measured(found)
    costs: Any = result.summary["microseconds_per_call"]
    assert costs["others_async"]["openlit"]["process_cpu_beyond_none"]["median"] == pytest.approx(300)
    assert result.summary["memory"][OURS]["mib_per_million_calls"] == pytest.approx(20_000_000 / 2**20)
    assert result.summary["imports"]["litellm"]["cpu_seconds"]["median"] == 3000


def test_stored_results_say_what_their_samples_say(says_the_same: Any) -> None:
    for path in sorted(RESULTS.glob("*/*-callback_overhead*.json")):
        stored = load_result(path)
        summary: Any = stored.summary
        # What a callback costs the proxy is asked by the benchmark of throughput now.
        summary["microseconds_per_call"].pop("proxy", None)
        summary["equal_things"].pop("proxy_cpu", None)
        told = {"setting": summary["setting"], "left_out": summary["left_out"]}
        says_the_same(stored, evaluate(stored.samples, short=False, **told), BENCHMARK)
