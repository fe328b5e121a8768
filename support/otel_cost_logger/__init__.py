"""A LiteLLM callback that leaves one OpenTelemetry span per LLM call: who, which model, how many tokens, what cost.

Behind the proxy, name the ready instance in the configuration (an instance: the proxy refuses a class)::

    litellm_settings:
      callbacks: ["otel_cost_logger.proxy_handler_instance"]

In a program that calls LiteLLM itself, append it: ``litellm.callbacks.append(OtelCostLogger())``.
"""

from otel_cost_logger.logger import OtelCostLogger, proxy_handler_instance
from otel_cost_logger.provider import get_tracer_provider
from otel_cost_logger.record import CallRecord, build_record

__all__ = ["CallRecord", "OtelCostLogger", "build_record", "get_tracer_provider", "proxy_handler_instance"]
