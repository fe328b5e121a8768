"""Which runs a preset makes, and in which order."""

from __future__ import annotations

import pytest

from benchmarks.harness.benchmark import Parameters, Value
from benchmarks.throughput.findings import ARMS_PHASE, DIRECT, PREFILL, PROXY, PROXY_AGAIN, SWEEP
from benchmarks.throughput.measure import BENCHMARK
from benchmarks.throughput.plan import FULL, LENGTHS, PRESETS, SHORT, SIZES, plan


def parameters(**given: Value) -> Parameters:
    return {parameter.name: parameter.default for parameter in BENCHMARK.parameters} | given


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("engine", PRESETS)
def test_every_preset_is_a_plan(engine: str, size: str) -> None:
    chosen = plan(parameters(engine=engine, size=size))
    runs = chosen.closed()
    assert len({run.number for run in runs}) == len(runs)
    assert {run.phase for run in runs} >= {SWEEP, PREFILL, ARMS_PHASE}
    assert {DIRECT, PROXY, PROXY_AGAIN} <= set(chosen.arms)
    assert all(run.requests >= (run.concurrency or 0) for run in runs)


def test_the_full_gpu_preset_has_the_lengths_that_others_publish() -> None:
    assert {f"{i}/{o}" for i, o in plan(parameters(engine="vllm", size=FULL)).lengths} == set(LENGTHS[1:])


def test_what_is_given_takes_the_place_of_the_preset() -> None:
    chosen = plan(parameters(engine="mock", size=SHORT, lengths="1024/128", concurrencies="2", repeats=7))
    assert (chosen.lengths, chosen.concurrencies, chosen.repeats) == (((1024, 128),), (2,), 7)
    assert chosen.loads == plan(parameters(engine="mock")).loads


def test_each_repeat_is_whole_before_the_next_and_in_an_order_of_its_own() -> None:
    runs = plan(parameters(engine="vllm", size=FULL)).closed()
    repeats = [run.repeat for run in runs]
    assert repeats == sorted(repeats)
    orders = [[(r.phase, r.arm, r.concurrency, r.output_len) for r in runs if r.repeat == n] for n in set(repeats)]
    assert all(sorted(map(str, order)) == sorted(map(str, orders[0])) for order in orders)
    assert orders[0] != orders[1]


def test_a_sweep_needs_no_proxy() -> None:
    assert plan(parameters(engine="mock", phases="sweep,prefill")).proxied == ()
    assert PROXY in plan(parameters(engine="mock", phases="arms")).proxied


def test_open_loops_have_seeds_of_their_own() -> None:
    chosen = plan(parameters(engine="mock"))
    closed = {run.number for run in [*chosen.warm_up(), *chosen.closed()]}
    assert not closed & {run.number for run in [*chosen.opened(), *chosen.fitted()]}


def test_every_way_is_warmed_up_once() -> None:
    chosen = plan(parameters(engine="mock"))
    assert [run.arm for run in chosen.warm_up()] == list(chosen.arms)
    assert [run.arm for run in plan(parameters(engine="mock", phases="sweep")).warm_up()] == [DIRECT]
