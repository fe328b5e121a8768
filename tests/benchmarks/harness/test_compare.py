"""Comparing two results: what is refused, and that a planted change is seen and a planted no-change isn't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness.comparable import NotComparable, circumstances, require_comparable
from benchmarks.harness.compare import Compared, compare, headline
from benchmarks.harness.results import Code, Result, Validity, load_result, replicates, write_result
from benchmarks.harness.statistics import median_interval, paired_ratio, resolution

Make = Callable[..., Result]


@pytest.fixture
def make(result: Result) -> Make:
    """A result of 20 rounds whose handler takes ``microseconds`` where its floor takes 20, with 1.5 % of noise."""

    def make(microseconds: float = 60.0, seed: int = 1, clock: float = 1.0, **changes: Any) -> Result:
        noise = np.random.default_rng(seed)

        def rounds(value: float) -> list[float]:
            return [float(value * clock * factor) for factor in noise.normal(1, 0.015, 20)]

        floor, handler, again = rounds(20.0), rounds(microseconds), rounds(microseconds)
        summary = {
            "handler_cpu": asdict(median_interval(handler)),
            "handler_cpu_over_floor": asdict(paired_ratio(handler, floor)),
            "equal_things": {"handler_cpu": asdict(paired_ratio(handler, again))},
        }
        return result.model_copy(update={"summary": summary, **changes})

    return make


@pytest.mark.parametrize("seed", range(2, 12))
def test_a_planted_no_change_is_reproduced(make: Make, seed: int) -> None:
    comparison = compare(make(), make(seed=seed))
    assert comparison.reproduced
    assert "1 of 1 ratios are reproduced" in comparison.sentences()[0]


@pytest.mark.parametrize(("microseconds", "way"), [(66.0, "higher"), (54.0, "lower")])
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_planted_tenth_is_detected(make: Make, microseconds: float, way: str, seed: int) -> None:
    comparison = compare(make(), make(microseconds, seed))
    assert not comparison.reproduced
    assert f"% {way}, beyond both intervals" in comparison.sentences()[1]


def test_a_slower_clock_moves_absolute_numbers_and_no_ratio(make: Make) -> None:
    comparison = compare(make(), make(seed=2, clock=1.3))
    assert comparison.reproduced
    (absolute,) = (quantity for quantity in comparison.quantities if not quantity.is_ratio)
    assert absolute.direction == 1


def test_nothing_smaller_than_the_noise_is_claimed(make: Make) -> None:
    null = asdict(paired_ratio([1.1, 1.5, 0.9] * 5, [1.0] * 15))
    slower = make(66.0, 2)
    noisy = slower.model_copy(update={"summary": {**slower.summary, "equal_things": {"handler_cpu": null}}})
    assert compare(make(), noisy).reproduced


def test_runs_that_are_the_same_differ_in_one_comparison_of_twenty_at_most() -> None:
    source = np.random.default_rng(1)
    differing = 0
    for _ in range(300):
        null = resolution(paired_ratio(*np.exp(source.normal(0, 0.1, (2, 20))).tolist(), comparisons=15))
        pairs = np.exp(source.normal(0, 0.14, (15, 2, 20)))
        both = [[paired_ratio(one.tolist(), [1.0] * 20, comparisons=15) for one in pair] for pair in pairs]
        differing += any(Compared("", first, second, null, True).direction for first, second in both)
    assert differing <= 15


def test_ranges_decide_nothing(make: Make) -> None:
    few = asdict(paired_ratio([3.0, 3.1, 3.2], [1.0, 1.0, 1.0]))
    first, second = (make(microseconds, seed) for microseconds, seed in ((60.0, 1), (90.0, 2)))
    for result in (first, second):
        result.summary["startup_over_floor"] = few
    assert "startup_over_floor: 3.1 (range of 3: 3 to 3.2)" in " ".join(compare(first, second).sentences())
    assert "0 of 1 ratios are reproduced" in compare(first, second).sentences()[0]
    for result in (first, second):
        result.summary["handler_cpu_over_floor"] = few
    with pytest.raises(NotComparable, match="often enough"):
        compare(first, second)


def test_entries_of_a_list_are_known_by_their_words_and_held_against_the_null_beside_them(make: Make) -> None:
    def entry(arm: str, low: float, repeats: int) -> dict[str, Any]:
        ratio, null = (paired_ratio([at] * 12, [1.0] * 12) for at in (low, 1.0))
        return {"arm": arm, "concurrency": 8, "repeats": repeats, "ratio": asdict(ratio), "null": asdict(null)}

    def measured(*entries: dict[str, Any]) -> Result:
        return make(summary={"comparisons": list(entries)})

    first = measured(entry("batch", 0.9, 12), entry("durable", 0.8, 12))
    second = measured(entry("durable", 0.8, 14), entry("batch", 0.5, 14))
    told = {one.name: one.direction for one in compare(first, second).quantities}
    assert told == {"comparisons.batch 8.ratio": -1, "comparisons.durable 8.ratio": 0}


def at_hour(result: Result, hour: int) -> Result:
    return result.model_copy(update={"started": result.started.replace(hour=hour), "run_id": f"{hour:032x}"})


def test_a_headline_has_the_spread_between_runs_of_different_hours(make: Make, tmp_path: Path) -> None:
    for hour, microseconds in ((1, 60.0), (5, 63.0), (9, 57.0)):
        write_result(at_hour(make(microseconds, hour), hour), tmp_path)
    write_result(at_hour(make(60.0, 2, parameters={"rounds": 2}), 11), tmp_path)
    slower = at_hour(make(63.0, 7), 5).model_copy(update={"run_id": "f" * 32})
    path = write_result(slower, tmp_path)  # of an hour that is there
    runs = replicates(load_result(path), tmp_path)
    assert [run.started.hour for run in runs] == [1, 5, 9]
    found = headline("handler_cpu_over_floor", runs)
    single = headline("handler_cpu_over_floor", runs[:1])
    assert found.interval.low < 2.85 < 3.15 < found.interval.high
    assert single.interval.high - single.interval.low < (found.interval.high - found.interval.low) / 2
    assert "(3 runs between 2026-11-23 01:00 and 2026-11-23 09:00; " in str(found)
    assert "of one run, 2026-11-23 01:00: runs may differ by more" in str(single)
    agreeing = [at_hour(make(60.0, seed), seed) for seed in (1, 2, 3)]
    assert str(headline("handler_cpu_over_floor", agreeing)).endswith("; they agree)")
    moved = [*agreeing[:2], at_hour(make(90.0, 3), 3)]
    assert str(headline("handler_cpu_over_floor", moved)).endswith("; 2 of 3 pairs of them differ)")
    with pytest.raises(NotComparable, match="not every result"):
        headline("other", runs)


def test_a_difference_comes_with_what_may_explain_it(make: Make) -> None:
    validity = Validity(valid=False, reasons=["busy machine"], caveats=[])
    second = make(
        66.0, 2, packages={"litellm": "1.107.0"}, parameters={"rounds": 10, "seconds": 1.5}, validity=validity
    )
    assert circumstances(make(), second) == [
        "parameter rounds: 20, then 10",
        "litellm: 1.106.2, then 1.107.0",
        "the second is not for quoting: busy machine",
    ]


def other_machine(result: Result, **changes: Any) -> Result:
    return result.model_copy(update={"machine": result.machine.model_copy(update=changes)})


MIXES: dict[str, Callable[[Result], Result]] = {
    "benchmarks": lambda result: result.model_copy(update={"benchmark": "another"}),
    "schema versions": lambda result: result.model_copy(update={"schema_version": 2}),
    "machines": lambda result: other_machine(result, label="8-core-example"),
    "benchmark code (sha256)": lambda result: result.model_copy(
        update={"code": Code(commit="a" * 40, dirty=False, sha256="c" * 64)}
    ),
}


@pytest.mark.parametrize("what", MIXES)
def test_mixed_results_are_refused(make: Make, what: str) -> None:
    with pytest.raises(NotComparable) as refused:
        require_comparable([make(), make(), MIXES[what](make())])
    assert f"different {what} cannot be compared" in str(refused.value)


def test_another_processor_under_the_same_label_is_another_machine(make: Make) -> None:
    with pytest.raises(NotComparable, match="different machines"):
        compare(make(), other_machine(make(), cpu_model="Another"))


@pytest.mark.parametrize("summary", [{}, {"equal_things": {}}])
def test_without_its_noise_nothing_is_compared(make: Make, summary: dict[str, Any]) -> None:
    with pytest.raises(NotComparable, match="the second result holds no A/A comparison"):
        compare(make(), make(summary=summary))


def test_without_a_common_ratio_nothing_is_compared(make: Make) -> None:
    summary = {"equal_things": make().summary["equal_things"]}
    with pytest.raises(NotComparable, match="hold no ratio that both have measured often enough"):
        compare(make(), make(summary=summary))


# Through the command line, as a reader meets it.


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert command_line.main(list(words)) == 1
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


def test_exit_codes(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, same, slower = (str(write_result(one, tmp_path)) for one in (make(), make(seed=2), make(66.0, 3)))
    assert command_line.main(["compare", first, same]) == 0
    assert "DIFFERS" not in capsys.readouterr().out
    assert command_line.main(["compare", first, slower]) == command_line.DIFFERS
    assert "DIFFERS: handler_cpu_over_floor" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["benchmarks", "machines", "benchmark code (sha256)"])
def test_mixed_files_are_refused(make: Make, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, other = write_result(make(), tmp_path), write_result(MIXES[what](make()), tmp_path)
    assert f"different {what}" in refusal(capsys, "compare", str(first), str(other))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def tampered(path: Path) -> None:
    path.write_text(path.read_text().replace('"dirty": false', '"dirty": true'))


def of_another_schema(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))


DAMAGE = [
    (truncated, "truncated or damaged"),
    (tampered, "changed since it was written"),
    (of_another_schema, "schema version 2, and this code reads 1"),
    (Path.unlink, "No such file"),
]


@pytest.mark.parametrize(("damage", "why"), DAMAGE, ids=[why for _, why in DAMAGE])
@pytest.mark.parametrize("command", ["compare", "render"])
def test_a_damaged_file_is_refused(
    command: str,
    damage: Callable[[Path], None],
    why: str,
    make: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, bad = write_result(make(), tmp_path), write_result(make(), tmp_path)
    damage(bad)
    words = [command, str(good), str(bad)] if command == "compare" else [command, str(bad)]
    told = refusal(capsys, *words)
    assert why in told
    assert bad.name in told
