"""Findings about span processors: planted costs are found, targets are met or missed as planted, faults are told; and
the figure shows what was found."""

from __future__ import annotations

import random
from typing import Any

import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.results import RESULTS, Result, Validity, load_result
from benchmarks.harness.rounds import Sample
from benchmarks.harness.targets import MET, MISSED, UNDECIDED
from benchmarks.processors.cost_findings import evaluate, slowest_kept
from benchmarks.processors.figure import draw, draw_costs
from benchmarks.processors.measure import BENCHMARK
from benchmarks.processors.names import (
    ARMS,
    BATCH,
    BATCH_AGAIN,
    BATCH_TUNED,
    DRAIN,
    DRAIN_AGAIN,
    DRAIN_ARMS,
    DURABLE,
    DURABLE_AGAIN,
    DURABLE_FULL,
    DURABLE_NOTED,
    EXPORTER_ALONE,
    EXPORTERS,
    SIMPLE,
)
from otel_cost_logger.settings import CONSOLE, GRPC, HTTP_PROTOBUF

SETTING = {"attributes": 39, "bytes": 1439}
SPANS = 1000
MAKING = 40  # microseconds of CPU to make a span; the same of time
# Microseconds of a span: the caller's CPU and wall time in on_end, and the CPU time of the process in all.
COSTS = {SIMPLE: (500, 900, 510), BATCH: (1, 2, 60), DURABLE: (50, 80, 70), DURABLE_FULL: (90, 400, 150)}
COSTS |= {BATCH_AGAIN: COSTS[BATCH], DURABLE_AGAIN: COSTS[DURABLE], DURABLE_NOTED: (55, 90, 110)}
COSTS |= {BATCH_TUNED: (1, 2, 65)}
RATES = {DRAIN: 60_000, DRAIN_AGAIN: 60_000, EXPORTER_ALONE: 15_000}  # spans per second of CPU time
TARGETS = 6  # for each protocol


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
        for arm, exporter in ARMS:

            def seconds(microseconds: float, spans: int, machine: float = machine) -> float:
                return microseconds * spans * machine * chance.uniform(1 - noise, 1 + noise) / 1e6

            sample: Sample = {
                "round": number,
                "arm": arm,
                "exporter": exporter,
                "confirmed": True,
                "spans": 2 * SPANS,
                "received": 2 * SPANS,
                "others_cores": cores,
            }
            if (arm, exporter) in DRAIN_ARMS:
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
                    "slowest_us": [float(slow + number) for slow in range(100, 100 - slowest_kept(SPANS, rounds), -1)],
                    "callback_cpu_seconds": seconds(cpu + MAKING, SPANS),
                    "callback_seconds": seconds(wall + MAKING, SPANS),
                    "callback_received": SPANS,
                    "noting_cpu_seconds": seconds(30, SPANS) if arm == DURABLE_NOTED else 0.0,
                    "process_cpu_seconds": seconds(total, 2 * SPANS),
                    "seconds": seconds(wall, 2 * SPANS),
                    "receiver_cpu_seconds": seconds(10, 2 * SPANS) / 10,
                }
            samples.append(sample)
    return samples


def changed(samples: list[Sample], arm: str, **values: Any) -> list[Sample]:
    """``samples`` with ``values`` in the first of ``arm`` over HTTP."""
    first = next(s for s in samples if (s["arm"], s["exporter"]) == (arm, HTTP_PROTOBUF))
    return [{**sample, **values} if sample is first else sample for sample in samples]


def verdicts(found: Measurement, protocol: str = HTTP_PROTOBUF) -> dict[str, str]:
    return {name: target["verdict"] for name, target in found.summary["targets"][protocol].items()}


@pytest.fixture(scope="module")
def clear() -> Measurement:
    return evaluate(made(), setting=SETTING)


def test_a_clear_case(clear: Measurement) -> None:
    found = clear
    assert found.faults == found.caveats == []
    assert found.summary["setting"] == {**SETTING, "exporters": [CONSOLE, HTTP_PROTOBUF, GRPC]}
    for exporter in EXPORTERS:
        costs = found.summary["microseconds_per_span"][exporter]
        assert {SIMPLE, BATCH, BATCH_TUNED, DURABLE} <= set(costs)
        for arm, cost in costs.items():
            cpu, wall, total = COSTS[arm]
            planted = {"on_end_cpu": cpu, "on_end_wall": wall, "total_cpu": total}
            planted |= {"callback_cpu": cpu + MAKING, "callback_wall": wall + MAKING}
            for name, value in planted.items():
                assert cost[name]["low"] <= value <= cost[name]["high"]
                assert cost[name]["median"] == pytest.approx(value, rel=0.1)
    assert found.summary["noting_cpu_microseconds_per_call"]["median"] == pytest.approx(30, rel=0.1)
    together = found.summary["noting_and_on_end_cpu_over_batch_total_cpu"]
    assert together["median"] == pytest.approx((30 + 55) / 60, rel=0.03)
    for protocol in (HTTP_PROTOBUF, GRPC):
        for arm in (DRAIN, EXPORTER_ALONE):
            rate = found.summary["spans_per_second"][protocol][arm]
            assert rate["per_cpu_second"]["median"] == pytest.approx(RATES[arm], rel=0.1)
            assert rate["per_second"]["median"] == pytest.approx(RATES[arm] / 2, rel=0.1)
        targets = found.summary["targets"][protocol]
        assert [target["verdict"] for target in targets.values()] == [MET] * TARGETS
        for name, ratio in (
            ("callback_cpu_simple_over_batch", 540 / 41),
            ("callback_wall_simple_over_batch", 940 / 42),
            ("on_end_cpu_over_batch_total_cpu", 50 / 60),
            ("on_end_cpu_over_simple", 50 / 500),
            ("on_end_wall_over_simple", 80 / 900),
        ):
            assert targets[name]["measured"]["median"] == pytest.approx(ratio, rel=0.03)
        assert targets["callback_cpu_simple_over_batch"]["factor"] == pytest.approx(540 / 41 / 8, rel=0.03)
        assert targets["on_end_cpu_over_simple"]["factor"] == pytest.approx(5, rel=0.03)
        assert targets["drained_per_cpu_second"]["factor"] == pytest.approx(6, rel=0.1)
        assert all(null["low"] <= 1 <= null["high"] for null in found.summary["equal_things"][protocol].values())
    assert sum("to spare" in sentence for sentence in found.findings) == 2 * TARGETS
    assert "95% intervals of the median over 12 rounds" in found.findings[-1]


def test_the_tail_is_that_of_all_rounds_where_there_are_enough(clear: Measurement) -> None:
    # 12 rounds of 1,000 calls, so 12 may be slower than the 99.9th percentile. The slowest calls of round n took
    # 100 + n, 99 + n, ... us: 111; 110 twice; 109 three times; 108 four times; and then 107.
    tails = clear.summary["on_end_p999_microseconds"]
    assert {tail for arms in tails.values() for tail in arms.values()} == {107.0}
    few = evaluate(made(rounds=9), setting=SETTING).summary["on_end_p999_microseconds"]
    assert {tail for arms in few.values() for tail in arms.values()} == {None}


@pytest.mark.parametrize(
    ("planted", "names"),
    [
        ({"costs": {BATCH: (1, 2, 20), BATCH_AGAIN: (1, 2, 20)}}, {"on_end_cpu_over_batch_total_cpu"}),
        (
            {
                "costs": {
                    DURABLE: (290, 80, 70),
                    DURABLE_AGAIN: (290, 80, 70),
                    BATCH: (1, 2, 200),
                    BATCH_AGAIN: (1, 2, 200),
                }
            },
            {"on_end_cpu_over_simple"},
        ),
        ({"costs": {DURABLE: (50, 580, 70), DURABLE_AGAIN: (50, 580, 70)}}, {"on_end_wall_over_simple"}),
        (
            {"costs": {BATCH: (25, 26, 60), BATCH_AGAIN: (25, 26, 60), SIMPLE: (400, 900, 410)}},
            {"callback_cpu_simple_over_batch"},
        ),
        ({"costs": {BATCH: (1, 95, 60), BATCH_AGAIN: (1, 95, 60)}}, {"callback_wall_simple_over_batch"}),
        ({"rates": {DRAIN: 8_000, DRAIN_AGAIN: 8_000}}, {"drained_per_cpu_second"}),
    ],
)
def test_one_target_that_is_missed(planted: dict[str, Any], names: set[str]) -> None:
    found = evaluate(made(**planted), setting=SETTING)
    for protocol in (HTTP_PROTOBUF, GRPC):
        said = verdicts(found, protocol)
        assert said == {other: MISSED if other in names else MET for other in said}
    missed = [sentence for sentence in found.findings if "missed" in sentence]
    assert len(missed) == 2
    assert all("missed by a factor of 1." in sentence for sentence in missed)


def test_a_target_within_the_noise_is_not_decided() -> None:
    # A ratio of 1.95 where equal things differ by as much as 10 %.
    costs = {BATCH: (1, 2, 25.6), BATCH_AGAIN: (1, 2, 25.6)}
    noisy = evaluate(made(costs=costs, noise=0.1), setting=SETTING)
    assert verdicts(noisy)["on_end_cpu_over_batch_total_cpu"] == UNDECIDED
    assert any("not decided" in sentence for sentence in noisy.findings)
    quiet = evaluate(made(costs=costs, noise=0.001), setting=SETTING)
    assert verdicts(quiet)["on_end_cpu_over_batch_total_cpu"] == MET


def test_the_noise_of_batch_counts_where_batch_is_compared() -> None:
    biased = evaluate(made(costs={BATCH: (1, 2, 28), BATCH_AGAIN: (1, 2, 21)}), setting=SETTING)
    assert verdicts(biased)["on_end_cpu_over_batch_total_cpu"] == UNDECIDED


def test_no_difference_from_the_exporter_is_not_claimed() -> None:
    found = evaluate(made(rates={EXPORTER_ALONE: 60_000}), setting=SETTING)
    assert any("over the exporter alone" in said and "the same within 10%" in said for said in found.findings)


def test_the_same_samples_in_another_order_say_the_same(clear: Measurement) -> None:
    assert evaluate(made()[::-1], setting=SETTING).summary == clear.summary


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (made(rounds=9), "9 rounds are too few"),
        (made(cores=0.5), "busy machine: others used 0.50 cores"),
        (changed(made(), BATCH, received=1999), "round 0, batch to OTLP/HTTP: 1999 of 2000 spans arrived"),
        (changed(made(), DRAIN, received=2001), "round 0, drain to OTLP/HTTP: 2001 of 2000 spans arrived"),
        (
            changed(made(), DURABLE, unwritten=1000),
            "round 0, durable to OTLP/HTTP: 1000 spans were not in the file when on_end had returned",
        ),
        (changed(made(), DURABLE, confirmed=False), "round 0, durable to OTLP/HTTP: not everything was confirmed"),
        (changed(made(), SIMPLE, callback_received=0), "round 0, simple to OTLP/HTTP: 0 of 1000 spans of the callback"),
    ],
)
def test_faults(samples: list[Sample], fault: str) -> None:
    faults = evaluate(samples, setting=SETTING).faults
    assert len(faults) == 1
    assert fault in faults[0]


def test_equal_things_that_differ_are_a_fault_for_each_protocol() -> None:
    faults = evaluate(made(costs={DURABLE_AGAIN: (55, 80, 70)}), setting=SETTING).faults
    assert [said.partition(" should")[0] for said in faults] == [
        f"the A/A comparison of on end cpu, {protocol}," for protocol in ("OTLP/HTTP", "OTLP/gRPC")
    ]


def test_a_receiver_at_its_limit_is_told() -> None:
    found = evaluate(changed(made(), DRAIN, receiver_cpu_seconds=0.95, seconds=1.0), setting=SETTING)
    assert found.faults == []
    assert found.caveats == [
        "the receiver used up to 0.95 cores in drain blocks, OTLP/HTTP: it limits what takes wall time"
    ]


def test_stored_results_say_what_their_samples_say(says_the_same: Any) -> None:
    for path in sorted(RESULTS.glob("*/*-span_processors*.json")):
        stored = load_result(path)
        setting: Any = stored.summary["setting"]
        if setting.pop("exporters", None) is None:
            continue  # of November 23, when there was one exporter; the code of its commit can read it
        says_the_same(stored, evaluate(stored.samples, setting=setting), BENCHMARK)


@pytest.fixture
def measured(result: Result, clear: Measurement) -> Result:
    return result.model_copy(
        update={
            "benchmark": "span_processors",
            "parameters": {"rounds": 12, "burst": SPANS, "backlog": 2 * SPANS},
            "packages": {"opentelemetry-sdk": "1.45.2"},
            "summary": clear.summary,
        }
    )


def points(figure: Figure, panel: int) -> dict[str, list[float]]:
    """The points of each quantity, from the top down."""
    found = [shown for shown in figure.axes[panel].containers if isinstance(shown, ErrorbarContainer)]
    return {str(shown.get_label()): [float(value) for value in shown.lines[0].get_xdata()] for shown in found}


def test_the_figure_shows_the_medians_and_says_where_they_come_from(measured: Result) -> None:
    figure = draw(measured)
    summary: Any = measured.summary
    shown = {
        "caller's CPU time in on_end": "on_end_cpu",
        "caller's CPU time, with making the span": "callback_cpu",
        "caller's wall time, with making the span": "callback_wall",
        "CPU time in all, from on_end until confirmed": "total_cpu",
    }
    for panel, exporter in enumerate((HTTP_PROTOBUF, GRPC, CONSOLE)):
        costs = summary["microseconds_per_span"][exporter]
        arms = [SIMPLE, BATCH, BATCH_TUNED, DURABLE, *([DURABLE_NOTED, DURABLE_FULL] if panel == 0 else [])]
        assert points(figure, panel) == {
            label: [costs[arm][name]["median"] for arm in arms] for label, name in shown.items()
        }
        names = [label.get_text().partition(",")[0] for label in figure.axes[panel].get_yticklabels()]
        assert names == ["Simple", "Batch", "Batch", "Durable", "Durable", "Durable"][: len(arms)]
        assert "microseconds" in figure.axes[panel].get_xlabel()
    rates = summary["spans_per_second"][HTTP_PROTOBUF]
    assert points(figure, 3) == {
        "per CPU second": [rates[arm]["per_cpu_second"]["median"] for arm in (DRAIN, EXPORTER_ALONE)],
        "per second": [rates[arm]["per_second"]["median"] for arm in (DRAIN, EXPORTER_ALONE)],
    }
    caption = " ".join(figure.get_supxlabel().split())
    assert caption.startswith(f"{measured.started:%Y-%m-%d}, {measured.machine.cores} cores of ")
    assert "95% interval over 12 rounds" in caption


def test_a_figure_of_what_is_not_for_quoting_says_so(measured: Result, result: Result) -> None:
    busy = measured.model_copy(update={"validity": Validity(valid=False, reasons=["busy machine"], caveats=[])})
    assert "NOT FOR QUOTING: busy machine" in " ".join(draw(busy).get_supxlabel().split())
    with pytest.raises(ValueError, match="shows the phase costs of processors, which a example has not"):
        draw_costs(result)
