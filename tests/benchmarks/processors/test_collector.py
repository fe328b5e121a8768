"""What a dead collector does, measured for real with one processor, and what is made of the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness.results import RESULTS, Result, load_result
from benchmarks.harness.rounds import Sample
from benchmarks.processors.figure import draw
from benchmarks.processors.findings import collector as evaluate
from benchmarks.processors.names import ALIVE, DEAD, PROBE, PROCESSORS, REQUEST
from workbook.paths import BUILD_VARIABLE

PARAMETERS: dict[str, Any] = {"protocol": "http/protobuf"}


def made(rounds: int = 4) -> list[Sample]:
    """Only Simple, and only without a collector, makes anybody wait: every second request and each probe."""
    samples: list[Sample] = []
    for processor in PROCESSORS:
        for collector in (ALIVE, DEAD):
            slow = 7.0 if (processor, collector) == ("simple", DEAD) else 0.012
            for number in range(rounds):
                steps = ((REQUEST, 0.012), (REQUEST, slow), (PROBE, slow))
                same = {"processor": processor, "collector": collector, "round": number}
                samples += [{**same, "step": step, "seconds": seconds} for step, seconds in steps]
    return samples


def test_who_waits_is_told() -> None:
    found = evaluate(made(), PARAMETERS)
    assert found.faults == []
    rows = {(row["processor"], row["collector"], row["step"]): row for row in found.summary["rows"]}
    held_up = rows["simple", DEAD, REQUEST]
    assert (held_up["count"], held_up["least_seconds"], held_up["most_seconds"]) == (8, 0.012, 7.0)
    assert {key: row["over_limit"] for key, row in rows.items() if row["over_limit"]} == {
        ("simple", DEAD, REQUEST): 4,
        ("simple", DEAD, PROBE): 4,
    }
    assert found.findings[0].startswith(
        "Simple: requests take 12 ms to 12 ms with a collector and 12 ms to 7 s without; /health/liveliness 12 ms to "
        "12 ms and 7 s to 7 s; 4 of 4 such probes took longer than 1 s"
    )
    assert evaluate(made(2), PARAMETERS).faults == ["2 rounds are too few: it takes 4"]


def test_stored_results_say_what_their_samples_say() -> None:
    for path in sorted(RESULTS.glob("*/*-dead_collector*.json")):
        stored = load_result(path)
        again = evaluate(stored.samples, stored.parameters)
        assert (again.findings, again.summary) == (stored.findings, stored.summary)


def test_the_figure_shows_every_request(result: Result) -> None:
    packages = {"litellm": "1.106.2", "opentelemetry-sdk": "1.45.2"}
    evaluated = {"samples": made(), "summary": evaluate(made(), PARAMETERS).summary}
    named = {"benchmark": "dead_collector", "parameters": PARAMETERS, "packages": packages}
    figure = draw(result.model_copy(update=evaluated | named))
    requests, probes = figure.axes
    for axes, per_round in ((requests, 2), (probes, 1)):
        points = [len(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "None"]
        assert points == [4 * 3 * per_round] * 2
    assert [label.get_text() for label in requests.get_yticklabels()] == ["Simple", "Batch", "Durable"]
    assert "4 rounds of two requests and a probe" in " ".join(figure.get_supxlabel().split())


@pytest.mark.timeout(300)
def test_with_the_real_proxy_nobody_waits_for_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    monkeypatch.setattr("benchmarks.processors.names.PROCESSORS", ("batch",))
    words = ["run", "processors", "--phases", "collector", "--runs", "1", "--out", str(tmp_path / "results")]
    assert command_line.main(words) == command_line.NOT_FOR_QUOTING
    (path,) = (tmp_path / "results").glob("*/*-processors.json")
    samples: list[Any] = list(load_result(path).samples)
    steps = [(sample["collector"], sample["step"]) for sample in samples]
    assert steps == [(collector, step) for collector in (ALIVE, DEAD) for step in (REQUEST, REQUEST, PROBE)]
    assert all(sample["seconds"] > 0 for sample in samples)
