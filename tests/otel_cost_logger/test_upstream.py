"""What the engine is told: the right headers and options, of the right calls, and never of somebody else's."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLERS = f"00-{TRACE}-{CALLER}-00"


def attempt(**fields: Any) -> dict[str, Any]:
    """A deployment hook's ``kwargs``, as LiteLLM 1.106.2 gives them."""
    return {
        "model": "hosted_vllm/mistral-7b",
        "api_base": "http://10.1.2.3:8001/v1",
        "litellm_logging_obj": SimpleNamespace(model_call_details={}),
        "proxy_server_request": {"headers": {}},
        **fields,
    }


def prepared(logger: OtelCostLogger, request: dict[str, Any], call_type: str = "acompletion") -> dict[str, Any]:
    result = asyncio.run(logger.async_pre_call_deployment_hook(kwargs=request, call_type=call_type))
    assert isinstance(result, dict)
    return result


def report(logger: OtelCostLogger, request: dict[str, Any], make_call: Any, *, failed: bool = False) -> None:
    call = make_call()
    call["litellm_params"]["proxy_server_request"] = request["proxy_server_request"]
    call |= request["litellm_logging_obj"].model_call_details
    hook = logger.async_log_failure_event if failed else logger.async_log_success_event
    asyncio.run(hook(kwargs=call, response_obj=None, start_time=None, end_time=None))


@pytest.mark.parametrize("callers", [None, CALLERS, "00-not-a-context"])
def test_the_engine_is_told_the_ids_that_the_span_then_has(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any, callers: str | None
) -> None:
    request = attempt()
    if callers:
        request["proxy_server_request"]["headers"]["traceparent"] = callers
    told = prepared(logger, request)["extra_headers"]["traceparent"]
    report(logger, request, make_call)
    (span,) = spans.get_finished_spans()
    assert told == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
    if callers == CALLERS:
        assert told.split("-")[1] == TRACE
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == CALLER
    else:
        assert span.parent is None


def test_a_repeated_attempt_is_told_the_same(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any
) -> None:
    request = attempt()
    first, second = (prepared(logger, request)["extra_headers"] for _ in range(2))
    assert first == second
    report(logger, request, make_call)
    assert f"{spans.get_finished_spans()[0].context.span_id:016x}" in first["traceparent"]


def test_two_records_of_one_logging_object_are_two_spans(
    logger: OtelCostLogger, spans: InMemorySpanExporter, make_call: Any
) -> None:
    request = attempt()
    prepared(logger, request)
    report(logger, request, make_call)
    request["litellm_logging_obj"].model_call_details["litellm_call_id"] = "another"
    report(logger, request, make_call, failed=True)
    assert len({span.context.span_id for span in spans.get_finished_spans()}) == 2


@pytest.mark.parametrize("name", ["traceparent", "Traceparent"])
def test_a_callers_own_header_is_replaced_and_its_others_stay(logger: OtelCostLogger, name: str) -> None:
    headers = prepared(logger, attempt(extra_headers={name: CALLERS, "x-other": "stays"}))["extra_headers"]
    assert headers.keys() == {"traceparent", "x-other"}
    assert TRACE not in headers["traceparent"]


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "anthropic/claude", "api_base": "https://example.org"},
        {"model": "openai/gpt-4o", "api_base": None},
        {"model": "gpt-4o", "custom_llm_provider": "openai", "api_base": None},
        {"model": 7},
    ],
)
def test_somebody_elses_service_is_told_nothing(logger: OtelCostLogger, fields: dict[str, Any]) -> None:
    request = attempt(stream=True, stream_options={"include_usage": True}, **fields)
    assert prepared(logger, request) == request


@pytest.mark.parametrize("provider", ["openai", "text-completion-openai"])
def test_vllm_behind_the_openai_provider_is_told_the_context(logger: OtelCostLogger, provider: str) -> None:
    request = attempt(
        model="mistral-7b", custom_llm_provider=provider, stream=True, stream_options={"include_usage": True}
    )
    told = prepared(logger, request)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", told["extra_headers"]["traceparent"])
    assert told["stream_options"] == {"include_usage": True}  # an unknown option may be refused by what is there


def test_the_operator_can_keep_the_context_from_the_engine() -> None:
    silent = OtelCostLogger(
        Settings.from_environment({"OTEL_PROPAGATORS": "none"}), build_provider(Settings(exporters=()))
    )
    assert "extra_headers" not in prepared(silent, attempt())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}),
        (
            {"include_usage": True, "continuous_usage_stats": False},
            {"include_usage": True, "continuous_usage_stats": True},
        ),
        ({"include_usage": False}, {"include_usage": False}),
        ({}, {}),
        ("nonsense", "nonsense"),
        (None, None),
    ],
)
def test_the_engine_counts_as_it_goes_where_the_usage_was_asked_for(
    logger: OtelCostLogger, given: object, told: object
) -> None:
    assert prepared(logger, attempt(stream=True, stream_options=given))["stream_options"] == told


@pytest.mark.parametrize("behind_proxy", [True, False])
def test_a_proxied_text_completion_ends_with_its_usage(
    logger: OtelCostLogger, monkeypatch: pytest.MonkeyPatch, behind_proxy: bool
) -> None:
    monkeypatch.setattr("otel_cost_logger.logger.behind_proxy", lambda: behind_proxy)
    told = prepared(logger, attempt(stream=True), "atext_completion")
    assert ("stream_options" in told) == behind_proxy
    assert "stream_options" not in prepared(logger, attempt(), "atext_completion")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    request=st.dictionaries(
        st.sampled_from(
            ["model", "custom_llm_provider", "api_base", "extra_headers", "stream", "stream_options", "metadata",
             "litellm_logging_obj", "proxy_server_request", "litellm_metadata"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("hosted_vllm"),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
        ),
    )
)  # fmt: skip
def test_whatever_comes_the_call_goes_on(logger: OtelCostLogger, request: dict[str, Any]) -> None:
    before = dict(request)
    told = prepared(logger, request)
    assert request == before
    assert told.keys() >= request.keys()
