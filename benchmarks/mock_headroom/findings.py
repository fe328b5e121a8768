"""What the samples of `mock_headroom` say: ratios with intervals, sentences, and reasons to distrust them.

A sample is one block: ``round``, ``shape`` (plain or streamed), ``arm`` (mock, mock_again or proxy); ``answered``
requests, ``errors`` by kind, ``seconds``; ``served_by_mock`` and ``spans``, the mock's and the receiver's own
counts of the same requests; CPU seconds of client, mock, proxy and receiver; ``others_cores``, what everybody
else used of the machine meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from benchmarks.harness.benchmark import Measurement
from benchmarks.harness.machine import QUIET_CORES
from benchmarks.harness.statistics import Ratio, at_least, in_brackets, in_words, paired_ratio, resolution

TARGET = 5.0
MINIMUM_ROUNDS = 10
WARM_UP_ROUNDS = 1

MOCK, MOCK_AGAIN, PROXY = "mock", "mock_again", "proxy"
ARMS = (MOCK, MOCK_AGAIN, PROXY)
SHAPES = ("plain", "streamed")

_COMPARISONS = 6
# Cores; a client that uses more may itself be what limits the rate.
_CLIENT_LIMIT = 0.9

Sample = dict[str, Any]


def evaluate(samples: Sequence[Sample]) -> Measurement:
    """The measurement that ``samples`` are. The same samples give the same one."""
    kept = list(samples)
    faults = _faults(kept)
    if not all(sample["answered"] for sample in kept):
        return Measurement(kept, {}, ["Nothing was found: some blocks have no answer at all."], faults)
    shapes = {shape: _Shape(shape, kept) for shape in SHAPES}
    findings = [sentence for shape in shapes.values() for sentence in shape.findings()]
    missed = [name for name, shape in shapes.items() if not shape.target_reached]
    one = shapes[SHAPES[0]].rate
    findings += [
        f"At least {TARGET:g} times the requests per second that the proxy can ask of the mock: "
        + (f"not shown for {' and '.join(missed)} answers." if missed else "shown, for plain and streamed answers."),
        f"{in_brackets(one.rounds, _COMPARISONS)} {WARM_UP_ROUNDS} round of warm-up was not kept.",
    ]
    return Measurement(
        samples=kept,
        summary={
            "target": {"factor": TARGET, "reached": not missed},
            **{name: shape.summary() for name, shape in shapes.items()},
        },
        findings=findings,
        faults=faults + [fault for shape in shapes.values() for fault in shape.faults()],
        caveats=_caveats(kept),
    )


class _Shape:
    """The comparisons for one shape of answer; mock over proxy in rate, proxy over mock in CPU time."""

    def __init__(self, name: str, samples: Sequence[Sample]) -> None:
        self._name = name
        self._arms = {
            arm: sorted(
                (sample for sample in samples if (sample["shape"], sample["arm"]) == (name, arm)),
                key=lambda sample: int(sample["round"]),
            )
            for arm in ARMS
        }

        def ratio(above: list[float], below: list[float]) -> Ratio:
            return paired_ratio(above, below, comparisons=_COMPARISONS)

        self.rate = ratio(self._each(MOCK, _rate), self._each(PROXY, _rate))
        self.null_rate = ratio(self._each(MOCK, _rate), self._each(MOCK_AGAIN, _rate))
        self.cpu = ratio(self._each(PROXY, _proxy_cpu), self._each(MOCK, _mock_cpu))
        self.cpu_while_asked = ratio(self._each(PROXY, _proxy_cpu), self._each(PROXY, _mock_cpu))
        self.null_cpu = ratio(self._each(MOCK, _mock_cpu), self._each(MOCK_AGAIN, _mock_cpu))

    def _each(self, arm: str, measure: Callable[[Sample], float]) -> list[float]:
        return [measure(sample) for sample in self._arms[arm]]

    def _median(self, arm: str, measure: Callable[[Sample], float]) -> float:
        return median(self._each(arm, measure))

    @property
    def target_reached(self) -> bool:
        return at_least(self.rate, TARGET, self.null_rate)

    def summary(self) -> dict[str, Any]:
        return {
            "requests_per_second_mock_over_proxy": asdict(self.rate),
            "requests_per_second_mock_over_mock": asdict(self.null_rate),
            "cpu_per_request_proxy_over_mock": asdict(self.cpu),
            "cpu_per_request_proxy_over_mock_while_the_proxy_asks": asdict(self.cpu_while_asked),
            "cpu_per_request_mock_over_mock": asdict(self.null_cpu),
            "median_requests_per_second": {arm: self._median(arm, _rate) for arm in ARMS},
            "median_cpu_microseconds_per_request": {
                "mock": self._median(MOCK, _mock_cpu) * 1e6,
                "mock_while_the_proxy_asks": self._median(PROXY, _mock_cpu) * 1e6,
                "proxy": self._median(PROXY, _proxy_cpu) * 1e6,
            },
        }

    def findings(self) -> list[str]:
        noise = max(resolution(self.null_rate), resolution(self.null_cpu))
        proxy, mock = (f"{self._median(*of) * 1000:.3g} ms" for of in ((PROXY, _proxy_cpu), (MOCK, _mock_cpu)))
        return [
            f"{self._name}: requests per second, mock over proxy: {in_words(self.rate, self.null_rate)} "
            f"(medians {self._median(MOCK, _rate):,.0f} and {self._median(PROXY, _rate):,.0f}).",
            f"{self._name}: CPU time per request, proxy over mock: {in_words(self.cpu, self.null_cpu)} "
            f"(medians {proxy} and {mock}); over that of the mostly idle mock while the proxy asks: "
            f"{in_words(self.cpu_while_asked, self.null_cpu)}.",
            f"{self._name}: the mock over itself: {self.null_rate} in requests per second, {self.null_cpu} in CPU "
            f"time; no factor below {noise:.3g} would be claimed.",
        ]

    def faults(self) -> list[str]:
        return [
            f"{self._name}: the A/A comparison of {what} should contain 1 and is {null}: the noise differs between arms"
            for what, null in (("requests per second", self.null_rate), ("CPU time", self.null_cpu))
            if not null.may_be_one
        ]


def _rate(sample: Sample) -> float:
    return float(sample["answered"] / sample["seconds"])


def _proxy_cpu(sample: Sample) -> float:
    return float(sample["proxy_cpu_seconds"] / sample["answered"])


def _mock_cpu(sample: Sample) -> float:
    return float(sample["mock_cpu_seconds"] / sample["answered"])


def _faults(samples: Sequence[Sample]) -> list[str]:
    faults = []
    rounds = len({sample["round"] for sample in samples})
    if rounds < MINIMUM_ROUNDS:
        faults.append(f"{rounds} rounds are too few: an interval needs at least {MINIMUM_ROUNDS}")
    for sample in samples:
        where = f"round {sample['round']}, {sample['shape']}, {sample['arm']}"
        if sample["errors"]:
            kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(sample["errors"].items()))
            faults.append(f"{where}: failed requests ({kinds}) beside {sample['answered']} good ones")
        elif sample["served_by_mock"] != sample["answered"]:
            faults.append(
                f"{where}: the client counts {sample['answered']} answers, the mock {sample['served_by_mock']}"
            )
        expected_spans = sample["answered"] if sample["arm"] == PROXY else 0
        if not sample["errors"] and sample["spans"] != expected_spans:
            faults.append(f"{where}: {sample['spans']} spans arrived, expected {expected_spans}")
    others = fmean(sample["others_cores"] for sample in samples)
    if others > QUIET_CORES:
        faults.append(f"busy machine: others used {others:.2f} cores while it was measured, more than {QUIET_CORES}")
    return faults


def _caveats(samples: Sequence[Sample]) -> list[str]:
    caveats = []
    for arm in ARMS:
        cores = max(sample["client_cpu_seconds"] / sample["seconds"] for sample in samples if sample["arm"] == arm)
        if cores > _CLIENT_LIMIT:
            caveats.append(f"the client used up to {cores:.2f} cores in {arm} blocks: their rate is a lower bound")
    return caveats
