"""What the samples of `span_losses` say: what was lost of what had ended, in a table and in sentences.

A sample is one process with one ``processor`` in one ``scenario``. ``ended`` are its spans that had ended, of ``due``
ones that a pace which nothing holds up would have made by then. Of the ended ones ``delivered`` have come to the
receiver, by their ids, ``pending`` wait in the file of a durable processor, and ``dropped`` are nowhere;
``delivered_at_once`` had come before a process that was killed was started again. ``duplicates`` came more than once.
``seconds`` is how long it made spans before it was killed, told to stop, or had made all.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.harness.benchmark import Measurement, Parameters
from benchmarks.span_processors.findings import BATCH, BATCH_TUNED, DURABLE, SIMPLE, to_words

BATCH_FLUSHING = "batch_flushing"  # as the plugin has it in a server: exports on SIGTERM

KILL, TERMINATE, BURST, AWAY, REFUSES = "kill", "terminate", "burst", "away", "503"
PROCESSORS = (SIMPLE, BATCH, BATCH_TUNED, DURABLE)
PLAN = {
    KILL: PROCESSORS,
    TERMINATE: (SIMPLE, BATCH, BATCH_FLUSHING, BATCH_TUNED, DURABLE),
    BURST: PROCESSORS,
    AWAY: PROCESSORS,
    REFUSES: PROCESSORS,
}
NAMES = {
    SIMPLE: "Simple",
    BATCH: "Batch",
    BATCH_FLUSHING: "Batch that exports on SIGTERM",
    BATCH_TUNED: "Batch, tuned",
    DURABLE: "Durable",
}
MINIMUM_RUNS = 4
MINIMUM_OUTAGE_SECONDS = 20.0

_SCENARIO_NAMES = {
    KILL: "kill -9 at a random moment",
    TERMINATE: "SIGTERM at a random moment",
    BURST: "a burst larger than the queue, all well",
    AWAY: "the collector away for {seconds:g} s",
    REFUSES: "the collector answering 503 for {seconds:g} s",
}

Sample = dict[str, Any]


def scenario_in_words(scenario: str, parameters: Parameters) -> str:
    """``scenario`` as sentences and figures name it."""
    return _SCENARIO_NAMES[scenario].format(seconds=float(parameters["outage_seconds"]))


def evaluate(samples: Sequence[Sample], parameters: Parameters) -> Measurement:
    """The measurement that ``samples``, taken with ``parameters``, are. The same ones always give the same."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample["scenario"], sample["processor"]), []).append(sample)
    rows = [_row(scenario, processor, group) for (scenario, processor), group in groups.items()]
    return Measurement(
        samples=list(samples),
        summary={"rows": rows},
        findings=[
            f"{_capitalised(scenario_in_words(scenario, parameters))}, lost of the spans that had ended: "
            + "; ".join(_in_words(row) for row in rows if row["scenario"] == scenario)
            + "."
            for scenario in dict.fromkeys(row["scenario"] for row in rows)
        ]
        + [
            f"{to_words(str(parameters['protocol']))}, {parameters['runs']} processes of each; {parameters['rate']:g} "
            f"spans per second, or bursts of {parameters['burst']:,}. In every row: ended = delivered + pending + "
            "dropped, by the ids of the spans at the receiver."
        ],
        faults=_faults(samples, parameters),
        caveats=["the lost are given from the fewest to the most: so few runs show a range, and no more"],
    )


def _row(scenario: str, processor: str, group: Sequence[Sample]) -> dict[str, Any]:
    dropped = [sample["dropped"] for sample in group]
    sums = ("due", "ended", "delivered_at_once", "delivered", "pending", "dropped", "duplicates")
    return {
        "scenario": scenario,
        "processor": processor,
        "runs": len(group),
        **{name: sum(sample[name] for sample in group) for name in sums},
        "fewest_dropped": min(dropped),
        "median_dropped": median(dropped),
        "most_dropped": max(dropped),
        "most_dropped_share": max(sample["dropped"] / sample["ended"] if sample["ended"] else 0.0 for sample in group),
    }


def _in_words(row: Sample) -> str:
    few, most = row["fewest_dropped"], row["most_dropped"]
    lost = f"{few:,}" if few == most else f"{few:,} to {most:,}"
    text = f"{NAMES[row['processor']]} {lost} of about {row['ended'] / row['runs']:,.0f}"
    if row["ended"] < 0.9 * row["due"]:
        text += f", and it held up the rest: {row['due'] / row['runs']:,.0f} were due"
    if row["pending"]:
        text += f", and {row['pending']:,} in all wait in its file"
    return text


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _faults(samples: Sequence[Sample], parameters: Parameters) -> list[str]:
    faults = []
    if int(parameters["runs"]) < MINIMUM_RUNS:
        faults.append(f"{parameters['runs']} runs are too few: a range needs at least {MINIMUM_RUNS}")
    if float(parameters["outage_seconds"]) < MINIMUM_OUTAGE_SECONDS:
        faults.append(f"an outage of {parameters['outage_seconds']:g} s is too short: {MINIMUM_OUTAGE_SECONDS:g} s")
    for sample in samples:
        where = f"{sample['scenario']}, {sample['processor']}, run {sample['run']}"
        parts = sample["delivered"] + sample["pending"] + sample["dropped"]
        if sample["dropped"] < 0 or sample["ended"] != parts:
            faults.append(f"{where}: {sample['ended']} spans had ended, and {parts} are accounted for")
        if not sample["ended"]:
            faults.append(f"{where}: no span had ended")
    return faults
