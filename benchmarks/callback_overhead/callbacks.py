"""The callbacks that are compared. Each leaves one record per call and says how many it has left.

Those that make spans do so with OpenTelemetry's SDK and a processor that only counts: what they cost is their own work
and the SDK's, not an exporter's. Those with an exporter are ours, with each span processor, sending OTLP over HTTP.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from benchmarks.callback_overhead import names
from benchmarks.callback_overhead.calls import own_hooks, timed
from otel_cost_logger import logger as ours_module
from otel_cost_logger import span as span_module
from otel_cost_logger.logger import OtelCostLogger
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import BATCH, DURABLE, HTTP_PROTOBUF, OTLP, SIMPLE, Ledger, Settings

_PATIENCE_MILLIS = 60_000
_PROXY_MODULE = "litellm.proxy.proxy_server"


class Parts:
    """CPU time of the parts of ours: the record, the attributes, and the whole span with them.

    `in_place` exchanges the functions that ours calls.
    """

    def __init__(self) -> None:
        self.times = {"record": 0, "attributes": 0, "span": 0}
        lock = threading.Lock()

        def add(name: str, began: int) -> None:
            used = time.thread_time_ns() - began
            with lock:
                self.times[name] += used

        places = (
            ("record", ours_module, "build_record"),
            ("span", ours_module, "emit_span"),
            ("attributes", span_module, "attributes_of"),
        )
        self._swaps = [
            (module, function, own, timed(own, functools.partial(add, name)))
            for name, module, function in places
            for own in [getattr(module, function)]
        ]

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The parts are timed while the block runs."""
        for module, function, _, instead in self._swaps:
            setattr(module, function, instead)
        try:
            yield
        finally:
            for module, function, own, _ in self._swaps:
                setattr(module, function, own)


@dataclass
class Callback:
    """One callback to be measured: what LiteLLM is given, and how many records it has left so far.

    ``in_place`` surrounds a block: it puts into place what LiteLLM is not given. ``times`` are nanoseconds of CPU time
    so far, of parts that are timed inside.
    """

    logger: CustomLogger | None
    records: Callable[[], int]
    flush: Callable[[], object] = lambda: None
    close: Callable[[], None] = lambda: None
    in_place: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    times: Mapping[str, int] = field(default_factory=dict)


class CountingProcessor(SpanProcessor):
    """Counts finished spans that have no parent; with ``keep`` also has the last of them."""

    def __init__(self, *, keep: bool = False) -> None:
        self.count = 0
        self.last: ReadableSpan | None = None
        self._keep = keep

    def on_end(self, span: ReadableSpan) -> None:
        """Count it."""
        if span.parent is None:
            self.count += 1
        if self._keep:
            self.last = span


class _EachCall(CustomLogger):
    """Does the same in LiteLLM's sync hook and in its async one."""

    def record(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Leave the record of one call."""
        raise NotImplementedError

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.record(kwargs, response_obj, start_time, end_time)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.record(kwargs, response_obj, start_time, end_time)


class Noop(_EachCall):
    """Hooks that only count: what LiteLLM itself spends on having a callback."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """Nothing."""

    def record(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Only count."""
        self.count += 1


class BareSpan(_EachCall):
    """The floor: one SDK span with ready-made attributes, given at its start, and nothing else."""

    def __init__(self, provider: TracerProvider, span: ReadableSpan) -> None:
        super().__init__()
        self._tracer = provider.get_tracer("bare")
        self._name = span.name
        self._attributes = dict(span.attributes or {})

    def record(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """One span from now to now."""
        now = time.time_ns()
        self._tracer.start_span(self._name, attributes=self._attributes, start_time=now).end(now)


class JsonLine(_EachCall):
    """A floor without OpenTelemetry: the same facts as one line of JSON in a buffered file."""

    def __init__(self, path: Path, attributes: Mapping[str, Any]) -> None:
        super().__init__()
        self._attributes = dict(attributes)
        self._file = path.open("w", encoding="utf-8")
        self.count = 0

    def record(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """One line."""
        self._file.write(json.dumps({**self._attributes, "at": time.time_ns()}) + "\n")
        self.count += 1

    def close(self) -> None:
        """Write out what is buffered."""
        self._file.close()


class Naive(_EachCall):
    """As tutorials write it: the cost computed anew for each call, attributes one by one in an active span."""

    def __init__(self, provider: TracerProvider) -> None:
        super().__init__()
        self._tracer = provider.get_tracer("naive")

    def record(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """One span of nine attributes."""
        metadata = kwargs["litellm_params"].get("metadata") or {}
        usage = response_obj.usage
        try:
            cost = litellm.completion_cost(completion_response=response_obj, model=kwargs["model"])
        except Exception:
            cost = 0.0
        with self._tracer.start_as_current_span(f"llm.completion.{kwargs['call_type']}") as span:
            span.set_attribute("llm.model", kwargs["model"])
            span.set_attribute("llm.call_type", kwargs["call_type"])
            span.set_attribute("llm.tenant_id", metadata.get("tenant_id", "default"))
            span.set_attribute("llm.prompt_tokens", usage.prompt_tokens)
            span.set_attribute("llm.completion_tokens", usage.completion_tokens)
            span.set_attribute("llm.total_tokens", usage.total_tokens)
            span.set_attribute("llm.cost_usd", round(cost, 8))
            span.set_attribute("llm.duration_ms", round((end_time - start_time).total_seconds() * 1000, 2))
            span.set_attribute("llm.success", True)


class Debt:
    """What of the planted time is still to be used, in ns: a spin ends late, and its clocks take time, too."""

    def __init__(self) -> None:
        self._owed = 0.0
        began = time.thread_time_ns()
        for _ in range(1000):
            time.thread_time_ns()
        self._clock = (time.thread_time_ns() - began) / 1000

    def spin(self, began: int) -> None:
        """Use `PLANTED` of the CPU time that this thread has used since ``began``, over all calls together."""
        now = last = time.thread_time_ns()
        # Two clocks are read beside the spinning: before the hook, and after it.
        self._owed += names.PLANTED * (now - began) - 2 * self._clock
        while last - now < self._owed:
            last = time.thread_time_ns()
        self._owed -= last - now


class _NoProxy(MetaPathFinder):
    """LiteLLM's own OpenTelemetry loggers import the proxy's server if they can, and with it the plugin would take
    itself to be behind a proxy. Nothing here is."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        """Refuse the proxy's server; everything else is looked for elsewhere."""
        if name == _PROXY_MODULE:
            raise ModuleNotFoundError("measured without the proxy's server", name=name)


def without_proxy() -> None:
    """From now on the proxy's server cannot be imported into this process."""
    assert _PROXY_MODULE not in sys.modules
    sys.meta_path.insert(0, _NoProxy())


def template() -> tuple[OtelCostLogger, CountingProcessor]:
    """Ours with a processor that keeps the last span: its name and attributes are what floors are given."""
    provider = build_provider(Settings(exporters=()))
    return OtelCostLogger(Settings(exporters=()), provider), _counted(provider, keep=True)


def make(name: str, span: ReadableSpan, folder: Path) -> Callback:
    """The callback ``name``; floors write what is in ``span``.

    Files are made in ``folder``. Those with an exporter send to where OTEL_EXPORTER_OTLP_ENDPOINT says.
    """
    if name in (names.NOOP, names.NOOP_AGAIN):
        noop = Noop()
        return Callback(noop, lambda: noop.count)
    if name == names.JSON_LINE:
        line = JsonLine(folder / "lines.jsonl", span.attributes or {})
        return Callback(line, lambda: line.count, close=line.close)
    if name.startswith(names.OURS):
        return _ours(name, folder)
    provider = TracerProvider()
    counting = _counted(provider)
    if name in names.OTHERS:
        from benchmarks.callback_overhead.others import Wrapping

        wrapping = Wrapping(name, provider)
        return Callback(None, lambda: counting.count, close=provider.shutdown, in_place=wrapping.in_place)
    logger = BareSpan(provider, span) if name == names.BARE_SPAN else _LOGGERS[name](provider)
    return Callback(logger, lambda: counting.count, close=provider.shutdown)


def _ours(name: str, folder: Path) -> Callback:
    settings = Settings(exporters=())
    if processor := _PROCESSORS.get(name):
        ledger = Ledger(folder / "ledger.db") if processor == DURABLE else None
        settings = Settings(exporters=(OTLP,), protocol=HTTP_PROTOBUF, processor=processor, ledger=ledger)
    provider = build_provider(settings)
    counting = _counted(provider)
    logger = OtelCostLogger(settings, provider)
    if name == names.OURS_SLOWER:
        debt = Debt()
        for hook in own_hooks(logger):
            setattr(logger, hook, timed(getattr(logger, hook), debt.spin))
    callback = Callback(logger, lambda: counting.count, close=provider.shutdown)
    if processor:
        callback.flush = lambda: provider.force_flush(_PATIENCE_MILLIS)
    if name == names.OURS_PARTS:
        parts = Parts()
        callback.in_place, callback.times = parts.in_place, parts.times
    return callback


def _counted(provider: TracerProvider, *, keep: bool = False) -> CountingProcessor:
    counting = CountingProcessor(keep=keep)
    provider.add_span_processor(counting)
    return counting


def _otel_v1(provider: TracerProvider) -> CustomLogger:
    from litellm.integrations.opentelemetry import OpenTelemetry, OpenTelemetryConfig

    logger: CustomLogger = OpenTelemetry(config=OpenTelemetryConfig(exporter="in_memory"), tracer_provider=provider)
    return logger


def _otel_v2(provider: TracerProvider) -> CustomLogger:
    from litellm.integrations.otel.logger import OpenTelemetryV2
    from litellm.integrations.otel.model.config import OpenTelemetryV2Config

    logger: CustomLogger = OpenTelemetryV2(config=OpenTelemetryV2Config(exporter="in_memory"), tracer_provider=provider)
    return logger


_LOGGERS: dict[str, Callable[[TracerProvider], CustomLogger]] = {
    names.NAIVE: Naive,
    names.OTEL_V1: _otel_v1,
    names.OTEL_V2: _otel_v2,
}
_PROCESSORS = {names.OURS_SIMPLE: SIMPLE, names.OURS_BATCH: BATCH, names.OURS_DURABLE: DURABLE}
