"""Findings about span processors: planted costs are found, targets are met or missed as planted, faults are told; and
the figure shows what was found."""

from __future__ import annotations

import random
from typing import Any

import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from benchmarks.harness.results import RESULTS, Result, Validity, load_result
from benchmarks.span_processors.figure import draw
from benchmarks.span_processors.findings import (
    ARMS,
    BATCH,
    BATCH_AGAIN,
    DRAIN,
    DRAIN_AGAIN,
    DRAIN_ARMS,
    DURABLE,
    DURABLE_AGAIN,
    DURABLE_FULL,
    DURABLE_NOTED,
    EXPORTER,
    MET,
    MISSED,
    SIMPLE,
    UNDECIDED,
    Sample,
    evaluate,
)

SETTING = {"protocol": "http/protobuf", "attributes": 39, "bytes": 1439}
SPANS = 1000
# Microseconds of a span: the caller's CPU and wall time in on_end, and the CPU time of the process in all.
COSTS = {SIMPLE: (500, 900, 510), BATCH: (1, 2, 60), DURABLE: (50, 80, 70), DURABLE_FULL: (90, 400, 150)}
COSTS |= {BATCH_AGAIN: COSTS[BATCH], DURABLE_AGAIN: COSTS[DURABLE], DURABLE_NOTED: (55, 90, 110)}
RATES = {DRAIN: 60_000, DRAIN_AGAIN: 60_000, EXPORTER: 15_000}  # spans per second of CPU time


def made(
    *,
    rounds: int = 12,
    cores: float = 0.0,
    noise: float = 0.02,
    costs: dict[str, tuple[float, float, float]] | None = None,
    rates: dict[str, float] | None = None,
) -> list[Sample]:
    """Samples with what is planted in ``costs`` and ``rates`` in place of the usual."""
    chance = random.Random(3)
    planted_costs, planted_rates = COSTS | (costs or {}), RATES | (rates or {})
    samples: list[Sample] = []
    for number in range(rounds):
        machine = chance.uniform(0.9, 1.1)  # what the blocks of a round have in common
        for arm in ARMS:

            def seconds(microseconds: float, spans: int, machine: float = machine) -> float:
                return microseconds * spans * machine * chance.uniform(1 - noise, 1 + noise) / 1e6

            sample: Sample = {
                "round": number,
                "arm": arm,
                "confirmed": True,
                "spans": 2 * SPANS,
                "received": 2 * SPANS,
                "others_cores": cores,
            }
            if arm in DRAIN_ARMS:
                used = seconds(1e6 / planted_rates[arm], 2 * SPANS)
                sample |= {"process_cpu_seconds": used, "seconds": 2 * used, "receiver_cpu_seconds": 0.2 * used}
            else:
                cpu, wall, total = planted_costs[arm]
                sample |= {
                    "burst": SPANS,
                    "unwritten": 0,
                    "on_end_cpu_seconds": seconds(cpu, SPANS),
                    "on_end_seconds": seconds(wall, SPANS),
                    "on_end_p50_us": wall,
                    "on_end_p99_us": 3.0 * wall,
                    "noting_cpu_seconds": seconds(30, SPANS) if arm == DURABLE_NOTED else 0.0,
                    "process_cpu_seconds": seconds(total, 2 * SPANS),
                    "seconds": seconds(wall, 2 * SPANS),
                    "receiver_cpu_seconds": seconds(10, 2 * SPANS) / 10,
                }
            samples.append(sample)
    return samples


def changed(samples: list[Sample], arm: str, **values: Any) -> list[Sample]:
    """``samples`` with ``values`` in the first of ``arm``."""
    first = next(sample for sample in samples if sample["arm"] == arm)
    return [{**sample, **values} if sample is first else sample for sample in samples]


def verdicts(samples: list[Sample]) -> dict[str, str]:
    targets = evaluate(samples, seed=0, setting=SETTING).summary["targets"]
    return {name: target["verdict"] for name, target in targets.items()}


def test_a_clear_case() -> None:
    found = evaluate(made(), seed=0, setting=SETTING)
    assert found.faults == found.caveats == []
    assert found.summary["setting"] == SETTING
    for arm in (SIMPLE, BATCH, DURABLE, DURABLE_FULL, DURABLE_NOTED):
        cost = found.summary["microseconds_per_span"][arm]
        for name, planted in zip(("on_end_cpu", "on_end_wall", "total_cpu"), COSTS[arm], strict=True):
            assert cost[name]["low"] <= planted <= cost[name]["high"]
            assert cost[name]["median"] == pytest.approx(planted, rel=0.1)
    assert found.summary["noting_cpu_microseconds_per_call"]["median"] == pytest.approx(30, rel=0.1)
    together = found.summary["noting_and_on_end_cpu_over_batch_total_cpu"]
    assert together["median"] == pytest.approx((30 + 55) / 60, rel=0.03)
    for arm in (DRAIN, EXPORTER):
        rate = found.summary["spans_per_second"][arm]
        assert rate["per_cpu_second"]["median"] == pytest.approx(RATES[arm], rel=0.1)
        assert rate["per_second"]["median"] == pytest.approx(RATES[arm] / 2, rel=0.1)
    targets = found.summary["targets"]
    assert [target["verdict"] for target in targets.values()] == [MET] * 4
    for name, ratio in (
        ("on_end_cpu_over_batch_total_cpu", 50 / 60),
        ("on_end_cpu_over_simple", 50 / 500),
        ("on_end_wall_over_simple", 80 / 900),
    ):
        assert targets[name]["measured"]["median"] == pytest.approx(ratio, rel=0.03)
    assert targets["on_end_cpu_over_simple"]["factor"] == pytest.approx(5, rel=0.03)
    assert targets["drained_per_cpu_second"]["factor"] == pytest.approx(6, rel=0.1)
    assert all(null["low"] <= 1 <= null["high"] for null in found.summary["equal_things"].values())
    assert sum("to spare" in sentence for sentence in found.findings) == 4
    assert "99.5% intervals of the median over 12 rounds" in found.findings[-1]


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        ({"costs": {BATCH: (1, 2, 20), BATCH_AGAIN: (1, 2, 20)}}, "on_end_cpu_over_batch_total_cpu"),
        ({"costs": {SIMPLE: (80, 900, 510)}}, "on_end_cpu_over_simple"),
        ({"costs": {SIMPLE: (500, 130, 510)}}, "on_end_wall_over_simple"),
        ({"rates": {DRAIN: 8_000, DRAIN_AGAIN: 8_000}}, "drained_per_cpu_second"),
    ],
)
def test_one_target_that_is_missed(planted: dict[str, Any], name: str) -> None:
    samples = made(**planted)
    assert verdicts(samples) == {other: MISSED if other == name else MET for other in verdicts(made())}
    (missed,) = (sentence for sentence in evaluate(samples, seed=0, setting=SETTING).findings if "missed" in sentence)
    assert "missed by a factor of 1." in missed


def test_a_target_within_the_noise_is_not_decided() -> None:
    # A ratio of 1.95 where equal things differ by as much as 10 %.
    noisy = made(costs={BATCH: (1, 2, 25.6), BATCH_AGAIN: (1, 2, 25.6)}, noise=0.1)
    assert verdicts(noisy)["on_end_cpu_over_batch_total_cpu"] == UNDECIDED
    assert any("not decided" in sentence for sentence in evaluate(noisy, seed=0, setting=SETTING).findings)
    quiet = made(costs={BATCH: (1, 2, 25.6), BATCH_AGAIN: (1, 2, 25.6)}, noise=0.001)
    assert verdicts(quiet)["on_end_cpu_over_batch_total_cpu"] == MET


def test_the_noise_of_batch_counts_where_batch_is_compared() -> None:
    biased = made(costs={BATCH: (1, 2, 28), BATCH_AGAIN: (1, 2, 21)})
    assert verdicts(biased)["on_end_cpu_over_batch_total_cpu"] == UNDECIDED


def test_no_difference_from_the_exporter_is_not_claimed() -> None:
    found = evaluate(made(rates={EXPORTER: 60_000}), seed=0, setting=SETTING)
    assert any("over the exporter alone" in said and "no difference beyond noise" in said for said in found.findings)


def test_the_same_samples_in_another_order_say_the_same() -> None:
    samples = made()
    again = evaluate(samples[::-1], seed=3, setting=SETTING)
    assert again.summary == evaluate(samples, seed=3, setting=SETTING).summary


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (made(rounds=9), "9 rounds are too few"),
        (made(cores=0.5), "busy machine: others used 0.50 cores"),
        (changed(made(), BATCH, received=1999), "round 0, batch: 1999 of 2000 spans arrived"),
        (changed(made(), DRAIN, received=2001), "round 0, drain: 2001 of 2000 spans arrived"),
        (
            changed(made(), DURABLE, unwritten=1000),
            "round 0, durable: 1000 spans were not in the file when on_end had returned",
        ),
        (changed(made(), DURABLE, confirmed=False), "round 0, durable: not everything was confirmed"),
        (
            made(costs={DURABLE_AGAIN: (55, 80, 70)}),
            "the A/A comparison of on end cpu should contain 1",
        ),
    ],
)
def test_faults(samples: list[Sample], fault: str) -> None:
    faults = evaluate(samples, seed=0, setting=SETTING).faults
    assert len(faults) == 1
    assert fault in faults[0]


def test_a_receiver_at_its_limit_is_told() -> None:
    found = evaluate(changed(made(), DRAIN, receiver_cpu_seconds=0.95, seconds=1.0), seed=0, setting=SETTING)
    assert found.faults == []
    assert found.caveats == ["the receiver used up to 0.95 cores in drain blocks: it limits what takes wall time"]


def test_stored_results_say_what_their_samples_say() -> None:
    for path in sorted(RESULTS.glob("*/*-span_processors*.json")):
        stored = load_result(path)
        setting: Any = stored.summary["setting"]
        again = evaluate(stored.samples, seed=int(stored.parameters["seed"]), setting=setting)
        assert again.findings == stored.findings
        assert again.summary["targets"] == stored.summary["targets"]
        assert set(again.faults) <= set(stored.validity.reasons)


@pytest.fixture
def measured(result: Result) -> Result:
    return result.model_copy(
        update={
            "benchmark": "span_processors",
            "parameters": {"rounds": 12, "burst": SPANS, "backlog": 2 * SPANS},
            "packages": {"opentelemetry-sdk": "1.45.2"},
            "summary": evaluate(made(), seed=0, setting=SETTING).summary,
        }
    )


def points(figure: Figure, panel: int) -> dict[str, list[float]]:
    """The points of each quantity, from the top down."""
    found = [shown for shown in figure.axes[panel].containers if isinstance(shown, ErrorbarContainer)]
    return {str(shown.get_label()): [float(value) for value in shown.lines[0].get_xdata()] for shown in found}


def test_the_figure_shows_the_medians_and_says_where_they_come_from(measured: Result) -> None:
    figure = draw(measured)
    summary: Any = measured.summary
    arms = (SIMPLE, BATCH, DURABLE, DURABLE_NOTED, DURABLE_FULL)
    costs, rates = summary["microseconds_per_span"], summary["spans_per_second"]
    assert points(figure, 0) == {
        "caller's CPU time in on_end": [costs[arm]["on_end_cpu"]["median"] for arm in arms],
        "caller's wall time in on_end": [costs[arm]["on_end_wall"]["median"] for arm in arms],
        "CPU time in all, until confirmed": [costs[arm]["total_cpu"]["median"] for arm in arms],
    }
    assert points(figure, 1) == {
        "per second of CPU time": [rates[arm]["per_cpu_second"]["median"] for arm in (DRAIN, EXPORTER)],
        "per second": [rates[arm]["per_second"]["median"] for arm in (DRAIN, EXPORTER)],
    }
    names = [label.get_text().partition(",")[0] for label in figure.axes[0].get_yticklabels()]
    assert names == ["Simple", "Batch", "Durable", "Durable", "Durable"]
    assert "microseconds" in figure.axes[0].get_xlabel()
    caption = " ".join(figure.get_supxlabel().split())
    assert caption.startswith(f"{measured.started:%Y-%m-%d}, {measured.machine.cores} cores of ")
    assert "OTLP over http/protobuf" in caption
    assert "99.5% intervals over 12 rounds" in caption


def test_a_figure_of_what_is_not_for_quoting_says_so(measured: Result, result: Result) -> None:
    busy = measured.model_copy(update={"validity": Validity(valid=False, reasons=["busy machine"], caveats=[])})
    assert "NOT FOR QUOTING: busy machine" in " ".join(draw(busy).get_supxlabel().split())
    with pytest.raises(ValueError, match="shows a result of span_processors, not of example"):
        draw(result)
