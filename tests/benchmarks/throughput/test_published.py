"""Published figures: each with its source and a reason, and the check that a reader can make of them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.throughput.published import PUBLISHED, THINK_TIMES


def test_every_figure_says_where_it_is_from_and_whether_it_compares() -> None:
    for figure in PUBLISHED:
        assert figure["source"].startswith("https://")
        assert figure["date"]
        assert figure["because"]
        assert figure["value"] > 0


def test_what_is_not_bf16_on_the_same_engine_is_not_comparable() -> None:
    assert not any(figure["comparable"] for figure in PUBLISHED if "FP8" in figure["precision"])


@pytest.mark.parametrize("published", THINK_TIMES, ids=lambda published: str(published["what"]))
def test_the_published_rates_of_proxies_are_their_callers_pauses(published: dict[str, Any]) -> None:
    most = published["callers"] / (published["think_seconds"] + published["response_seconds"])
    assert published["published_per_second"] == pytest.approx(most, rel=0.05)
