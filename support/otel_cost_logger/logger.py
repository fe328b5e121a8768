"""LiteLLM's hooks, and nothing else: each turns its arguments into a `CallRecord` and emits it.

The proxy calls only the async success hook; a program that calls ``litellm.completion`` gets the sync one, in
another thread. Parameter names are part of LiteLLM's contract (hooks are called by keyword). No hook raises:
an exception here would be swallowed by LiteLLM anyway, and the loss would go unnoticed, so it is counted.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import litellm
from litellm.constants import LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL
from litellm.integrations.custom_logger import CustomLogger
from opentelemetry.sdk.trace import TracerProvider

from otel_cost_logger.expected import Expected
from otel_cost_logger.inflight import InFlight
from otel_cost_logger.metrics import publish_calls
from otel_cost_logger.once import PendingFailures, Seen
from otel_cost_logger.prices.reading import PriceBookError
from otel_cost_logger.prices.watched import WatchedBook
from otel_cost_logger.pricing import UNPRICED
from otel_cost_logger.provider import CostTracerProvider, get_tracer_provider
from otel_cost_logger.record import (
    DEFAULT_TENANT,
    UNKNOWN,
    CallRecord,
    build_record,
    clean,
    is_llm_call,
    record_of_abandoned,
)
from otel_cost_logger.settings import PRICES_FILE, Settings, SettingsError
from otel_cost_logger.span import emit_span
from otel_cost_logger.upstream import with_stream_usage, with_trace_context

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the calls: ``recorded`` are spans emitted, ``repeated`` second reports of a call left out,
    ``dropped`` records lost with an exception, ``unpriced`` records of calls that nobody had a price for. ``seen`` are
    calls noticed before they were dispatched, and ``missing`` those of them that have ended and left no record. When a
    call has ended is known behind the proxy only; of a program that calls LiteLLM itself, the ledger tells after the
    program's end, or after an hour, which calls left none."""

    recorded: int = 0
    repeated: int = 0
    dropped: int = 0
    seen: int = 0
    missing: int = 0
    unpriced: int = 0


class OtelCostLogger(CustomLogger):
    """Leaves one OpenTelemetry span per LLM call, with tenant, model, tokens and cost as attributes.

    ``settings`` default to the environment (see `settings`); raises `settings.SettingsError` when a variable
    has a value that cannot be used or the price book is broken, so that a misconfigured proxy stops at its start.
    ``tracer_provider`` defaults to this process's private one.
    """

    def __init__(self, settings: Settings | None = None, tracer_provider: TracerProvider | None = None) -> None:
        super().__init__()
        self._settings = settings or Settings.from_environment()
        self._tracer_provider = tracer_provider
        self._prices = _price_book(self._settings)
        self._seen = Seen()
        self._attempted = Seen()
        self._pending = PendingFailures()
        self._in_flight = InFlight(self._hung_up)
        self._expected = Expected()
        self._counts = {"recorded": 0, "repeated": 0, "dropped": 0, "unpriced": 0}
        self._counts_lock = threading.Lock()
        self._exit_handler_registered = False
        self._measured_by: TracerProvider | None = None
        if self._settings.ledger is not None and _behind_proxy():
            self._provider()  # what an earlier process left in the ledger need not wait for the first call

    @property
    def counts(self) -> Counts:
        """What became of this process's calls so far."""
        missing = len(self._expected) - len(self._in_flight) - len(self._pending) if _behind_proxy() else 0
        with self._counts_lock:
            return Counts(**self._counts, seen=self._expected.seen, missing=max(0, missing))

    # Hooks of LiteLLM, library mode.

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """An attempt is about to be sent: from here on a record is due. The proxy has a hook of its own for it."""

        def expect_report() -> None:
            call_id = _call_id(kwargs)
            # A call that is repeated is reported once, however many attempts there are.
            if not _behind_proxy() and is_llm_call(kwargs.get("call_type")) and self._attempted.first(call_id):
                self._expect(call_id, clean(_metadata(kwargs).get("tenant_id")), model)

        self._guarded(expect_report)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A synchronous call succeeded."""
        self._succeeded(kwargs, response_obj, start_time, end_time)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A synchronous call failed; behind the proxy, also the second report of a rejected request."""
        self._failed(kwargs, response_obj, start_time, end_time)

    # Hooks of LiteLLM, library mode and proxy.

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A call succeeded, a stream ended, or the client left in the middle of one."""
        self._succeeded(kwargs, response_obj, start_time, end_time)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """An attempt failed, or the proxy rejected the request."""
        self._failed(kwargs, response_obj, start_time, end_time)

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> Any:
        """An attempt is about to be sent: the engine is told the cost span's context, and to count as it goes."""
        try:
            request = with_stream_usage(kwargs, call_type, behind_proxy=_behind_proxy())
            return with_trace_context(request, self._provider().id_generator) if self._settings.propagate else request
        except Exception:
            _log.exception("the engine was not told the trace context of a call; its record is not affected")
            return kwargs

    # Hooks of the proxy alone.

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
        """Before each proxied call: from here on a record is due, and the caller must not be able to prevent it."""
        # LiteLLM honours "no-log": true in a request body unless this is set.
        litellm.global_disable_no_log_param = True

        def expect_report() -> None:
            self._provider()  # from the first call on, so that a SIGTERM right after its answer finds its handler
            if is_llm_call(call_type):
                team, alias = (getattr(user_api_key_dict, name, None) for name in ("team_id", "key_alias"))
                self._expect(_call_id(data), clean(team or alias), data.get("model"))
                self._in_flight.begin(_request_key(data, user_api_key_dict), {"call_type": call_type, **data})

        self._guarded(expect_report)
        return data

    async def async_post_call_failure_hook(
        self,
        request_data: Any,
        original_exception: Any,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """The proxy has given up on a call: the failure held back in case of a retry is final."""

        def record_it() -> None:
            record = self._pending.settle(_request_key(request_data, user_api_key_dict))
            if record and (retries := _retries(original_exception)):
                record = record._replace(attempts=1 + retries, end_ns=time.time_ns())
            self._emit_all([record])

        self._guarded(record_it)

    # From report to record.

    def _expect(self, call_id: str, tenant_id: str, model: Any) -> None:
        self._expected.begin(call_id)
        provider = self._provider()
        if isinstance(provider, CostTracerProvider) and provider.durable is not None:
            provider.durable.expect_call(call_id, tenant_id or DEFAULT_TENANT, clean(model))

    def _succeeded(self, kwargs: Any, response: Any, start: Any, end: Any) -> None:
        try:
            record = self._build(kwargs, response, start, end, failed=False)
            if self._in_flight or self._pending:
                key = _call_key(kwargs)
                self._in_flight.reported(key)
                self._pending.settle(key)  # an attempt that failed before, and was retried
            self._emit_all([record, *self._pending.overdue()])
        except Exception:
            self._lost()

    def _failed(self, kwargs: Any, response: Any, start: Any, end: Any) -> None:
        def record_it() -> None:
            record = self._build(kwargs, response, start, end, failed=True)
            key = _call_key(kwargs)
            self._in_flight.reported(key)
            if _may_be_retried(kwargs):
                self._register_exit_handler()
                self._emit_all([self._pending.hold(key, record), *self._pending.overdue()])
            else:
                self._emit_all([record])

        self._guarded(record_it)

    def _hung_up(self, request: Any, ended_ns: int) -> None:
        self._guarded(lambda: self._emit_all([record_of_abandoned(request, ended_ns)]))

    def _build(self, kwargs: Any, response: Any, start: Any, end: Any, *, failed: bool) -> CallRecord:
        return build_record(
            kwargs,
            response,
            start,
            end,
            failed=failed,
            behind_proxy=_behind_proxy(),
            keep_error_message=self._settings.error_messages,
            book=self._prices.book() if self._prices else None,
        )

    def _emit_all(self, records: list[CallRecord | None]) -> None:
        for record in records:
            try:  # each by itself: one that is lost takes no other with it
                if record is not None:
                    self._emit(record)
            except Exception:
                self._lost()

    def _emit(self, record: CallRecord) -> None:
        if not self._seen.first_time(record):
            self._count("repeated")
            return
        emit_span(self._provider(), record, genai=self._settings.genai_spans)
        self._expected.recorded(record.call_id)
        self._count("recorded")
        if record.cost_source == UNPRICED:
            self._count("unpriced")

    def _provider(self) -> TracerProvider:
        provider = self._tracer_provider or get_tracer_provider()
        if provider is not self._measured_by:  # the first call, or the first in a forked child
            self._measured_by = provider
            if isinstance(provider, CostTracerProvider) and provider.meter_provider is not None:
                publish_calls(self, provider.meter_provider)
        return provider

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            self._lost()

    def _lost(self) -> None:
        self._count("dropped")
        _log.exception("a call's cost record was lost; %d lost so far", self.counts.dropped)

    def _count(self, name: str) -> None:
        with self._counts_lock:
            self._counts[name] += 1

    def _register_exit_handler(self) -> None:
        if not self._exit_handler_registered:
            self._exit_handler_registered = True
            # Exit handlers run last in, first out: the provider's, which closes the exporters, has to be there
            # before ours, which still writes.
            self._provider()
            atexit.register(self._record_pending_at_exit)

    def _record_pending_at_exit(self) -> None:
        self._guarded(lambda: self._emit_all(list(self._pending.overdue(everything=True))))


def _price_book(settings: Settings) -> WatchedBook | None:
    try:
        return WatchedBook(settings.prices_file) if settings.prices_file else None
    except PriceBookError as error:
        raise SettingsError(f"{PRICES_FILE}: {error}") from error


def _behind_proxy() -> bool:
    # Asked of the process, not of the request: a caller can write a request, not load a module.
    return "litellm.proxy.proxy_server" in sys.modules


def _may_be_retried(kwargs: Any) -> bool:
    """True when the proxy's router may repeat this attempt: the call reached a deployment behind the proxy."""
    if not isinstance(kwargs, Mapping) or kwargs.get(LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL):
        return False
    params = kwargs.get("litellm_params")
    return _behind_proxy() and isinstance(params, Mapping) and bool(params.get("proxy_server_request"))


def _retries(exception: Any) -> int:
    """How often the router repeated the call before it gave up with ``exception``."""
    repeated = getattr(exception, "num_retries", None)  # a mere setting, unless the router says how many it could
    return repeated if getattr(exception, "max_retries", None) and isinstance(repeated, int) else 0


def _call_id(call: Mapping[Any, Any]) -> str:
    return clean(call.get("litellm_call_id")) or UNKNOWN


def _metadata(kwargs: Any) -> Mapping[Any, Any]:
    params = kwargs.get("litellm_params") if isinstance(kwargs, Mapping) else None
    metadata = params.get("metadata") if isinstance(params, Mapping) else None
    return metadata if isinstance(metadata, Mapping) else {}


def _call_key(kwargs: Any) -> Hashable:
    """Call id and key of a call, as the logging hooks show them."""
    call_id = str(kwargs.get("litellm_call_id")) if isinstance(kwargs, Mapping) else ""
    return (call_id, str(_metadata(kwargs).get("user_api_key_hash")))


def _request_key(request: Any, user_api_key_dict: Any) -> Hashable:
    """The same, as the proxy's own hooks show them."""
    call_id = request.get("litellm_call_id") if isinstance(request, Mapping) else None
    return (str(call_id), str(getattr(user_api_key_dict, "api_key", None)))


proxy_handler_instance = OtelCostLogger()
