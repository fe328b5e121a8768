"""What is lost and who waits: tables, sentences, and reasons to distrust them. What it costs is in `cost_findings`.

A sample of *losses* is one process with one ``processor`` in one ``scenario``. ``ended`` are its spans that had ended,
of ``due`` ones that a pace which nothing holds up would have made by then. Of the ended ones ``delivered`` have come to
the receiver, by their ids, ``pending`` wait in the file of a durable processor, and ``dropped`` are nowhere;
``delivered_at_once`` had come before a process that was killed was started again. ``duplicates`` came more than once.
``seconds`` is how long it made spans before it was killed, told to stop, or had made all.

A sample of *proxy* is one ``scenario`` with one ``processor``. ``produced`` are the calls that were answered, each
known by its id; of their records ``exported`` are at the receiver in the end, ``pending`` wait in the plugin's file,
``dropped`` are in neither, and of these the ledger has ``noticed`` so many as calls without a record. ``duplicates``
are spans that came again under the same span id; ``failed`` are calls without a good answer, by kind;
``served_by_mock`` is the backend's own count of answers. ``pending_after_outage`` were in the file when the proxy was
killed or the collector came back (None without a file). ``outage_ms`` has the durations of the calls answered while the
collector failed, ``outage_seconds`` the time that they took together; none for ``kill``. ``settled`` says that nothing
moved any more when it was counted, which took ``seconds_to_rest``; ``others_cores`` is what everybody else used of the
machine.

A sample of *collector* is one ``step`` (a request, or the probe ``GET /health/liveliness``) that took ``seconds``, in a
``round`` with a ``processor`` while the ``collector`` was alive or dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness.benchmark import Measurement, Parameters
from benchmarks.harness.faults import busy
from benchmarks.harness.rounds import Sample
from benchmarks.processors.names import (
    ALIVE,
    AWAY,
    BURST,
    DEAD,
    DURABLE,
    KILL,
    NAMES,
    PROBE,
    PROCESSORS,
    REFUSES,
    REQUEST,
    TERMINATE,
    to_words,
)

MINIMUM_RUNS = 4
MINIMUM_CALLS = 1000
MINIMUM_OUTAGE_SECONDS = 20.0
AT_A_TIME = 16  # callers, each with one call at a time
PROBE_LIMIT = 1.0  # seconds: Kubernetes' default for the time-out of a probe

_SCENARIO_NAMES = {
    KILL: "kill -9 at a random moment",
    TERMINATE: "SIGTERM at a random moment",
    BURST: "a burst larger than the queue, all well",
    AWAY: "the collector away for {seconds:g} s",
    REFUSES: "the collector answering 503 for {seconds:g} s",
}


def scenario_in_words(scenario: str, parameters: Parameters) -> str:
    """``scenario`` of losses as sentences and figures name it."""
    return _SCENARIO_NAMES[scenario].format(seconds=float(parameters["outage_seconds"]))


def pace_in_words(parameters: Parameters) -> str:
    """How fast spans were made, and how many in a burst (which older results call so)."""
    flood = parameters.get("flood", parameters["burst"])
    return f"{parameters['rate']:g} spans per second, or a burst of {flood:,}"


def losses(samples: Sequence[Sample], parameters: Parameters) -> Measurement:
    """What was lost of what had ended. The same samples and parameters always give the same."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample["scenario"], sample["processor"]), []).append(sample)
    rows = [_loss_row(scenario, processor, group) for (scenario, processor), group in groups.items()]
    findings = []
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        name = scenario_in_words(scenario, parameters)
        told = "; ".join(_loss_in_words(row) for row in rows if row["scenario"] == scenario)
        findings.append(f"{name[0].upper()}{name[1:]}, lost of the spans that had ended: {told}.")
    findings.append(
        f"{to_words(str(parameters['protocol']))}, {parameters['runs']} processes of each, which make "
        f"{pace_in_words(parameters)}. In every row: ended = delivered + pending + dropped, by the ids of the spans at "
        "the receiver."
    )
    faults = [] if int(parameters["runs"]) >= MINIMUM_RUNS else [_few(parameters["runs"], "runs", MINIMUM_RUNS)]
    for sample in samples:
        where = f"{sample['scenario']}, {sample['processor']}, run {sample['run']}"
        faults += _not_accounted(where, sample, "ended", "delivered")
        if not sample["ended"]:
            faults.append(f"{where}: no span had ended")
    caveat = "the lost are given from the fewest to the most: so few runs show a range, and no more"
    return Measurement(list(samples), {"rows": rows}, findings, faults, [caveat])


def _loss_row(scenario: str, processor: str, group: Sequence[Sample]) -> dict[str, Any]:
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


def _loss_in_words(row: Sample) -> str:
    few, most = row["fewest_dropped"], row["most_dropped"]
    lost = f"{few:,}" if few == most else f"{few:,} to {most:,}"
    text = f"{NAMES[row['processor']]} {lost} of about {row['ended'] / row['runs']:,.0f}"
    if row["ended"] < 0.9 * row["due"]:
        text += f", and it held up the rest: {row['due'] / row['runs']:,.0f} were due"
    if row["pending"]:
        text += f", and {row['pending']:,} in all wait in its file"
    return text


def _few(count: Any, what: str, minimum: int) -> str:
    return f"{count} {what} are too few: it takes {minimum}"


def _not_accounted(where: str, sample: Sample, made: str, arrived: str) -> list[str]:
    parts = sample[arrived] + sample["pending"] + sample["dropped"]
    if sample["dropped"] < 0 or sample[made] != parts:
        return [f"{where}: {sample[made]} {made}, and {parts} are accounted for"]
    return []


def records(samples: Sequence[Sample], parameters: Parameters) -> Measurement:
    """How the records of the proxy's calls divide. The same samples and parameters always give the same."""
    rows = [_record_row(sample) for sample in samples]
    findings = []
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        of = [row for row in rows if row["scenario"] == scenario]
        findings.append(f"{scenario}: {'; '.join(_division(row) for row in of)}.")
        if timed := [row for row in of if row["per_second_in_outage"] is not None]:
            rates = ", ".join(f"{row['processor']} {row['per_second_in_outage']:.3g}" for row in timed)
            slowest = ", ".join(
                f"{row['processor']} {row['p99_ms_in_outage']:,.0f}" for row in timed if row["p99_ms_in_outage"]
            )
            findings.append(
                f"{scenario}, meanwhile: calls answered per second {rates}; 99th percentile in ms {slowest}."
            )
    if durable := [row for row in rows if row["processor"] == DURABLE]:
        lost, noticed, made = (sum(row[name] for row in durable) for name in ("dropped", "noticed", "produced"))
        findings.append(
            f"durable, all scenarios: {lost} of {made:,} records lost, {noticed} of them named by the ledger as calls "
            "without a record."
        )
    faults = []
    if int(parameters["calls"]) < MINIMUM_CALLS:
        faults.append(_few(parameters["calls"], "calls", MINIMUM_CALLS))
    if float(parameters["outage_seconds"]) < MINIMUM_OUTAGE_SECONDS:
        faults.append(f"an outage of {parameters['outage_seconds']:g} s is too short: {MINIMUM_OUTAGE_SECONDS:g} s")
    for sample in samples:
        faults += _faults_of_records(sample, int(parameters["calls"]))
    return Measurement(
        samples=list(samples),
        summary={"rows": rows},
        findings=findings,
        faults=faults + busy(samples),
        caveats=[
            "one run of each: how many records a kill takes depends on its moment",
            "each run ends with SIGTERM, at which the batch processor exports what it holds: its best case",
        ],
    )


def _record_row(sample: Sample) -> dict[str, Any]:
    """A sample without its raw durations: what a table shows."""
    durations, seconds = sample["outage_ms"], sample["outage_seconds"]
    quantiles = {
        f"p{percent}_ms_in_outage": float(np.quantile(durations, percent / 100)) if durations else None
        for percent in (50, 99)
    }
    names = ("scenario", "processor", "produced", "exported", "pending", "dropped", "noticed", "duplicates")
    return {
        **{name: sample[name] for name in (*names, "pending_after_outage")},
        "failed": sum(sample["failed"].values()),
        "calls_in_outage": len(durations) if seconds else None,
        "per_second_in_outage": len(durations) / seconds if seconds else None,
        **quantiles,
    }


def _division(row: Mapping[str, Any]) -> str:
    text = (
        f"{row['processor']} {row['produced']:,} = {row['exported']:,} exported + {row['pending']:,} pending + "
        f"{row['dropped']:,} dropped"
    )
    return text + (f", and {row['failed']:,} calls without an answer" if row["failed"] else "")


def _faults_of_records(sample: Sample, calls: int) -> list[str]:
    where = f"{sample['processor']}, {sample['scenario']}"
    produced, failed, served = sample["produced"], sum(sample["failed"].values()), sample["served_by_mock"]
    faults = _not_accounted(where, sample, "produced", "exported")
    if produced + failed != calls:
        faults.append(f"{where}: {produced} answered and {failed} failed calls are not {calls}")
    if not produced <= served <= produced + failed:
        faults.append(f"{where}: {produced} calls were answered and {failed} failed, the mock counts {served}")
    if not sample["settled"]:
        faults.append(f"{where}: records were still on their way when they were counted")
    return faults


def collector(samples: Sequence[Sample], parameters: Parameters) -> Measurement:
    """Who waits because the collector is dead. The same samples and parameters always give the same."""
    groups: dict[tuple[str, str, str], list[float]] = {
        (processor, state, step): []
        for processor in PROCESSORS
        for state in (ALIVE, DEAD)
        for step in (REQUEST, PROBE)
        if any(sample["processor"] == processor for sample in samples)
    }
    for sample in samples:
        groups[sample["processor"], sample["collector"], sample["step"]].append(float(sample["seconds"]))
    rows = {key: _waiting_row(key, seconds) for key, seconds in groups.items()}
    rounds = len({sample["round"] for sample in samples})
    findings = [_waiting_in_words(processor, rows) for processor in dict.fromkeys(key[0] for key in rows)]
    findings.append(
        f"One caller, one request at a time, {to_words(str(parameters['protocol']))}; {2 * rounds} requests and "
        f"{rounds} probes in each state of the collector."
    )
    return Measurement(
        samples=list(samples),
        summary={"rows": list(rows.values()), "probe_limit_seconds": PROBE_LIMIT},
        findings=findings,
        faults=[] if rounds >= MINIMUM_RUNS else [_few(rounds, "rounds", MINIMUM_RUNS)],
        caveats=["so few requests show whether callers wait for seconds or for milliseconds, and no more"],
    )


def _waiting_row(key: tuple[str, str, str], seconds: Sequence[float]) -> dict[str, Any]:
    return {
        **dict(zip(("processor", "collector", "step"), key, strict=True)),
        "count": len(seconds),
        "least_seconds": min(seconds),
        "median_seconds": median(seconds),
        "most_seconds": max(seconds),
        "over_limit": sum(one > PROBE_LIMIT for one in seconds),
    }


def _waiting_in_words(processor: str, rows: Mapping[tuple[str, str, str], Sample]) -> str:
    def span(state: str, step: str) -> str:
        row = rows[processor, state, step]
        return f"{_in_units(row['least_seconds'])} to {_in_units(row['most_seconds'])}"

    dead = rows[processor, DEAD, PROBE]
    return (
        f"{NAMES[processor]}: requests take {span(ALIVE, REQUEST)} with a collector and {span(DEAD, REQUEST)} without; "
        f"/health/liveliness {span(ALIVE, PROBE)} and {span(DEAD, PROBE)}; {dead['over_limit']} of {dead['count']} "
        f"such probes took longer than {PROBE_LIMIT:g} s, after which Kubernetes gives up on a probe by default."
    )


def _in_units(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds * 1000:.2g} ms"
