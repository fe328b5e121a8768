"""Which results notebook 10 shows, what it says of them, and that every figure can be drawn of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks.harness.results import Result, Validity, write_result
from benchmarks.throughput import figure, stored
from benchmarks.throughput.findings import (
    ARMS_PHASE,
    BATCH,
    DIRECT,
    OPEN,
    PROXY,
    PROXY_AGAIN,
    SWEEP,
)

SPREAD = {"confidence": 0.95, "rounds": 12}


def interval(median: float) -> dict[str, Any]:
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median, **SPREAD}


def point(phase: str, arm: str, concurrency: int) -> dict[str, Any]:
    figures = ("output_tokens_per_second", "median_ttft_ms", "median_tpot_ms")
    return {
        **{"phase": phase, "arm": arm, "input_len": 128, "output_len": 32, "concurrency": concurrency},
        **{name: interval(100.0 * concurrency) for name in figures},
        **{"ceiling": 1000.0 * concurrency, "of_ceiling": 0.1},
    }


def compared(arm: str, against: str, ratio: float) -> dict[str, Any]:
    named = {"arm": arm, "against": against, "concurrency": 8, "differs": ratio < 0.9}
    return {**named, "ratio": interval(ratio), "null": interval(1.0)}


def opened(arm: str, share: float) -> dict[str, Any]:
    told = {"arm": arm, "rate": 5.0, "repeats": 3, "answered_share": share, "late_p99_ms": 1.0}
    return {**told, "ttft_p50_ms": 1.0, "e2el_p50_ms": 20.0 if share else None, "e2el_p99_ms": 50.0 if share else None}


def made(result: Result, *, kind: str = "vllm-cpu", lengths: Any = ((128, 32),), **changes: Any) -> Result:
    engine = {"kind": kind, "version": "0.32.0", "shape": "small", "weights": "random", "eager": kind != "vllm"}
    summary = {
        "engine": engine,
        "points": [point(SWEEP, DIRECT, concurrency) for concurrency in (1, 8)] + [point(ARMS_PHASE, PROXY, 8)],
        "comparisons": [compared(PROXY, DIRECT, 0.5), compared(PROXY_AGAIN, PROXY, 1.0), compared(BATCH, PROXY, 0.8)],
        OPEN: [opened(DIRECT, 1.0), opened(PROXY, 1.0)],
        "outage": [opened("simple", 0.0), opened(BATCH, 1.0)],
        "plan": {"lengths": [list(length) for length in lengths]},
    }
    base = {"benchmark": "throughput", "summary": summary, "parameters": {"workers": 1}}
    return result.model_copy(update=base | changes)


def test_the_newest_of_each_kind_is_shown_and_those_of_a_gpu_first(result: Result, tmp_path: Path) -> None:
    later = {"started": result.started + timedelta(days=1)}
    for one in (made(result), made(result, **later), made(result, kind="vllm"), made(result, lengths=((9, 9),))):
        write_result(one, tmp_path)
    found = stored.newest(SWEEP, tmp_path)
    kinds: list[Any] = [one.summary["engine"] for one in found]
    assert [engine["kind"] for engine in kinds] == ["vllm", "vllm-cpu", "vllm-cpu"]
    assert sum(one.started == later["started"] for one in found) == 1


def test_one_for_quoting_goes_before_a_newer_one_that_is_not(result: Result, tmp_path: Path) -> None:
    bad = Validity(valid=False, reasons=["busy"], caveats=[])
    write_result(made(result), tmp_path)
    write_result(made(result, validity=bad, started=result.started + timedelta(days=1)), tmp_path)
    (found,) = stored.newest(SWEEP, tmp_path)
    assert found.validity.valid


def test_the_first_sentences_have_intervals_and_name_what_is_missing(result: Result, tmp_path: Path) -> None:
    assert stored.headlines(tmp_path) == [stored.NOT_YET]
    write_result(made(result), tmp_path)
    told = stored.headlines(tmp_path)
    assert told[0] == (
        "vllm-cpu small on 2-core-example: at most 800 [720, 880] output tokens/s, with 128/32 tokens and 8 requests "
        "at once, 10% of the ceiling."
    )
    assert any("batch over proxy: 0.8 [0.72, 0.88]" in sentence for sentence in told)
    assert told[-1] == stored.NOT_YET
    write_result(made(result, kind="vllm"), tmp_path)
    assert stored.NOT_YET not in stored.headlines(tmp_path)


@pytest.mark.parametrize("draw", [figure.draw, figure.draw_sweep, figure.draw_arms, figure.draw_open])
def test_every_figure_says_when_where_and_that_the_weights_are_random(result: Result, draw: Any) -> None:
    drawn: Figure = draw(made(result))
    assert drawn._supxlabel is not None
    caption = " ".join(drawn._supxlabel.get_text().split())
    assert "2026-11-23" in caption
    assert "random weights" in caption
    assert all(axes.get_xlabel() for axes in drawn.axes)
    with pytest.raises(ValueError, match="not of example"):
        draw(result)


def test_a_figure_of_what_was_not_measured_is_refused(result: Result) -> None:
    empty = made(result)
    empty.summary.update({"points": [], "comparisons": [], OPEN: [], "outage": []})
    for draw, missing in (
        (figure.draw_sweep, "no sweep"),
        (figure.draw_arms, "compares no arms"),
        (figure.draw_open, "no open loop"),
    ):
        with pytest.raises(ValueError, match=missing):
            draw(empty)
