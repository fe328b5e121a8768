"""The plugin's callback, with an eye on what LiteLLM gives to its hooks and on the spans that come out."""

from __future__ import annotations

import time
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from otel_cost_logger.logger import OtelCostLogger
from otel_cost_logger.provider import build_provider
from otel_cost_logger.record import CallRecord, record_of_unreported
from otel_cost_logger.self_check.interfaces import (
    ANSWER,
    ATTEMPT,
    EXCEPTION,
    IDENTITY,
    INTERFACES,
    REPORT,
    REQUEST,
    Interface,
)
from otel_cost_logger.settings import Settings


class Kept(SpanProcessor):
    """Keeps the spans, and sends none."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Called with each finished span."""
        self.spans.append(span)


class Observed(OtelCostLogger):
    """Notes which keys of the table it is given. Its spans are in ``kept`` and go nowhere."""

    def __init__(self) -> None:
        self.kept = Kept()
        settings = Settings(exporters=())
        provider = build_provider(settings)
        provider.add_span_processor(self.kept)
        super().__init__(settings, provider)
        self._not_seen = {row for row in INTERFACES if row.place}
        self._request: dict[str, Any] = {}

    def keys_gone(self) -> list[Interface]:
        """The keys of the table that no hook was given."""
        return [row for row in INTERFACES if row in self._not_seen]

    def abandoned(self) -> CallRecord:
        """The record of the latest call, had its caller hung up before anything came back."""
        return record_of_unreported(self._request, time.time_ns())

    def look(self, place: str, thing: Any) -> Any:
        """Note what ``thing``, which is given at ``place``, has; returns it."""
        self._not_seen -= {row for row in self._not_seen if row.place == place and row.found_in(thing)}
        return thing

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """As the plugin's."""
        await super().async_log_success_event(self.look(REPORT, kwargs), response_obj, start_time, end_time)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """As the plugin's."""
        await super().async_log_failure_event(self.look(REPORT, kwargs), response_obj, start_time, end_time)

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> Any:
        """As the plugin's."""
        return await super().async_pre_call_deployment_hook(self.look(ATTEMPT, kwargs), call_type)

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
        """As the plugin's."""
        self._request = {**self.look(REQUEST, data), "call_type": call_type}
        return await super().async_pre_call_hook(self.look(IDENTITY, user_api_key_dict), cache, data, call_type)

    async def async_post_call_response_headers_hook(
        self, data: Any, user_api_key_dict: Any, response: Any, request_headers: Any = None
    ) -> None:
        """As the plugin's."""
        answer = self.look(ANSWER, response)
        await super().async_post_call_response_headers_hook(data, user_api_key_dict, answer, request_headers)

    async def async_post_call_failure_hook(
        self,
        request_data: Any,
        original_exception: Any,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """As the plugin's."""
        exception = self.look(EXCEPTION, original_exception)
        await super().async_post_call_failure_hook(request_data, exception, user_api_key_dict, traceback_str)
