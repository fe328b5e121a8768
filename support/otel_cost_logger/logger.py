"""LiteLLM's hooks, and nothing else: each turns its arguments into a `CallRecord` and emits it.

The proxy calls only the async success hook; a program that calls ``litellm.completion`` gets the sync one, in
another thread. Parameter names are part of LiteLLM's contract (hooks are called by keyword). No hook raises:
an exception here would be swallowed by LiteLLM anyway, and the loss would go unnoticed, so it is counted.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

import litellm
from litellm.constants import LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL
from litellm.integrations.custom_logger import CustomLogger
from opentelemetry.sdk.trace import TracerProvider

from otel_cost_logger.budgets.enforcement import Enforcement
from otel_cost_logger.budgets.gate import with_remaining
from otel_cost_logger.budgets.manager import ManagedBudgets
from otel_cost_logger.caller_fields import NotAllowed, remove_operators_fields
from otel_cost_logger.client_metrics import ClientMetrics
from otel_cost_logger.expected import Expected
from otel_cost_logger.garbage_collection import guard
from otel_cost_logger.inflight import InFlight
from otel_cost_logger.keys.entries import KeysFileError
from otel_cost_logger.keys.file import KEYS_FILE_VARIABLE
from otel_cost_logger.keys.ring import key_ring
from otel_cost_logger.last_good import LastGood
from otel_cost_logger.ledger.file import LedgerError
from otel_cost_logger.metrics import publish_budgets, publish_calls, send_first
from otel_cost_logger.net.boundary import Net
from otel_cost_logger.net.passage import Passage, current, deployed
from otel_cost_logger.net.record import completed
from otel_cost_logger.net.recorder import NetRecorder
from otel_cost_logger.net.roads import OPENED, RAW, TRANSLATED
from otel_cost_logger.net.stopping import ProxyStopped
from otel_cost_logger.net.upstream import watch_engines
from otel_cost_logger.once import PendingFailures, Seen
from otel_cost_logger.prices.book import PriceBook
from otel_cost_logger.prices.reading import PriceBookError, read_book
from otel_cost_logger.pricing import UNKNOWN_COST, UNPRICED
from otel_cost_logger.progress import details_of, progress_in, progress_of
from otel_cost_logger.provider import CostTracerProvider, get_tracer_provider
from otel_cost_logger.record import (
    DEFAULT_TENANT,
    UNKNOWN,
    CallRecord,
    after_attempts,
    build_record,
    clean,
    is_llm_call,
    record_of_unreported,
    tenant_of_key,
)
from otel_cost_logger.settings import LEDGER_FILE, PRICES_FILE, Settings, SettingsError, put_in_force
from otel_cost_logger.span import emit_span
from otel_cost_logger.start import StartError, behind_proxy
from otel_cost_logger.upstream import with_stream_usage, with_trace_context

if TYPE_CHECKING:
    from litellm import BudgetManager

    from otel_cost_logger.asgi import App
    from otel_cost_logger.durable import DurableSpanProcessor

# So many records lost one after the other, the last of them so recently, and the proxy is not ready.
_LOSSES = 10
_LOSSES_SECONDS = 60.0

_log = logging.getLogger(__name__)

# A proxied call between its first hook and its report: the proxy's data, and what the net knows of its request.
_Call = tuple[dict[str, Any], Passage | None]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the calls: ``recorded`` are spans emitted, ``repeated`` second reports of a call left out,
    ``dropped`` records lost with an exception, ``unpriced`` records of calls that nobody had a price for, ``unknown``
    records of calls that an engine may have worked for and that nobody counted. ``seen`` are calls noticed before they
    were dispatched, and ``missing`` those of them that have ended and left no record. When a call has ended is known
    behind the proxy only; of a program that calls LiteLLM itself, the ledger tells after the program's end, or after an
    hour, which calls left none."""

    recorded: int = 0
    repeated: int = 0
    dropped: int = 0
    seen: int = 0
    missing: int = 0
    unpriced: int = 0
    unknown: int = 0


class OtelCostLogger(CustomLogger):
    """Leaves one OpenTelemetry span per LLM call, with tenant, model, tokens and cost as attributes.

    ``settings`` default to the environment (see `settings`); raises `start.StartError` for what is wrong with them or
    with a file that they name, so that a misconfigured proxy stops at its start. ``tracer_provider`` defaults to this
    process's private one for these settings. ``budget_manager`` is charged with what each call cost
    (see `budgets.manager`).
    """

    def __init__(
        self,
        settings: Settings | None = None,
        tracer_provider: TracerProvider | None = None,
        budget_manager: BudgetManager | None = None,
    ) -> None:
        super().__init__()
        if behind_proxy():
            guard()
        self._settings = settings or Settings.from_environment()
        self._tracer_provider = tracer_provider
        self._prices = _price_book(self._settings)
        self._managed = ManagedBudgets(budget_manager) if budget_manager is not None else None
        self._budgets = Enforcement.of(self._settings, self._prices)
        self._seen = Seen()
        self._attempted = Seen()
        self._pending = PendingFailures()
        self._in_flight = InFlight(self._hung_up)
        self._expected = Expected()
        self._counts = {"recorded": 0, "repeated": 0, "dropped": 0, "unpriced": 0, "unknown": 0}
        self._counts_lock = threading.Lock()
        self._lost_in_a_row, self._last_loss = 0, 0.0
        self._exit_handler_registered = False
        self._measured_by: TracerProvider | None = None
        self._client_metrics: ClientMetrics | None = None
        if behind_proxy():
            put_in_force(self._settings)
            self._require_files()

    def _require_files(self) -> None:
        """Open what the settings name: a proxy that could not record, or knows no tenant, must not serve."""
        try:
            if self._settings.keys_file is not None:
                key_ring(self._settings.keys_file)
            # What an earlier process left in the ledger need not wait for the first call.
            if self._settings.ledger is not None and (durable := self._durable()) is not None:
                durable.writer.open()
                if self._budgets is not None:
                    self._budgets.prepare(durable)
        except KeysFileError as error:
            raise StartError(f"{KEYS_FILE_VARIABLE}: {error}") from error
        except LedgerError as error:
            raise StartError(f"{LEDGER_FILE}: {error}") from error

    def watched(self, app: App) -> App:
        """The proxy's application ``app`` with the net around it: see `net`."""

        def emit(build: Callable[[], CallRecord]) -> None:
            self._guarded(lambda: self._emit_all([build()]))

        watch_engines()
        net = Net(app, NetRecorder(self._begin, emit, self._book, self._settings.keys_file), self._settings.open_roads)
        seconds = self._settings.stop_seconds
        net.requests.end_after_sigterm(seconds, self._in_flight.wait_no_longer, self._stopped)
        return net

    @property
    def counts(self) -> Counts:
        """What became of this process's calls so far."""
        missing = len(self._expected) - len(self._in_flight) if behind_proxy() else 0
        with self._counts_lock:
            return Counts(**self._counts, seen=self._expected.seen, missing=max(0, missing))

    @property
    def problem(self) -> str | None:
        """Why calls cannot be recorded at present; None while they can."""
        durable = self._durable()
        if durable is not None and durable.writer.trouble is not None:
            return durable.writer.trouble
        # One strange call must not take a proxy out of service, nor may it stay out for want of calls.
        if self._lost_in_a_row < _LOSSES or time.monotonic() > self._last_loss + _LOSSES_SECONDS:
            return None
        return f"the last {self._lost_in_a_row} records were lost, see the log"

    # Hooks of LiteLLM, library mode.

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """An attempt is about to be sent: from here on a record is due. The proxy has a hook of its own for it."""

        def expect_report() -> None:
            progress_in(kwargs).send(model)
            call_id = _call_id(kwargs)
            # A call that is repeated is reported once, however many attempts there are.
            if not behind_proxy() and is_llm_call(kwargs.get("call_type")) and self._attempted.first(call_id):
                self._expected.begin(call_id)
                self._note(call_id, clean(_metadata(kwargs).get("tenant_id")) or DEFAULT_TENANT, model)

        self._guarded(expect_report)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A synchronous call succeeded. Behind the proxy it is a second report, that of a reranking for example, from a
        thread that knows nothing of the request."""
        if behind_proxy():
            self._count("repeated")
        else:
            self._succeeded(kwargs, response_obj, start_time, end_time)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A synchronous call failed. Behind the proxy it is the second report of a rejected request, from a thread that
        knows nothing of the request."""
        if behind_proxy():
            self._count("repeated")
        else:
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
        passage = current()
        if passage is not None and passage.road.kind in (RAW, OPENED):
            deployed(passage, kwargs)
            await passage.admit(passage)  # with LiteLLM's own keys it is known only now whose call it is
        try:
            request = with_stream_usage(kwargs, call_type, behind_proxy=behind_proxy(), always=_is_translated(passage))
            progress_in(details_of(kwargs)).begin_attempt(request.get("stream_options"))
            return with_trace_context(request, self._provider().id_generator) if self._settings.propagate else request
        except Exception:
            _log.exception("the engine was not told the trace context of a call; its record is not affected")
            return kwargs

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """An attempt was answered, not as a stream. Whether the caller gets to see it is another question."""
        progress_in(details_of(request_data)).answered(response)

    # Hooks of the proxy alone.

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
        """Before each proxied call: from here on a record is due, and the caller must not be able to prevent it.

        The only hook that raises, on purpose: a request whose answer could not be counted is refused with status 400,
        and one whose budget is spent with 429.
        """
        # LiteLLM honours "no-log": true in a request body unless this is set.
        litellm.global_disable_no_log_param = True
        progress_in(details_of(data)).call_type = call_type
        if is_llm_call(call_type) and isinstance(data, dict):
            try:
                remove_operators_fields(data, call_type)
            except NotAllowed as error:
                raise _bad_request(error) from error

        passage = current()
        if passage is not None:
            passage.progress = progress_in(details_of(data))
            passage.identify(user_api_key_dict)
            if passage.road.kind in (RAW, OPENED):
                await passage.admit(passage)
                return data

        def expect_report() -> None:
            if is_llm_call(call_type):
                key = _request_key(data, user_api_key_dict)
                if passage is not None:
                    passage.call_id, passage.key = _call_id(data), key
                self._in_flight.begin(key, ({**data, "call_type": call_type}, passage))

        self._guarded(expect_report)
        await self._begin(user_api_key_dict, data, call_type)
        return data

    async def async_post_call_response_headers_hook(
        self, data: Any, user_api_key_dict: Any, response: Any, request_headers: Any = None
    ) -> None:
        """An answer begins. Of a stream that a guardrail stops nobody else keeps what the engine has counted."""
        progress_in(details_of(data)).answered(response)

    async def async_post_call_failure_hook(
        self,
        request_data: Any,
        original_exception: Any,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """The proxy has given up on a call: the failure held back in case of a retry is final.

        One of which LiteLLM has not reported anything has failed between the proxy and LiteLLM.
        """

        def record_it() -> None:
            key = _request_key(request_data, user_api_key_dict)
            call = self._in_flight.reported(key)
            record = self._pending.settle(key)
            if record is not None:
                record = record._replace(end_ns=time.time_ns()) if record.attempts > 1 else record
            elif call is not None:
                progress_in(details_of(call[0])).closed = True
                record = self._unreported(call, time.time_ns(), original_exception)
            self._emit_all([record])

        self._guarded(record_it)

    # From report to record.

    async def _begin(self, user_api_key_dict: Any, request: dict[str, Any], call_type: str) -> None:
        """Note a proxied call; raises what its caller is to be told when it must not begin."""
        counted = call_type == RAW or is_llm_call(call_type)

        def expect_record() -> None:
            self._provider()  # from the first call on, so that a SIGTERM right after its answer finds its handler
            if counted:
                self._expected.begin(_call_id(request))

        self._guarded(expect_record)
        noted = self._budgets and await self._budgets.admit(
            self._durable(), user_api_key_dict, request, call_type, counted=counted
        )
        if not noted and counted:
            tenant_id = tenant_of_key(user_api_key_dict)
            self._guarded(lambda: self._note(_call_id(request), tenant_id, request.get("model")))

    def _note(self, call_id: str, tenant_id: str, model: Any) -> None:
        if (durable := self._durable()) is not None:
            durable.expect_call(call_id, tenant_id, clean(model))

    def _durable(self) -> DurableSpanProcessor | None:
        provider = self._provider()
        return provider.durable if isinstance(provider, CostTracerProvider) else None

    def _succeeded(self, kwargs: Any, response: Any, start: Any, end: Any) -> None:
        passage = current()
        if passage is not None and _is_the_nets(passage, kwargs):
            return
        try:
            if _is_closed(kwargs, passage):
                self._count("repeated")
                return
            record = self._build(kwargs, response, start, end, passage, failed=False)
            if self._in_flight or self._pending:
                key = _reported_key(passage, kwargs)
                self._in_flight.reported(key)
                self._pending.settle(key)  # an attempt that failed before, and was retried
            self._emit_all([record, *self._pending.overdue()])
        except Exception:
            self._lost()

    def _failed(self, kwargs: Any, response: Any, start: Any, end: Any) -> None:
        passage = current()
        if passage is not None and _is_the_nets(passage, kwargs):
            return

        def record_it() -> None:
            if _is_closed(kwargs, passage):
                self._count("repeated")
                return
            record = self._build(kwargs, response, start, end, passage, failed=True)
            key = _reported_key(passage, kwargs)
            # The call that LiteLLM makes of such a request is reported, each time, and then the request.
            translated = _is_translated(passage)
            if translated:
                record = _with_failure(self._pending.settle(key), record, progress_of(kwargs).attempts)
            if translated or _may_be_retried(kwargs):
                self._register_exit_handler()
                self._emit_all([self._pending.hold(key, record, progress_of(kwargs)), *self._pending.overdue()])
            else:
                self._in_flight.reported(key)
                self._emit_all([record])

        self._guarded(record_it)

    def _hung_up(self, call: _Call, ended_ns: int) -> None:
        _, passage = call
        # No hook says that such a request has failed.
        failure = self._pending.settle(passage.key) if _is_translated(passage) else None
        self._guarded(lambda: self._emit_all([failure or self._unreported(call, ended_ns)]))

    def _stopped(self) -> None:
        """The proxy ends what is open: see `net.stopping`."""

        def record(call: _Call) -> None:
            progress_in(details_of(call[0])).closed = True
            self._emit_all([self._unreported(call, time.time_ns(), ProxyStopped())])

        for call in self._in_flight.take(_is_stopped):
            self._guarded(partial(record, call))

    def _unreported(self, call: _Call, ended_ns: int, exception: Any = None) -> CallRecord:
        request, passage = call
        if passage is not None:
            self._pending.settle(passage.key)  # an attempt that failed before, and was being repeated
        record = record_of_unreported(
            request, ended_ns, exception, keep_error_message=self._settings.error_messages, book=self._book()
        )
        return self._completed(record, passage, None, request)

    def _completed(self, record: CallRecord, passage: Passage | None, response: Any, request: Any) -> CallRecord:
        if passage is None:
            return record
        return completed(record, passage, response, self._book(), request=_mapping(request))

    def _build(
        self, kwargs: Any, response: Any, start: Any, end: Any, passage: Passage | None, *, failed: bool
    ) -> CallRecord:
        if passage is not None:
            passage.reports += 1
        record = build_record(
            kwargs,
            response,
            start,
            end,
            failed=failed,
            behind_proxy=behind_proxy(),
            keep_error_message=self._settings.error_messages,
            book=self._book(),
        )
        return self._completed(record, passage, None if failed else response, kwargs)

    def _book(self) -> PriceBook | None:
        return self._prices.value if self._prices else None

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
        if self._managed is not None and (left := self._managed.charge(record)) is not None:
            record = with_remaining(record, left)
        with (
            nullcontext(record) if self._budgets is None else self._budgets.settled(self._durable(), record) as settled
        ):
            genai, cost_views = self._settings.genai_spans, self._settings.cost_views
            emit_span(self._provider(), settled, genai=genai, cost_views=cost_views)
        self._expected.recorded(record.call_id)
        self._lost_in_a_row = 0
        self._count("recorded")
        if record.cost_source in (UNPRICED, UNKNOWN_COST):
            self._count(record.cost_source)
        if self._client_metrics is not None:
            self._client_metrics.record(record)

    def _provider(self) -> TracerProvider:
        provider = self._tracer_provider or get_tracer_provider(self._settings)
        if provider is not self._measured_by:  # the first call, or the first in a forked child
            self._measured_by = provider
            if isinstance(provider, CostTracerProvider) and provider.meter_provider is not None:
                publish_calls(self, provider.meter_provider)
                if self._budgets is not None and provider.durable is not None:
                    publish_budgets(self._budgets.gate, provider.durable.writer, provider.meter_provider)
                if self._settings.cost_views:
                    self._client_metrics = ClientMetrics(provider.meter_provider)
                send_first(provider.meter_provider)
        return provider

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            self._lost()

    def _lost(self) -> None:
        self._count("dropped")
        self._lost_in_a_row, self._last_loss = self._lost_in_a_row + 1, time.monotonic()
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


def _price_book(settings: Settings) -> LastGood[PriceBook] | None:
    if settings.prices_file is None:
        return None
    try:
        # Each call asks for it; a look at the file takes longer than to price a call.
        return LastGood(settings.prices_file, read_book, lambda book: f"version {book.version}", look_seconds=1.0)
    except PriceBookError as error:
        raise SettingsError(f"{PRICES_FILE}: {'; '.join(str(error).splitlines())}") from error


def _bad_request(error: Exception) -> Exception:
    from litellm.proxy._types import ProxyException  # the proxy's own: a program in library mode must not load it

    refusal: Exception = ProxyException(message=str(error), type="invalid_request_error", param=None, code=400)
    return refusal


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_the_nets(passage: Passage, kwargs: Any) -> bool:
    """True for a report of what the net counts itself: LiteLLM knows nothing of its tokens."""
    kind = passage.road.kind
    return kind == RAW or (kind == OPENED and not is_llm_call(_mapping(kwargs).get("call_type")))


def _reported_key(passage: Passage | None, kwargs: Any) -> Hashable:
    """Under which a call is in flight: where LiteLLM makes a call of its own of a request, the request's."""
    if _is_translated(passage):
        key: Hashable = passage.key
        return key
    return _call_key(kwargs)


def _is_translated(passage: Passage | None) -> TypeGuard[Passage]:
    """True for a request of which LiteLLM makes a call of its own, and reports both."""
    return passage is not None and passage.road.kind == TRANSLATED and passage.key is not None


def _with_failure(first: CallRecord | None, second: CallRecord, attempts: int) -> CallRecord:
    """One record of two reports of the same failure; the second one is of so many more ``attempts``."""
    if first is None:
        return second
    counted = second if second.total_tokens > first.total_tokens else first
    return after_attempts(counted, first.attempts + attempts)


def _may_be_retried(kwargs: Any) -> bool:
    """True when the proxy's router may repeat this attempt: the call reached a deployment behind the proxy."""
    if not isinstance(kwargs, Mapping) or kwargs.get(LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL):
        return False
    params = kwargs.get("litellm_params")
    return behind_proxy() and isinstance(params, Mapping) and bool(params.get("proxy_server_request"))


def _is_closed(kwargs: Any, passage: Passage | None) -> bool:
    """True for a late report of a call that has its record, see `progress`."""
    return _is_stopped((kwargs, passage)) or (isinstance(kwargs, Mapping) and progress_of(kwargs).closed)


def _is_stopped(call: tuple[Any, Passage | None]) -> bool:
    return call[1] is not None and call[1].stopped


def _call_id(call: Mapping[Any, Any]) -> str:
    return clean(call.get("litellm_call_id")) or UNKNOWN


def _metadata(kwargs: Any) -> Mapping[Any, Any]:
    params = kwargs.get("litellm_params") if isinstance(kwargs, Mapping) else None
    metadata = params.get("metadata") if isinstance(params, Mapping) else None
    return metadata if isinstance(metadata, Mapping) else {}


def _call_key(kwargs: Any) -> Hashable:
    """Call id and key of a call, as the logging hooks show them."""
    call_id = str(kwargs.get("litellm_call_id")) if isinstance(kwargs, Mapping) else ""
    return (call_id, str(_key_hash(kwargs)))


def _key_hash(kwargs: Any) -> Any:
    """The authenticated key's, which LiteLLM takes out of whatever a caller writes."""
    params = kwargs.get("litellm_params") if isinstance(kwargs, Mapping) else None
    notes = [params.get(name) for name in ("litellm_metadata", "metadata")] if isinstance(params, Mapping) else []
    found = (note.get("user_api_key_hash") for note in notes if isinstance(note, Mapping))
    return next((value for value in found if value), None)


def _request_key(request: Any, user_api_key_dict: Any) -> Hashable:
    """The same, as the proxy's own hooks show them."""
    call_id = request.get("litellm_call_id") if isinstance(request, Mapping) else None
    return (str(call_id), str(getattr(user_api_key_dict, "api_key", None)))
