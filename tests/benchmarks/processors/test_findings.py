"""What is lost is told as a range, sums are checked, and the figure shows a point for each run."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.harness.results import Result, current_results, load_result
from benchmarks.harness.rounds import Sample
from benchmarks.processors.figure import draw, draw_losses
from benchmarks.processors.findings import losses as evaluate
from benchmarks.processors.names import BATCH, BURST, DURABLE, KILL, SIMPLE, TERMINATE
from benchmarks.processors.names import LOSS_PLAN as PLAN

PARAMETERS: dict[str, Any] = {
    "protocol": "http/protobuf",
    "runs": 4,
    "rate": 100.0,
    "burst": 10_000,
    "outage_seconds": 20.0,
    "seed": 0,
}


def sample(scenario: str, processor: str, run: int, **values: Any) -> Sample:
    """A run that made 800 spans and lost none, but for ``values``."""
    found = {"scenario": scenario, "processor": processor, "run": run, "due": 800, "ended": 800, "delivered": 800}
    found |= {"delivered_at_once": 800, "pending": 0, "dropped": 0, "duplicates": 0, "seconds": 8.0}
    return found | values


def made() -> list[Sample]:
    """In each scenario four runs of each processor. Batch loses when it is killed, Simple makes few when it is told to
    end, Durable sends later."""
    samples = [
        sample(scenario, processor, run) for scenario in PLAN for processor in PLAN[scenario] for run in range(4)
    ]
    for one in samples:
        if (one["scenario"], one["processor"]) == (KILL, BATCH):
            lost = 100 * (1 + one["run"])
            one |= {"delivered": 800 - lost, "delivered_at_once": 800 - lost, "dropped": lost}
        if (one["scenario"], one["processor"]) == (TERMINATE, SIMPLE):
            one |= {"ended": 3, "delivered": 1, "delivered_at_once": 1, "dropped": 2}
        if (one["scenario"], one["processor"]) == (BURST, DURABLE):
            one |= {"delivered_at_once": 200}
    return samples


def test_what_was_lost_is_told_as_a_range() -> None:
    found = evaluate(made(), PARAMETERS)
    assert found.faults == []
    rows = {(row["scenario"], row["processor"]): row for row in found.summary["rows"]}
    assert set(rows) == {(scenario, processor) for scenario in PLAN for processor in PLAN[scenario]}
    killed = rows[KILL, BATCH]
    assert [killed[f"{which}_dropped"] for which in ("fewest", "median", "most")] == [100, 250, 400]
    assert (killed["ended"], killed["delivered"], killed["dropped"], killed["runs"]) == (3200, 2200, 1000, 4)
    assert killed["most_dropped_share"] == 0.5
    assert rows[BURST, DURABLE]["delivered_at_once"] == 800
    said = "\n".join(found.findings)
    assert "Batch 100 to 400 of about 800" in said
    assert "Simple 2 of about 3, and it held up the rest: 800 were due" in said
    assert "SIGTERM at a random moment, lost of the spans that had ended" in said
    assert "OTLP/HTTP, 4 processes of each, which make 100 spans per second, or a burst of 10,000" in said


@pytest.mark.parametrize(
    ("changed", "parameters", "fault"),
    [
        ({"delivered": 799}, {}, "kill, simple, run 0: 800 ended, and 799 are accounted for"),
        ({"delivered": 801, "dropped": -1}, {}, "kill, simple, run 0: 800 ended, and 800 are accounted for"),
        ({"ended": 0, "delivered": 0}, {}, "kill, simple, run 0: no span had ended"),
        ({}, {"runs": 3}, "3 runs are too few: it takes 4"),
    ],
)
def test_faults(changed: dict[str, Any], parameters: dict[str, Any], fault: str) -> None:
    first, *others = made()
    assert evaluate([first | changed, *others], PARAMETERS | parameters).faults == [fault]


def test_stored_results_say_what_their_samples_say() -> None:
    for path in (path for path in current_results() if "-span_losses" in path.name):
        stored = load_result(path)
        again = evaluate(stored.samples, stored.parameters)
        assert again.findings[:-1] == stored.findings[:-1]
        assert again.summary == stored.summary
        assert set(again.faults) <= set(stored.validity.reasons)


def test_the_figure_shows_every_run(result: Result) -> None:
    samples = made()
    measured = result.model_copy(
        update={
            "benchmark": "span_losses",
            "parameters": PARAMETERS,
            "packages": {"opentelemetry-sdk": "1.45.2"},
            "samples": samples,
            "summary": evaluate(samples, PARAMETERS).summary,
        }
    )
    figure = draw(measured)
    (axes,) = figure.axes
    points = sorted(float(x) for line in axes.lines if line.get_linestyle() == "None" for x in line.get_xdata())
    assert points == sorted(one["dropped"] / one["ended"] for one in samples)
    texts = [text.get_text() for text in axes.texts]
    assert "100 to 400 lost" in texts
    assert "2 lost; made 0% of what was due" in texts
    assert "kill -9 at a random moment" in texts
    caption = " ".join(figure.get_supxlabel().split())
    assert "one point for each of 4 processes" in caption
    with pytest.raises(ValueError, match="shows the phase losses of processors, which a example has not"):
        draw_losses(result)
