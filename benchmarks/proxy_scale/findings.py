"""What the samples of `proxy_scale` say: requests per second and CPU time per request, by the number of workers.

A sample is one block: ``round``, ``workers``, ``arm``; ``answered``, ``errors`` by kind, ``seconds``; ``served`` by the
mock; ``records`` that reached the receiver; CPU seconds of ``proxy`` (all workers), ``mock``, ``receiver`` and
``client``, as ``*_cpu_seconds``; ``others_cores``.

The summary has ``cores`` and, in ``rows``, for each number of workers and each arm: ``requests_per_second``,
``proxy_cpu_ms`` for a request and ``busy_cores`` of all our programs together, as intervals (`statistics.Interval`),
``over_one``, the ratio of requests per second to those of one worker, paired by round, and its ``differs``; and in
``callback``, for each number of workers, the ratio of CPU time with the callback to that without, and its ``null``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.machine import QUIET_CORES
from benchmarks.harness.statistics import (
    Interval,
    Ratio,
    differs,
    in_brackets,
    in_words,
    median_interval,
    paired_ratio,
)

PLAIN, AGAIN, DURABLE = ARMS = ("plain", "again", "durable")
"""Without a callback, the same proxy asked again in the same round, and with the durable callback on one file."""
MINIMUM_ROUNDS = 5

_ALL_BUSY = 0.85  # of the cores
Sample = dict[str, Any]


def evaluate(samples: Sequence[Sample], *, cores: int) -> Measurement:
    """The measurement that ``samples`` are, on a machine with so many usable ``cores``."""
    kept = list(samples)
    counts = sorted({sample["workers"] for sample in kept})
    comparisons = 3 * len(counts) - 2  # each arm by workers, and the callback at each number of them
    rows = [_row(kept, workers, arm, counts[0], comparisons) for workers in counts for arm in (PLAIN, DURABLE)]
    callback = [_callback(kept, workers, comparisons) for workers in counts]
    return Measurement(
        samples=kept,
        summary={"cores": cores, "rows": rows, "callback": callback},
        findings=[
            *(_row_in_words(row, counts[0]) for row in rows),
            *map(_callback_in_words, callback),
            _limit(rows, cores),
            in_brackets(len({sample["round"] for sample in kept}), comparisons),
        ],
        faults=_faults(kept),
        caveats=["the mock answers at once, so this is the proxy's own limit, on one machine with client and mock"],
    )


def _runs(samples: Sequence[Sample], workers: int, arm: str) -> list[Sample]:
    chosen = (sample for sample in samples if (sample["workers"], sample["arm"]) == (workers, arm))
    return sorted(chosen, key=lambda sample: int(sample["round"]))


def _rate(sample: Sample) -> float:
    return float(sample["answered"] / sample["seconds"])


def _cpu_ms(sample: Sample) -> float:
    return float(1000 * sample["proxy_cpu_seconds"] / sample["answered"])


def _busy(sample: Sample) -> float:
    ours = sum(sample[f"{program}_cpu_seconds"] for program in ("proxy", "mock", "receiver", "client"))
    return float(ours / sample["seconds"])


def _row(samples: Sequence[Sample], workers: int, arm: str, fewest: int, comparisons: int) -> dict[str, Any]:
    runs = _runs(samples, workers, arm)

    def interval(values: list[float]) -> dict[str, Any]:
        return asdict(median_interval(values))

    rates = [_rate(run) for run in runs]
    base = [_rate(run) for run in _runs(samples, fewest, arm)]
    over = paired_ratio(rates, base, comparisons=comparisons)
    return {
        "workers": workers,
        "arm": arm,
        "requests_per_second": interval(rates),
        "proxy_cpu_ms": interval([_cpu_ms(run) for run in runs]),
        "busy_cores": interval([_busy(run) for run in runs]),
        "over_one": asdict(over),
        "differs": workers != fewest and differs(over, _null(samples, workers, _rate, comparisons)),
    }


def _null(samples: Sequence[Sample], workers: int, figure: Any, comparisons: int) -> Ratio:
    values = ([figure(run) for run in _runs(samples, workers, arm)] for arm in (AGAIN, PLAIN))
    return paired_ratio(*values, comparisons=comparisons)


def _callback(samples: Sequence[Sample], workers: int, comparisons: int) -> dict[str, Any]:
    values = ([_cpu_ms(run) for run in _runs(samples, workers, arm)] for arm in (DURABLE, PLAIN))
    ratio = paired_ratio(*values, comparisons=comparisons)
    null = _null(samples, workers, _cpu_ms, comparisons)
    return {"workers": workers, "ratio": asdict(ratio), "null": asdict(null), "differs": differs(ratio, null)}


def _counted(workers: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}"


def _row_in_words(row: dict[str, Any], fewest: int) -> str:
    text = (
        f"{_counted(row['workers'])}, {row['arm']}: {Interval(**row['requests_per_second'])} requests/s, "
        f"{Interval(**row['proxy_cpu_ms'])} ms of CPU time for each"
    )
    if row["workers"] != fewest:
        over = Ratio(**row["over_one"])
        why = "too few repeats to claim anything" if over.is_range else "no difference beyond noise"
        text += f"; over {fewest}: {over}" if row["differs"] else f"; over {fewest}: {over}, {why}"
    return f"{text}."


def _callback_in_words(entry: dict[str, Any]) -> str:
    null = Ratio(**entry["null"])
    return (
        f"{_counted(entry['workers'])}: CPU time of the proxy for a request, with the callback over without: "
        f"{in_words(Ratio(**entry['ratio']), null)}; without it, twice: {null}."
    )


def _limit(rows: Sequence[dict[str, Any]], cores: int) -> str:
    most = rows[-1]
    busy = most["busy_cores"]["median"]
    of = f"{busy:.2f} of {cores} cores were busy with {_counted(most['workers'])}, client, mock and receiver"
    if busy >= _ALL_BUSY * cores:
        return f"The cores are the limit: {of}."
    return f"The cores are not the limit: {of}."


def _faults(samples: Sequence[Sample]) -> list[str]:
    faults = []
    rounds = len({sample["round"] for sample in samples})
    if rounds < MINIMUM_ROUNDS:
        faults.append(f"{rounds} rounds are too few: a range needs at least {MINIMUM_ROUNDS}")
    for sample in samples:
        where = f"round {sample['round']}, {_counted(sample['workers'])}, {sample['arm']}"
        if sample["errors"]:
            faults.append(f"{where}: requests failed: {sample['errors']}")
        if sample["served"] != sample["answered"]:
            faults.append(f"{where}: {sample['answered']} answers, and the mock served {sample['served']}")
        expected = sample["answered"] if sample["arm"] == DURABLE else 0
        if sample["records"] != expected:
            faults.append(f"{where}: {sample['records']} records arrived, expected {expected}")
    others = fmean(sample["others_cores"] for sample in samples)
    if others > QUIET_CORES:
        faults.append(f"busy machine: others used {others:.2f} cores while it was measured, more than {QUIET_CORES}")
    return faults
