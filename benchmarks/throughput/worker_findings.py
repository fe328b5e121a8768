"""What the samples of *workers* say: requests per second and CPU time for each, by the number of workers.

A sample is one block: ``round``, ``answer`` (plain or streamed), ``workers`` (0: the mock itself was asked), ``arm``;
``answered``, ``errors`` by kind, ``seconds``; ``served`` by the mock; ``records`` that reached the receiver; CPU
seconds of ``proxy`` (all workers), ``mock``, ``receiver`` and ``client``, as ``*_cpu_seconds``; ``others_cores``.

The summary has ``cores`` and, in ``rows``, for each number of workers and each arm: ``requests_per_second``,
``proxy_cpu_ms`` for a request and ``busy_cores`` of all our programs together, as intervals (`statistics.Interval`),
``over_one``, the ratio of requests per second to those of the fewest workers, paired by round, and its ``differs``; in
``callback``, for each number of workers, the ratio of CPU time with the callback to that without, and its ``null``; and
in ``headroom``, by answer, how much more the mock serves than the proxy asks of it, in requests per second and in CPU
time, and the mock over itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.faults import busy, kinds, too_few
from benchmarks.harness.rounds import Rounds, Sample, per, stored
from benchmarks.harness.statistics import Ratio, at_least, differs, in_words

PLAIN, AGAIN, DURABLE = PROXY_ARMS = ("plain", "again", "durable")
"""Without a callback, the same proxy asked again in the same round, and with the durable callback on one file."""
MOCK, MOCK_AGAIN = "mock", "mock_again"
COMPLETE, STREAMED = "plain", "streamed"
MINIMUM_ROUNDS = 5
TARGET = 5.0  # the mock's requests per second over those that the proxy asks

_CONFIDENCE = 0.95
_ALL_BUSY = 0.85  # of the cores

_rate = per("answered", "seconds", 1)
_mock_cpu = per("mock_cpu_seconds", "answered", 1000)


def _proxy_cpu(sample: Sample) -> float:
    return float(1000 * sample["proxy_cpu_seconds"] / sample["answered"])


def _busy_cores(sample: Sample) -> float:
    ours = sum(sample[f"{program}_cpu_seconds"] for program in ("proxy", "mock", "receiver", "client"))
    return float(ours / sample["seconds"])


def evaluate(samples: Sequence[Sample], *, seed: int, cores: int) -> Measurement:
    """The measurement that ``samples`` are, on a machine with so many usable ``cores``."""
    # Older results have no streamed answers, and nothing of the mock itself.
    kept = [{"answer": COMPLETE, **sample} for sample in samples]
    blocks = Rounds(kept, "answer", "workers", "arm", seed=seed, confidence=_CONFIDENCE)
    counts = sorted({workers for _, workers, _ in blocks.groups if workers})
    rows = [_row(blocks, workers, arm, counts[0]) for workers in counts for arm in (PLAIN, DURABLE)]
    callback = [_callback(blocks, workers) for workers in counts]
    answers = [answer for answer in (COMPLETE, STREAMED) if (answer, 0, MOCK) in blocks.groups]
    headroom = {answer: _headroom(blocks, answer, counts[0]) for answer in answers}
    return Measurement(
        samples=list(samples),
        summary=stored({"cores": cores, "rows": rows, "callback": callback, "headroom": headroom}),
        findings=[
            *(_row_in_words(row, counts[0]) for row in rows),
            *(
                f"{_counted(entry['workers'])}: CPU time of the proxy for a request, with the callback over without: "
                f"{in_words(entry['ratio'], entry['null'])}."
                for entry in callback
            ),
            _limit(rows[-1], cores),
            *(_headroom_in_words(answer, found) for answer, found in headroom.items()),
            f"In brackets: {_CONFIDENCE:.0%} intervals over {blocks.count} rounds.",
        ],
        faults=_faults(kept, blocks.count),
        caveats=["the mock answers at once, so this is the proxy's own limit, on one machine with client and mock"],
    )


def _row(blocks: Rounds, workers: int, arm: str, fewest: int) -> dict[str, Any]:
    here = (COMPLETE, workers, arm)
    over = blocks.ratio(here, (COMPLETE, fewest, arm), _rate)
    null = blocks.ratio((COMPLETE, workers, AGAIN), (COMPLETE, workers, PLAIN), _rate)
    return {
        "workers": workers,
        "arm": arm,
        "requests_per_second": blocks.interval(here, _rate),
        "proxy_cpu_ms": blocks.interval(here, _proxy_cpu),
        "busy_cores": blocks.interval(here, _busy_cores),
        "over_one": over,
        "differs": workers != fewest and differs(over, null),
    }


def _callback(blocks: Rounds, workers: int) -> dict[str, Any]:
    ratio, null = (
        blocks.ratio((COMPLETE, workers, arm), (COMPLETE, workers, PLAIN), _proxy_cpu) for arm in (DURABLE, AGAIN)
    )
    return {"workers": workers, "ratio": ratio, "null": null, "differs": differs(ratio, null)}


def _headroom(blocks: Rounds, answer: str, fewest: int) -> dict[str, Any]:
    mock, again, proxy = (answer, 0, MOCK), (answer, 0, MOCK_AGAIN), (answer, fewest, DURABLE)
    return {
        "requests_per_second_mock_over_proxy": blocks.ratio(mock, proxy, _rate),
        "requests_per_second_mock_over_mock": blocks.ratio(mock, again, _rate),
        "cpu_per_request_proxy_over_mock": blocks.ratio(proxy, mock, _proxy_cpu, _mock_cpu),
        "cpu_per_request_mock_over_mock": blocks.ratio(mock, again, _mock_cpu),
    }


def _counted(workers: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}"


def _row_in_words(row: Mapping[str, Any], fewest: int) -> str:
    text = (
        f"{_counted(row['workers'])}, {row['arm']}: {row['requests_per_second']} requests/s, {row['proxy_cpu_ms']} ms "
        "of CPU time for each"
    )
    if row["workers"] != fewest:
        text += f"; over {fewest}: {row['over_one']}{'' if row['differs'] else ', no difference beyond noise'}"
    return f"{text}."


def _limit(most: Mapping[str, Any], cores: int) -> str:
    is_limit = most["busy_cores"].median >= _ALL_BUSY * cores
    return (
        f"The cores are {'' if is_limit else 'not '}the limit: {most['busy_cores'].median:.2f} of {cores} cores were "
        f"busy with {_counted(most['workers'])}, client, mock and receiver."
    )


def _headroom_in_words(answer: str, found: Mapping[str, Ratio]) -> str:
    rate, null = found["requests_per_second_mock_over_proxy"], found["requests_per_second_mock_over_mock"]
    shown = "reached" if at_least(rate, TARGET, null) else "not shown"
    return (
        f"{answer} answers, requests per second, the mock over the proxy with the callback: {in_words(rate, null)}; "
        f"{TARGET:g} times is {shown}."
    )


def _faults(samples: Sequence[Sample], rounds: int) -> list[str]:
    faults = too_few(rounds, MINIMUM_ROUNDS)
    for sample in samples:
        where = f"round {sample['round']}, {sample['answer']}, {_counted(sample['workers'])}, {sample['arm']}"
        if sample["errors"]:
            faults.append(f"{where}: requests failed: {kinds(sample['errors'])}")
        if sample["served"] != sample["answered"]:
            faults.append(f"{where}: {sample['answered']} answers, and the mock served {sample['served']}")
        expected = sample["answered"] if sample["arm"] == DURABLE else 0
        if sample["records"] != expected:
            faults.append(f"{where}: {sample['records']} records arrived, expected {expected}")
    return faults + busy(samples)
