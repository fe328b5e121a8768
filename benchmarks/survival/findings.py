"""What the samples of `survival` say: how the records of each run divide, in a table and in sentences.

A sample is one ``scenario`` with one ``processor``. ``produced`` are the calls that were answered, each known by its
id; of their records ``exported`` are at the receiver in the end, ``pending`` wait in the plugin's file, ``dropped``
are in neither, and of these the ledger has ``noticed`` so many as calls without a record. ``duplicates`` are spans
that came again under the same span id; ``failed`` are calls without a good answer, by kind; ``served_by_mock`` is the
backend's own count of answers. ``pending_after_outage`` were in the file when the proxy was killed or the collector
came back (None without a file). ``outage_ms`` has the durations of the calls answered while the collector failed,
``outage_seconds`` the time that they took together; none for ``kill``. ``settled`` says that nothing moved any more
when it was counted, which took ``seconds_to_rest``; ``others_cores`` is what everybody else used of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.harness.benchmark import Measurement, Parameters
from benchmarks.harness.machine import QUIET_CORES
from workbook.stacks import Processor

SIMPLE: Processor = "simple"
BATCH: Processor = "batch"
DURABLE: Processor = "durable"
PROCESSORS = (SIMPLE, BATCH, DURABLE)

KILL, AWAY, REFUSES, SLOW = "kill", "away", "503", "slow"
SCENARIOS = (KILL, AWAY, REFUSES, SLOW)

MINIMUM_CALLS = 1000
MINIMUM_OUTAGE_SECONDS = 60.0

Sample = dict[str, Any]


def evaluate(samples: Sequence[Sample], parameters: Parameters) -> Measurement:
    """The measurement that ``samples``, taken with ``parameters``, are. The same ones always give the same."""
    rows = [_row(sample) for sample in samples]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    findings = [
        sentence
        for scenario in scenarios
        for sentence in _findings(scenario, [row for row in rows if row["scenario"] == scenario])
    ]
    if durable := [row for row in rows if row["processor"] == DURABLE]:
        lost, noticed = (sum(row[name] for row in durable) for name in ("dropped", "noticed"))
        findings.append(
            f"durable, all scenarios: {lost} of {sum(row['produced'] for row in durable):,} records lost, {noticed} of "
            "them named by the ledger as calls without a record."
        )
    return Measurement(
        samples=list(samples),
        summary={"rows": rows},
        findings=findings,
        faults=_faults(samples, parameters),
        caveats=[
            "one run of each: how many records a kill takes depends on its moment",
            "each run ends with SIGTERM, at which the batch processor exports what it holds: its best case",
        ],
    )


def _row(sample: Sample) -> dict[str, Any]:
    """A sample without its raw durations: what a table shows."""
    durations = sample["outage_ms"]
    during = {
        "calls_in_outage": len(durations) if sample["outage_seconds"] else None,
        "per_second_in_outage": len(durations) / sample["outage_seconds"] if sample["outage_seconds"] else None,
        **{
            f"p{percent}_ms_in_outage": float(np.quantile(durations, percent / 100)) if durations else None
            for percent in (50, 99)
        },
    }
    names = ("produced", "exported", "pending", "dropped", "noticed", "duplicates", "pending_after_outage")
    return {
        "scenario": sample["scenario"],
        "processor": sample["processor"],
        **{name: sample[name] for name in names},
        "failed": sum(sample["failed"].values()),
        **during,
    }


def _findings(scenario: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    sentences = [f"{scenario}: {'; '.join(_division(row) for row in rows)}."]
    if timed := [row for row in rows if row["per_second_in_outage"] is not None]:
        rates = ", ".join(f"{row['processor']} {row['per_second_in_outage']:.3g}" for row in timed)
        slowest = ", ".join(
            f"{row['processor']} {row['p99_ms_in_outage']:,.0f}" for row in timed if row["p99_ms_in_outage"] is not None
        )
        sentences.append(f"{scenario}, meanwhile: calls answered per second {rates}; 99th percentile in ms {slowest}.")
    return sentences


def _division(row: Mapping[str, Any]) -> str:
    text = (
        f"{row['processor']} {row['produced']:,} = {row['exported']:,} exported + {row['pending']:,} pending + "
        f"{row['dropped']:,} dropped"
    )
    if row["failed"]:
        text += f", and {row['failed']:,} calls without an answer"
    return text


def _faults(samples: Sequence[Sample], parameters: Parameters) -> list[str]:
    faults = []
    if int(parameters["calls"]) < MINIMUM_CALLS or float(parameters["outage_seconds"]) < MINIMUM_OUTAGE_SECONDS:
        faults.append(f"too small: it takes {MINIMUM_CALLS} calls and {MINIMUM_OUTAGE_SECONDS:g} s of outage")
    for sample in samples:
        where = f"{sample['processor']}, {sample['scenario']}"
        parts = sample["exported"] + sample["pending"] + sample["dropped"]
        failed = sum(sample["failed"].values())
        if sample["produced"] != parts:
            faults.append(f"{where}: {sample['produced']} records were produced, and {parts} are accounted for")
        if sample["produced"] + failed != int(parameters["calls"]):
            faults.append(
                f"{where}: {sample['produced']} answered and {failed} failed calls are not {parameters['calls']}"
            )
        if not sample["produced"] <= sample["served_by_mock"] <= sample["produced"] + failed:
            faults.append(
                f"{where}: {sample['produced']} calls were answered and {failed} failed, the mock counts "
                f"{sample['served_by_mock']}"
            )
        if not sample["settled"]:
            faults.append(f"{where}: records were still on their way when they were counted")
    others = fmean(sample["others_cores"] for sample in samples)
    if others > QUIET_CORES:
        faults.append(f"busy machine: others used {others:.2f} cores while it was measured, more than {QUIET_CORES}")
    return faults
