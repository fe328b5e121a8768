"""A private TracerProvider for cost spans, one per process.

Private, because the global provider is everybody's: FastAPI's and LiteLLM's own spans would run into the cost
stream. One per process and built when it is first asked for
(at the first call; with a ledger when the proxy loads the plugin), because a proxy may fork its workers after that, and
neither exporter threads nor gRPC channels survive a fork.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
)

from otel_cost_logger.identity import plugin_version
from otel_cost_logger.settings import BATCH, CONSOLE, DURABLE, GRPC, OTLP, SIMPLE, Ledger, Settings
from otel_cost_logger.termination import FlushOnTermination

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider

    from otel_cost_logger.durable import DurableSpanProcessor

_LEDGER_PATIENCE_MILLIS = 1000  # at the end of the process; what is not sent by then is in the file

_log = logging.getLogger(__name__)
_providers: dict[Settings, CostTracerProvider] = {}
_latest: tuple[Settings, CostTracerProvider] | None = None  # each call asks for it, and hashing settings takes 5 us
_lock = threading.Lock()


class CostTracerProvider(TracerProvider):
    """A provider of cost spans. ``durable`` is its durable processor, if it has one: it also notes calls that begin.
    ``meter_provider`` is where the plugin's own metrics go, if anywhere; it is shut down with this one."""

    durable: DurableSpanProcessor | None = None
    meter_provider: MeterProvider | None = None

    def shutdown(self) -> None:
        """End all processors, and then the metrics, which tell how that went."""
        super().shutdown()
        if self.meter_provider is not None:
            self.meter_provider.shutdown()


def get_tracer_provider(settings: Settings | None = None) -> CostTracerProvider:
    """This process's provider of cost spans for ``settings`` (default: the environment's), built at the first call.

    Raises `settings.SettingsError` when a variable has a value that cannot be used.
    """
    global _latest
    if _latest is not None and _latest[0] is settings:
        return _latest[1]
    settings = settings or Settings.from_environment()
    with _lock:
        if settings not in _providers:
            _providers[settings] = build_provider(settings)
        _latest = settings, _providers[settings]
        return _providers[settings]


def build_provider(settings: Settings) -> CostTracerProvider:
    """A new provider with the processors and exporters of ``settings``; the caller shuts it down."""
    provider = CostTracerProvider(resource=_resource())
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        _log.warning("OTEL_SDK_DISABLED=true: no cost span will be written")
        return provider
    if settings.metrics_protocol is not None:
        provider.meter_provider = _meter_provider(settings.metrics_protocol, provider.resource)
    exporters = list(settings.exporters)
    if settings.ledger is not None:
        # Spans are written once. A terminal shows them beside the ledger: nothing can be lost on its way there.
        otlp = OTLP in exporters
        exporter = _exporter(OTLP, settings) if otlp else None
        provider.durable = _durable(settings.ledger, exporter, provider.meter_provider)
        provider.add_span_processor(FlushOnTermination(provider.durable, _LEDGER_PATIENCE_MILLIS))
        exporters = [name for name in exporters if name != OTLP]
    for name in exporters:
        provider.add_span_processor(_processor(name, settings))
    return provider


def _durable(ledger: Ledger, exporter: SpanExporter | None, meters: MeterProvider | None) -> DurableSpanProcessor:
    # Imported where chosen, as the exporters are.
    from otel_cost_logger.durable import DurableSpanProcessor

    return DurableSpanProcessor(
        exporter, ledger.path, sync=ledger.sync, keep_days=ledger.keep_days, meter_provider=meters
    )


def _meter_provider(protocol: str, resource: Resource) -> MeterProvider:
    from otel_cost_logger.metrics import build_meter_provider

    return build_meter_provider(protocol, resource)


def _resource() -> Resource:
    # Resource.create() lets the attributes given here win over the environment's, so the name is given only
    # where the operator gave none.
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    attributes = {SERVICE_VERSION: plugin_version()}
    return Resource.create(attributes if named else attributes | {SERVICE_NAME: "litellm-proxy"})


def _processor(name: str, settings: Settings) -> SpanProcessor:
    chosen = None if settings.processor == DURABLE else settings.processor
    kind = chosen or (SIMPLE if name == CONSOLE else BATCH)
    exporter = _exporter(name, settings)
    return SimpleSpanProcessor(exporter) if kind == SIMPLE else FlushOnTermination(BatchSpanProcessor(exporter))


def _exporter(name: str, settings: Settings) -> SpanExporter:
    # Imported where chosen: the gRPC stack takes a noticeable part of the proxy's start.
    if name == CONSOLE:
        return ConsoleSpanExporter()
    if settings.protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter()


def _forget_after_fork() -> None:
    global _latest, _lock
    _latest = None
    _providers.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
