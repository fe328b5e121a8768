"""What is measured on a host with a GPU, the most valuable first, and how the same is rehearsed on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.gpu.smoke import BENCHMARK as SMOKE
from benchmarks.harness.benchmark import Benchmark, Value
from benchmarks.throughput.measure import BENCHMARK as THROUGHPUT


@dataclass(frozen=True)
class Step:
    """One benchmark with its parameters.

    ``given`` are those that differ from the defaults, ``rehearsed`` those that differ again on a CPU. ``minutes`` is
    what it is expected to take on a GPU: a step is not begun with less time left than half of that. ``proxied``: it
    needs LiteLLM.
    """

    name: str
    what: str
    benchmark: Benchmark
    minutes: float
    given: Mapping[str, Value] = field(default_factory=dict)
    rehearsed: Mapping[str, Value] = field(default_factory=dict)
    proxied: bool = False

    def parameters(self, engine: str, shape: str, attempt: int, compiles: bool) -> dict[str, Value]:
        """The benchmark's parameters on ``engine``, started as ``attempt`` says; eager where nothing ``compiles``."""
        chosen = {parameter.name: parameter.default for parameter in self.benchmark.parameters} | dict(self.given)
        if engine != "vllm":
            chosen |= self.rehearsed
        decided: dict[str, Value] = {"engine": engine, "shape": shape, "attempt": attempt}
        if not compiles:
            decided["eager"] = "yes"
        return chosen | {name: value for name, value in decided.items() if name in chosen}


_SWEEP: dict[str, Value] = {"size": "full", "phases": "sweep", "repeats": 3}
_FEW_TOKENS: dict[str, Value] = {"lengths": "128/32", "concurrencies": "1,2", "repeats": 2, "per_caller": 1}
_SOME_ARMS = "direct,proxy,proxy-again,batch"

STEPS = (
    Step(
        "smoke",
        "does it start, answer and count right, and which kernels run?",
        SMOKE,
        minutes=4,
        given={"compiled": "yes"},
        rehearsed={"compiled": "no", "requests": 4, "max_tokens": 8},
    ),
    Step(
        "sweep",
        "the engine alone with 128/128 and 1024/128 tokens, and the rates that a price is derived from",
        THROUGHPUT,
        minutes=7,
        given={**_SWEEP, "phases": "sweep,prefill", "lengths": "128/128,1024/128"},
        rehearsed=_FEW_TOKENS,
    ),
    Step(
        "attribution",
        "what proxy and callback cost, closed and open loop; the books",
        THROUGHPUT,
        minutes=8,
        given={"size": "full", "phases": "arms,open", "lengths": "128/128", "loads": "8,64", "per_caller": 2},
        rehearsed={**_FEW_TOKENS, "loads": "2", "open_seconds": 3.0},
        proxied=True,
    ),
    Step(
        "sweep-1000",
        "the engine alone with 1000/1000 tokens",
        THROUGHPUT,
        minutes=7,
        given={**_SWEEP, "lengths": "1000/1000", "per_caller": 2},
        rehearsed=_FEW_TOKENS,
    ),
    Step(
        "eager",
        "the engine alone without CUDA graphs, to be held against the first sweep",
        THROUGHPUT,
        minutes=3,
        given={**_SWEEP, "lengths": "128/128", "concurrencies": "1,32", "eager": "yes"},
        rehearsed=_FEW_TOKENS,
    ),
    *(
        Step(
            f"workers-{workers}",
            f"is the engine the limit with {workers} workers of the proxy?",
            THROUGHPUT,
            minutes=4,
            given={"size": "full", "phases": "arms", "arms": _SOME_ARMS, "loads": "64,256", "workers": workers}
            | {"lengths": "128/128", "per_caller": 2},
            rehearsed={**_FEW_TOKENS, "loads": "2", "arms": "direct,proxy", "workers": 2},
            proxied=True,
        )
        for workers in (4, 8)
    ),
    Step(
        "sweep-2048",
        "the engine alone with 2048/2048 tokens",
        THROUGHPUT,
        minutes=14,
        given={**_SWEEP, "lengths": "2048/2048", "per_caller": 2},
        rehearsed=_FEW_TOKENS,
    ),
    Step(
        "proxy-scale",
        "workers of one proxy in front of the mock, on this host's cores",
        THROUGHPUT,
        minutes=3,
        given={"phases": "workers", "counts": "1,2,4,8"},
        rehearsed={"counts": "1,2", "rounds": 2},
        proxied=True,
    ),
)
"""In order of value: whoever has less time measures a beginning of it."""
NAMES = tuple(step.name for step in STEPS)
