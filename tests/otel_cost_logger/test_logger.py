"""The hooks: one span per call whatever fires, and no exception ever."""

from __future__ import annotations

import asyncio
import copy
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import litellm
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.net.passage import Passage, enter
from otel_cost_logger.net.roads import Roads
from otel_cost_logger.settings import Settings, SettingsError


@pytest.fixture
def behind_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", ModuleType("litellm.proxy.proxy_server"))


def succeed(logger: OtelCostLogger, kwargs: Any) -> None:
    asyncio.run(logger.async_log_success_event(kwargs=kwargs, response_obj=None, start_time=None, end_time=None))


def fail(logger: OtelCostLogger, kwargs: Any) -> None:
    asyncio.run(logger.async_log_failure_event(kwargs=kwargs, response_obj=None, start_time=None, end_time=None))


def logging_object(details: Any) -> dict[str, Any]:
    return {"litellm_logging_obj": SimpleNamespace(model_call_details=details)}


def send(logger: OtelCostLogger, details: Any) -> None:
    asyncio.run(logger.async_pre_call_deployment_hook(logging_object(details), "acompletion"))
    logger.log_pre_api_call("mistral-7b", [], details)


def give_up(logger: OtelCostLogger, kwargs: Any) -> None:
    request = {"litellm_call_id": kwargs["litellm_call_id"]}
    asyncio.run(logger.async_post_call_failure_hook(request, ValueError(), SimpleNamespace(api_key="a" * 64)))


def failing(call: dict[str, Any]) -> dict[str, Any]:
    payload = call["standard_logging_object"]
    payload |= {"total_tokens": 0, "prompt_tokens": 0, "completion_tokens": 0, "response_cost": 0.0}
    payload["error_information"] = {"error_class": "InternalServerError", "error_code": "500"}
    return call


def test_a_success_is_one_span_with_the_calls_own_times(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any
) -> None:
    succeed(logger, make_call())
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind, span.status.status_code) == (
        "llm.completion.acompletion",
        SpanKind.INTERNAL,
        StatusCode.UNSET,
    )
    assert (span.start_time, span.end_time) == (1_795_437_312_250_000_000, 1_795_437_313_500_000_000)
    assert span.parent is None


def test_a_failure_is_a_span_in_error(logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any) -> None:
    fail(logger, failing(make_call()))
    (span,) = spans.get_finished_spans()
    assert span.name == "llm.completion.failure"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "InternalServerError 500")
    assert span.attributes is not None
    assert (span.attributes["llm.success"], span.attributes["llm.error"]) == (False, "InternalServerError 500")


def test_the_genai_convention_is_one_switch(spans: InMemorySpanExporter, make_call: Any) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    logger = OtelCostLogger(Settings(genai_spans=True), provider)
    succeed(logger, make_call())
    fail(logger, failing(make_call({"litellm_call_id": "another"})))
    assert [(span.name, span.kind) for span in spans.get_finished_spans()] == [("chat mistral", SpanKind.CLIENT)] * 2


@pytest.mark.parametrize("flags", ["01", "00"])
def test_a_traceparent_makes_the_span_a_child_even_of_an_unsampled_trace(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any, flags: str
) -> None:
    call = make_call()
    headers = call["litellm_params"]["proxy_server_request"]["headers"]
    headers["traceparent"] = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"
    succeed(logger, call)
    (span,) = spans.get_finished_spans()
    assert span.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert span.parent is not None
    assert span.parent.span_id == 0xB7AD6B7169203331


@pytest.mark.parametrize("value", ["", "00-xyz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 10_000, 7])
def test_a_malformed_traceparent_is_ignored(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any, value: object
) -> None:
    call = make_call()
    call["litellm_params"]["proxy_server_request"]["headers"]["traceparent"] = value
    succeed(logger, call)
    (span,) = spans.get_finished_spans()
    assert span.parent is None


def test_a_success_that_a_thread_reports_first_is_recorded_by_the_hook_that_knows_the_request(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any, behind_proxy: None
) -> None:
    call = make_call()
    logger.log_success_event(kwargs=call, response_obj=None, start_time=None, end_time=None)
    assert not spans.get_finished_spans()
    asyncio.run(logger.async_log_success_event(kwargs=call, response_obj=None, start_time=None, end_time=None))
    assert len(spans.get_finished_spans()) == 1
    assert (logger.counts.recorded, logger.counts.repeated, logger.counts.dropped) == (1, 1, 0)


def test_a_rejected_request_that_fires_two_hooks_is_one_record(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any, behind_proxy: None
) -> None:
    call = failing(make_call({"litellm_no_upstream_llm_call": True}))
    fail(logger, call)
    logger.log_failure_event(kwargs=call, response_obj=None, start_time=None, end_time=None)
    give_up(logger, call)
    assert len(spans.get_finished_spans()) == 1
    assert (logger.counts.recorded, logger.counts.repeated, logger.counts.dropped) == (1, 1, 0)


def test_a_failed_attempt_that_is_retried_with_success_is_one_record(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any, behind_proxy: None
) -> None:
    fail(logger, failing(make_call()))
    assert spans.get_finished_spans() == ()
    second = make_call(startTime=1_795_437_313.0)
    second["litellm_params"]["metadata"]["attempted_retries"] = 1
    succeed(logger, second)
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert (span.attributes["llm.success"], span.attributes["llm.attempts"]) == (True, 2)


def test_a_failure_is_recorded_when_the_proxy_gives_up(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any, behind_proxy: None
) -> None:
    call = failing(make_call())
    send(logger, call)
    fail(logger, call)
    assert spans.get_finished_spans() == ()
    send(logger, call)
    send(logger, call)
    give_up(logger, call)
    give_up(logger, call)
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["llm.attempts"] == 3


def test_a_caller_who_leaves_while_a_call_is_repeated_leaves_one_record(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any, behind_proxy: None
) -> None:
    call = failing(make_call())
    request = {"litellm_call_id": call["litellm_call_id"], "model": "mistral", **logging_object(call)}
    logger._in_flight._grace_seconds = 0.0

    async def serve() -> None:
        enter(Passage(Roads().of("/v1/chat/completions", "POST"), "", "", {}, logger._begin))  # type: ignore[arg-type]
        await logger.async_pre_call_hook(SimpleNamespace(api_key="a" * 64), None, request, "acompletion")
        for _ in range(2):
            await logger.async_pre_call_deployment_hook(request, "acompletion")
            logger.log_pre_api_call("mistral-7b", [], call)
            if not logger._pending:
                await logger.async_log_failure_event(call, None, None, None)

    async def server() -> None:
        await asyncio.create_task(serve())
        assert logger.counts.missing == 0
        for _ in range(1000):
            if not len(logger._in_flight):
                break
            await asyncio.sleep(0.001)

    asyncio.run(server())
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    told = [span.attributes[f"llm.{name}"] for name in ("outcome", "attempts", "cost_source")]
    assert told == ["client_disconnected", 2, "unknown"]
    assert (len(logger._pending), logger.counts.missing) == (0, 0)


def blocked(logger: OtelCostLogger, request: Any) -> None:
    """What the proxy reports of a call for which a guardrail raised a plain exception: nothing else."""
    error, key = ValueError("blocked"), SimpleNamespace(api_key="a" * 64)
    asyncio.run(logger.async_post_call_failure_hook(request, error, key))


@pytest.mark.parametrize("asked", [True, False])
def test_what_fails_between_proxy_and_litellm_is_a_failure_at_once(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any, behind_proxy: None, asked: bool
) -> None:
    call = make_call()
    request = {"litellm_call_id": call["litellm_call_id"], "model": "mistral", "messages": [], **logging_object(call)}
    asyncio.run(logger.async_pre_call_hook(SimpleNamespace(api_key="a" * 64), None, request, "acompletion"))
    if asked:
        send(logger, call)
        answer = SimpleNamespace(usage={"prompt_tokens": 8, "completion_tokens": 2})
        asyncio.run(logger.async_post_call_success_deployment_hook(request, answer, None))
    blocked(logger, {name: value for name, value in request.items() if name != "litellm_logging_obj"})
    succeed(logger, call)  # LiteLLM has it in a queue
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    told = [span.attributes[f"llm.{name}"] for name in ("outcome", "completion_tokens", "cost_source")]
    assert told == ["failure", 2, "custom_price"] if asked else ["failure", 0, "not_charged"]
    assert (span.attributes["error.type"], logger.counts.repeated, logger.counts.missing) == ("ValueError", 1, 0)


def test_a_caller_cannot_switch_its_record_off(logger: OtelCostLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "global_disable_no_log_param", False)
    data = {"no-log": True}
    assert asyncio.run(logger.async_pre_call_hook(None, None, data, "completion")) is data
    assert litellm.global_disable_no_log_param is True


def test_a_broken_exporter_is_counted_and_the_call_goes_on(make_call: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError("no export today")

    provider = TracerProvider()
    provider.add_span_processor(Broken())
    logger = OtelCostLogger(Settings(), provider)
    with caplog.at_level(logging.ERROR):
        succeed(logger, make_call())
    assert (logger.counts.recorded, logger.counts.dropped) == (0, 1)
    assert "1 lost so far" in caplog.text


def test_a_megabyte_of_tenant_and_control_characters_stay_small(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any
) -> None:
    succeed(logger, make_call(metadata={"user_api_key_team_id": "t\x00\ud800" * 500_000}, response_cost=float("nan")))
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    tenant = span.attributes["llm.tenant_id"]
    assert isinstance(tenant, str)
    assert len(tenant) == 256
    assert tenant.startswith("t\ufffd\ufffdt")
    assert (span.attributes["llm.cost_usd"], span.attributes["llm.cost_source"]) == (0.0, "unpriced")


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(kwargs=junk, response=junk, start=junk, end=junk)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_hook_raises_whatever_it_is_given(
    logger: OtelCostLogger, kwargs: Any, response: Any, start: Any, end: Any
) -> None:
    before = copy.deepcopy(kwargs)
    for hook in (logger.log_success_event, logger.log_failure_event):
        hook(kwargs=kwargs, response_obj=response, start_time=start, end_time=end)
    for async_hook in (logger.async_log_success_event, logger.async_log_failure_event):
        asyncio.run(async_hook(kwargs=kwargs, response_obj=response, start_time=start, end_time=end))
    asyncio.run(logger.async_post_call_failure_hook(kwargs, start, end))
    assert repr(kwargs) == repr(before)
    assert logger.counts.dropped == 0


def test_a_bad_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(SettingsError, match="OTEL_TRACES_EXPORTER"):
        OtelCostLogger()
