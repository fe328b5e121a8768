"""A LiteLLM callback that leaves one OpenTelemetry span per LLM call: who, which model, how many tokens, what cost.

Behind the proxy, name the ready instance in the configuration (an instance: the proxy refuses a class)::

    litellm_settings:
      callbacks: ["otel_cost_logger.proxy_handler_instance"]

In a program that calls LiteLLM itself, append it: ``litellm.callbacks.append(OtelCostLogger())``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_cost_logger.durable import DurableSpanProcessor
    from otel_cost_logger.logger import OtelCostLogger
    from otel_cost_logger.provider import get_tracer_provider
    from otel_cost_logger.record import CallRecord, build_record

    proxy_handler_instance: OtelCostLogger

__all__ = [
    "CallRecord",
    "DurableSpanProcessor",
    "OtelCostLogger",
    "build_record",
    "get_tracer_provider",
    "proxy_handler_instance",
]

_MODULES = {
    "CallRecord": "record",
    "DurableSpanProcessor": "durable",
    "OtelCostLogger": "logger",
    "build_record": "record",
    "get_tracer_provider": "provider",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: reading a ledger must not import LiteLLM, which takes seconds and fetches its price map.
    if name == "proxy_handler_instance":
        from otel_cost_logger.start import proxy_handler

        return globals().setdefault(name, proxy_handler())
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
