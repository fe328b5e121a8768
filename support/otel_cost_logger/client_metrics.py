"""The client metrics of the OpenTelemetry GenAI conventions, for backends whose LLM views read them.

Two histograms of this process's records, with names, attributes and boundaries of August 2026 (in Development):

- ``gen_ai.client.token.usage`` by ``gen_ai.token.type``: input and output.
- ``gen_ai.client.operation.duration``: seconds, failed calls included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.metrics import MeterProvider

from otel_cost_logger.identity import SCOPE
from otel_cost_logger.record import USAGE_NONE

if TYPE_CHECKING:
    from otel_cost_logger.record import CallRecord

_TOKENS = tuple(4**power for power in range(14))
_SECONDS = tuple(0.01 * 2**power for power in range(14))


class ClientMetrics:
    """Takes each record once."""

    def __init__(self, meter_provider: MeterProvider) -> None:
        meter = meter_provider.get_meter(SCOPE)
        self._usage = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of a call", explicit_bucket_boundaries_advisory=_TOKENS
        )
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "Time of a call", explicit_bucket_boundaries_advisory=_SECONDS
        )

    def record(self, record: CallRecord) -> None:
        """Count the call of ``record``; its tokens where somebody has counted them."""
        named = {
            "gen_ai.operation.name": record.operation,
            "gen_ai.provider.name": record.provider,
            # A caller may ask for any name; those that were answered are few.
            "gen_ai.request.model": record.model if record.success else None,
            "gen_ai.response.model": record.model_served if record.success else None,
            "server.address": record.server_address,
            "server.port": record.server_port,
        }
        attributes = {name: value for name, value in named.items() if value is not None}
        failed = {} if record.error_type is None else {"error.type": record.error_type}
        self._duration.record(record.duration_ms / 1e3, {**attributes, **failed})
        if record.usage_source != USAGE_NONE:
            self._usage.record(record.prompt_tokens, attributes | {"gen_ai.token.type": "input"})
            self._usage.record(record.completion_tokens, attributes | {"gen_ai.token.type": "output"})
