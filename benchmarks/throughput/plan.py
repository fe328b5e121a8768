"""Which runs are made: what a preset says for each kind of engine, and the order of the runs."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness.backends import MOCK
from benchmarks.harness.benchmark import PRESET, Parameters, Value, whole_numbers, words
from benchmarks.harness.rounds import in_rounds
from benchmarks.throughput.findings import (
    ARMS,
    ARMS_PHASE,
    BATCH,
    DIRECT,
    LATENCY,
    OPEN,
    PREFILL,
    PROXY,
    PROXY_AGAIN,
    SWEEP,
)

LENGTHS = ("128/32", "128/128", "1024/128", "1000/1000", "2048/2048")
"""Tokens of prompt and answer. The last four are those of most published figures; the first is for two cores."""
SHORT, FULL = SIZES = ("short", "full")
_SHORT_ARMS = ",".join((DIRECT, PROXY, PROXY_AGAIN, BATCH))
_SHORT_PHASES = ",".join((SWEEP, PREFILL, ARMS_PHASE))


def _preset(short: dict[str, Value], full: dict[str, Value]) -> dict[str, dict[str, Value]]:
    return {
        SHORT: {"phases": _SHORT_PHASES, "arms": _SHORT_ARMS, **short},
        FULL: {"phases": ",".join((SWEEP, PREFILL, ARMS_PHASE, OPEN)), "arms": ",".join(ARMS), **full},
    }


_CPU = _preset(
    {"lengths": "128/32", "concurrencies": "1,4", "loads": "4", "repeats": 3, "per_caller": 2},
    {"lengths": "128/32,128/128", "concurrencies": "1,4,16", "loads": "4,16", "repeats": 5, "per_caller": 2},
)
PRESETS = {
    MOCK: _CPU,
    "vllm-cpu": _CPU,
    "vllm": _preset(
        {"lengths": "128/128", "concurrencies": "1,32", "loads": "8", "repeats": 3, "per_caller": 3},
        {
            "lengths": "128/128,1024/128,1000/1000,2048/2048",
            "concurrencies": "1,8,32,64,128,256",
            "loads": "8,128",
            "repeats": 3,
            "per_caller": 3,
        },
    ),
}
"""By kind of engine and size, the values of all parameters that may be `PRESET`."""
_FEWEST_REQUESTS = 4


@dataclass(frozen=True)
class Run:
    """One run of a client. ``concurrency`` is None in an open loop; ``number`` is different for each run."""

    number: int
    phase: str
    repeat: int
    arm: str
    input_len: int
    output_len: int
    concurrency: int | None
    requests: int


@dataclass(frozen=True)
class Plan:
    """What is measured: the phases, the arms, and of each repeat the closed-loop runs in random order."""

    phases: tuple[str, ...]
    arms: tuple[str, ...]
    lengths: tuple[tuple[int, int], ...]
    concurrencies: tuple[int, ...]
    loads: tuple[int, ...]
    repeats: int
    per_caller: int
    seed: int

    @property
    def proxied(self) -> tuple[str, ...]:
        """The arms that need a proxy, none where no phase has one."""
        needed = {ARMS_PHASE, OPEN} & set(self.phases)
        return tuple(arm for arm in self.arms if arm != DIRECT) if needed else ()

    def warm_up(self) -> list[Run]:
        """One closed-loop run of each way that is measured, with the first lengths, so that none is cold later."""
        most = max(self.loads)
        arms = [DIRECT, *self.proxied]
        return [self._run(9_000 + n, -1, ARMS_PHASE, arm, *self.lengths[0], most) for n, arm in enumerate(arms)]

    def closed(self) -> list[Run]:
        """All closed-loop runs. Of each repeat all are made before the next, so that a cut leaves whole repeats."""
        runs = list[Run]()
        for repeat, what in in_rounds(self._of_one_repeat(), self.repeats, self.seed):
            runs.append(self._run(len(runs), repeat, *what))
        return runs

    def _of_one_repeat(self) -> list[tuple[str, str, int, int, int]]:
        first, most = self.lengths[0], self.concurrencies[-1]
        found = list[tuple[str, str, int, int, int]]()
        if SWEEP in self.phases:
            found += [(SWEEP, DIRECT, *length, c) for length in self.lengths for c in self.concurrencies]
        if PREFILL in self.phases:
            found.append((PREFILL, DIRECT, first[0], 1, most))
        if ARMS_PHASE in self.phases:
            found += [(ARMS_PHASE, arm, *first, load) for load in self.loads for arm in self.arms]
        return found

    def _run(self, number: int, repeat: int, phase: str, arm: str, i: int, o: int, concurrency: int) -> Run:
        requests = max(concurrency * self.per_caller, _FEWEST_REQUESTS)
        return Run(number, phase, repeat, arm, i, o, concurrency, requests)

    def opened(self) -> list[Run]:
        """The runs of the open loop, arms in random order within each repeat; other seeds than the closed loops'."""
        runs = list[Run]()
        for repeat, arm in in_rounds(self.arms, self.repeats, self.seed):
            runs.append(Run(10_000 + len(runs), OPEN, repeat, arm, *self.lengths[0], None, 0))
        return runs

    def fitted(self) -> list[Run]:
        """The runs with the mock that was fitted to the engine, at each concurrency with the first lengths."""
        runs = list[Run]()
        for repeat, concurrency in in_rounds(self.concurrencies, self.repeats, self.seed):
            runs.append(self._run(20_000 + len(runs), repeat, LATENCY, DIRECT, *self.lengths[0], concurrency))
        return runs


def plan(parameters: Parameters) -> Plan:
    """The plan that ``parameters`` ask for, with the presets filled in."""
    preset = PRESETS[str(parameters["engine"])][str(parameters["size"])]
    given = {name: preset[name] if parameters[name] == PRESET else parameters[name] for name in preset}
    lengths = [tuple(int(part) for part in word.split("/")) for word in words(given["lengths"])]
    return Plan(
        phases=words(given["phases"]),
        arms=tuple(arm for arm in ARMS if arm in words(given["arms"])),
        lengths=tuple((i, o) for i, o in lengths),
        concurrencies=whole_numbers(given["concurrencies"]),
        loads=whole_numbers(given["loads"]),
        repeats=int(given["repeats"]),
        per_caller=int(given["per_caller"]),
        seed=int(parameters["seed"]),
    )
