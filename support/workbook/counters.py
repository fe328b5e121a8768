"""What an engine has counted itself: vLLM's Prometheus counters, read at a moment when nothing is under way.

Which counter moves when (vLLM 0.32): ``prompt_tokens`` with the first token of a request, ``generation_tokens`` with
every token, the histograms ``request_prompt_tokens`` and ``request_generation_tokens`` and ``request_success`` when a
request finishes. A request that its client aborts stays in the first two and never enters the others. A call with
``n`` choices, or with several prompts, is as many requests, and each counts its prompt.
"""

from __future__ import annotations

import operator
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT = 10.0  # seconds for one answer; an engine under load is slow, not silent
_BETWEEN_READS = 0.25  # seconds; longer than a step of the engine with anything to do takes

_STARTED = "process_start_time_seconds"
_REQUESTS = "vllm:request_success_total"
# Each counter of `ModelCounters`, and the samples that it is the sum of.
_SAMPLES = {
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "generation_tokens": ("vllm:generation_tokens_total",),
    "finished_prompt_tokens": ("vllm:request_prompt_tokens_sum",),
    "finished_generation_tokens": ("vllm:request_generation_tokens_sum",),
    "requests": (_REQUESTS,),
    "cache_queries": ("vllm:prefix_cache_queries_total", "vllm:external_prefix_cache_queries_total"),
    "cache_hits": ("vllm:prefix_cache_hits_total", "vllm:external_prefix_cache_hits_total"),
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
}
_NEEDED = "vllm:prompt_tokens_total"


class EngineUnreadable(RuntimeError):
    """There are no counters of a vLLM at an address."""


class EngineBusy(TimeoutError):
    """An engine still had requests, or its counters still moved, when the time was up."""


class EngineRestarted(RuntimeError):
    """Counters went back: the engine that was read first is not the one that was read last."""


@dataclass(frozen=True, slots=True)
class ModelCounters:
    """One model's counters since its engine started. Tokens and requests are counts.

    ``prompt_tokens`` and ``generation_tokens`` are all that were processed; those that begin with ``finished`` leave
    out the requests that were aborted. ``requests`` are the finished ones, also those by reason. ``cache_queries``
    and ``cache_hits`` are prompt tokens looked up and found in the prefix cache.
    """

    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished_prompt_tokens: int = 0
    finished_generation_tokens: int = 0
    requests: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    running: int = 0
    waiting: int = 0
    requests_by_reason: Mapping[str, int] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """True when no request runs or waits."""
        return not self.running and not self.waiting

    def __add__(self, other: ModelCounters) -> ModelCounters:
        return self._combined(other, operator.add)

    def __sub__(self, other: ModelCounters) -> ModelCounters:
        return self._combined(other, operator.sub)

    def _combined(self, other: ModelCounters, combine: Callable[[int, int], int]) -> ModelCounters:
        counts = {name: combine(getattr(self, name), getattr(other, name)) for name in _SAMPLES}
        reasons = self.requests_by_reason.keys() | other.requests_by_reason.keys()
        by_reason = {
            reason: combine(self.requests_by_reason.get(reason, 0), other.requests_by_reason.get(reason, 0))
            for reason in sorted(reasons)
        }
        return ModelCounters(**counts, requests_by_reason=by_reason)


@dataclass(frozen=True, slots=True)
class OneEngine:
    """The counters of one server process: by model name, as its metrics name it.

    ``started`` is the process's start in Unix seconds, None where it is not told (several API servers). ``names`` are
    all names that the server answers to, aliases and adapters, each with the model name that counts it.
    ``context`` is the most tokens that one request can have, prompt included; None where it is not told.
    """

    models: Mapping[str, ModelCounters]
    started: float | None
    names: Mapping[str, str]
    context: int | None


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """The counters of one engine, or of several behind the same gateway, by URL, and when they were read (UTC)."""

    engines: Mapping[str, OneEngine]
    read_at: datetime

    @property
    def models(self) -> dict[str, ModelCounters]:
        """The sums over all engines, by model name."""
        return _sums(engine.models for engine in self.engines.values())

    @property
    def names(self) -> dict[str, str]:
        """Every name that an engine answers to, with the model name that counts it."""
        return {name: model for engine in self.engines.values() for name, model in engine.names.items()}

    @property
    def context(self) -> int | None:
        """The most tokens that one request can have on any of the engines; None where one does not tell."""
        lengths = [engine.context for engine in self.engines.values()]
        known = [length for length in lengths if length is not None]
        return max(known) if len(known) == len(lengths) else None

    @property
    def idle(self) -> bool:
        """True when no request runs or waits."""
        return all(model.idle for model in self.models.values())

    def since(self, before: EngineCounters) -> dict[str, ModelCounters]:
        """What was counted since ``before``, by model name.

        Raises ValueError when ``before`` is of other engines, and `EngineRestarted` when one of them was started
        anew in between: what it had counted by then is in no counter any more.
        """
        if self.engines.keys() != before.engines.keys():
            raise ValueError(
                f"the counters are of different engines: before {', '.join(before.engines)}, "
                f"after {', '.join(self.engines)}"
            )
        return _sums(_grown(url, before.engines[url], now) for url, now in self.engines.items())


def read_counters(*urls: str) -> EngineCounters:
    """The counters of the vLLM servers at ``urls``, from their ``/metrics``.

    The names and the context length come from ``/v1/models``; where that asks for a key, a model is known by the
    name in its metrics alone, and no context length is told. Several servers are read as one: for a model that
    a gateway spreads over them. Raises `EngineUnreadable`, and ValueError without a URL.
    """
    if not urls:
        raise ValueError("name the URL of at least one engine, for example http://127.0.0.1:8000")
    with httpx.Client(timeout=_TIMEOUT, trust_env=False) as http:
        engines = {url: _read(http, url) for url in (url.rstrip("/").removesuffix("/v1") for url in urls)}
    return EngineCounters(engines, datetime.now(UTC))


def wait_idle(*urls: str, timeout: float = 30.0) -> EngineCounters:
    """The counters of the servers at ``urls``, as soon as nothing runs or waits and two reads agree.

    The last tokens of an aborted request are counted after its client has gone. A request that has not reached the
    engine yet is not seen: have every answer, or the hanging up, behind you. Raises `EngineBusy` after ``timeout``
    seconds, and what `read_counters` raises.
    """
    deadline = time.monotonic() + timeout
    earlier = read_counters(*urls)
    while True:
        time.sleep(_BETWEEN_READS)
        now = read_counters(*urls)
        if now.idle and now.engines == earlier.engines:
            return now
        if time.monotonic() > deadline:
            under_way = ", ".join(
                f"{name}: {model.running} running, {model.waiting} waiting" for name, model in now.models.items()
            )
            raise EngineBusy(f"{', '.join(urls)} not idle within {timeout:g} s ({under_way})")
        earlier = now


def _read(http: httpx.Client, url: str) -> OneEngine:
    try:
        answer = http.get(f"{url}/metrics")
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise EngineUnreadable(f"no answer from {url}/metrics ({reason}); is the engine running there?") from error
    try:
        families = list(text_string_to_metric_families(answer.text)) if answer.is_success else []
    except ValueError:
        families = []
    models = _models(families)
    if not models:
        raise EngineUnreadable(
            f"{url}/metrics (HTTP {answer.status_code}) has no {_NEEDED}: not a vLLM server; "
            "give the engine's own address, not the gateway's"
        )
    names, context = _names(http, url, list(models))
    started = next((sample.value for family in families for sample in family.samples if sample.name == _STARTED), None)
    return OneEngine(models, started, names, context)


def _models(families: list[Metric]) -> dict[str, ModelCounters]:
    """Sums over the label ``engine``: a server with data parallelism has several engine cores."""
    counter_of = {sample: counter for counter, samples in _SAMPLES.items() for sample in samples}
    counts: defaultdict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_SAMPLES, 0))
    reasons: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    found = set()
    for sample in (sample for family in families for sample in family.samples if sample.name in counter_of):
        model = sample.labels.get("model_name", "")
        found.add(sample.name)
        counts[model][counter_of[sample.name]] += int(sample.value)
        if sample.name == _REQUESTS:
            reasons[model][sample.labels.get("finished_reason", "")] += int(sample.value)
    if _NEEDED not in found:
        return {}
    return {
        model: ModelCounters(**count, requests_by_reason=dict(sorted(reasons[model].items())))
        for model, count in sorted(counts.items())
    }


def _names(http: httpx.Client, url: str, models: list[str]) -> tuple[dict[str, str], int | None]:
    own = {model: model for model in models}
    try:
        answer = http.get(f"{url}/v1/models")
        entries = answer.json()["data"] if answer.is_success else []
        lengths = [length for entry in entries if isinstance(length := entry.get("max_model_len"), int)]
        # All that one server answers to is counted under the first of its names.
        aliases = {str(entry["id"]): models[0] for entry in entries} if len(models) == 1 else {}
    except (httpx.TransportError, ValueError, KeyError, TypeError, AttributeError):
        return own, None
    return aliases | own, max(lengths, default=None)


def _grown(url: str, earlier: OneEngine, now: OneEngine) -> dict[str, ModelCounters]:
    nothing = ModelCounters()
    grown = {
        name: now.models.get(name, nothing) - earlier.models.get(name, nothing)
        for name in now.models.keys() | earlier.models.keys()
    }
    went_back = any(min(model.prompt_tokens, model.generation_tokens, model.requests) < 0 for model in grown.values())
    if now.started != earlier.started or went_back:
        raise EngineRestarted(
            f"the engine at {url} was started anew between the two reads, and what it had counted is lost; "
            "read the counters after its start and reconcile the calls made from then on"
        )
    return grown


def _sums(parts: Iterable[Mapping[str, ModelCounters]]) -> dict[str, ModelCounters]:
    sums: defaultdict[str, ModelCounters] = defaultdict(ModelCounters)
    for part in parts:
        for name, counters in part.items():
            sums[name] += counters
    return dict(sorted(sums.items()))
