"""Blocks in rounds: their order, their pairs, and what is stored and said of them."""

from __future__ import annotations

import json

import pytest

from benchmarks.harness.faults import busy, too_few, uneven
from benchmarks.harness.rounds import Rounds, Sample, in_rounds, number, per, stored
from benchmarks.harness.targets import MET, MISSED, UNDECIDED, Target

SAMPLES: list[Sample] = [
    {"round": number, "arm": arm, "seconds": seconds * (1 + number / 10), "calls": 2, "others_cores": 0.5}
    for number in (*range(5, 12), 2, 0, 1, 3, 4)
    for arm, seconds in (("slow", 6e-6), ("fast", 2e-6), ("again", 2e-6))
]
EACH = per("seconds", "calls")


@pytest.fixture
def rounds() -> Rounds:
    return Rounds(SAMPLES, "arm")


def test_every_block_is_in_each_round_and_orders_differ() -> None:
    blocks = list("abcdefgh")
    plan = list(in_rounds(blocks, 3, seed=1))
    orders = [[block for at, block in plan if at == number] for number in range(3)]
    assert [sorted(order) for order in orders] == [blocks] * 3
    assert len({tuple(order) for order in orders}) == 3
    assert plan == list(in_rounds(blocks, 3, seed=1))


def test_pairs_are_of_one_round(rounds: Rounds) -> None:
    assert rounds.count == 12
    assert rounds.each("fast", EACH)[:3] == pytest.approx([1.0, 1.1, 1.2])
    assert rounds.ratio("slow", "fast", EACH).median == pytest.approx(3)
    assert rounds.difference("slow", "fast", EACH).median == pytest.approx(3.1)
    assert Rounds(SAMPLES, "arm", "calls").groups.keys() >= {("slow", 2)}


def test_what_is_stored_is_json(rounds: Rounds) -> None:
    null = rounds.ratio("again", "fast", EACH)
    target = Target("it", rounds.interval("slow", EACH), 3.0, null)
    held = json.loads(json.dumps(stored({"targets": {"it": target}, "pair": (null, 1)})))
    assert held["targets"]["it"]["measured"]["median"] == pytest.approx(4.65)
    assert held["pair"][1] == 1


@pytest.mark.parametrize(("limit", "at_most", "verdict"), [(9, True, MET), (9, False, MISSED), (4.6, True, UNDECIDED)])
def test_a_target_is_met_beyond_the_interval_only(rounds: Rounds, limit: float, at_most: bool, verdict: str) -> None:
    null = rounds.ratio("again", "fast", EACH)
    target = Target("it", rounds.interval("slow", EACH), limit, null, at_most)
    assert target.verdict == verdict
    assert target.sentence().startswith(f"it: {number(target.measured)}; target {'at most' if at_most else 'at least'}")


def test_reasons_not_to_quote(rounds: Rounds) -> None:
    (told,) = busy(SAMPLES)
    assert told.startswith("busy machine: others used 0.50 cores while it was measured")
    assert busy([{"others_cores": None}]) == []
    assert too_few(3, 10) == ["3 rounds are too few: an interval needs at least 10"]
    assert uneven({"a_b": rounds.ratio("again", "fast", EACH)}) == []
    (uneven_told,) = uneven({"a_b": rounds.ratio("slow", "fast", EACH)})
    assert uneven_told.startswith("the A/A comparison of a b should contain 1")
