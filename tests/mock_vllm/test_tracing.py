"""The mock's `llm_request` spans against one that a real vLLM sent, by both of OTLP's ways."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from workbook.services import Receiver

RECORDED = json.loads((Path(__file__).parent / "wire" / "otlp_llm_request_span.json").read_text())
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "ignore_eos": True, "temperature": 0}


@pytest.fixture(params=["grpc", "http/protobuf"])
def traced(request: pytest.FixtureRequest, start: Callable[..., Any]) -> Any:
    """A mock that sends its spans, and a way to end it and read them."""
    with Receiver("mock-spans") as receiver:
        # As in vLLM: the whole URL for HTTP.
        path = "" if request.param == "grpc" else "/v1/traces"
        server = start(
            "--otlp-traces-endpoint",
            f"{receiver.endpoint(request.param)}{path}",
            env={"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": request.param, "OTEL_SERVICE_NAME": "mocked"},
        )

        def spans() -> list[dict[str, Any]]:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=20)
            lines = receiver.ledger.read_text().splitlines() if receiver.ledger.exists() else []
            return [json.loads(line)["resourceSpans"][0] for line in lines]

        server.spans = spans
        yield server


def span_of(resource: dict[str, Any]) -> dict[str, Any]:
    return dict(resource["scopeSpans"][0]["spans"][0])


def attributes_of(holder: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values())) for item in holder["attributes"]}


def chat(server: Any, headers: dict[str, str] | None = None, **extra: Any) -> httpx.Response:
    url = f"{server.url}/v1/chat/completions"
    return httpx.post(url, json={**BODY, **extra}, headers=headers or {}, timeout=20)


def test_a_span_as_recorded(traced: Any) -> None:
    chat(traced, {"traceparent": f"{PARENT}-01", "x-request-id": "trace-1"})
    [resource] = traced.spans()
    span = span_of(resource)
    assert (span["traceId"], span["parentSpanId"]) == (RECORDED["trace_id"], RECORDED["parent"])
    assert (span["name"], span["kind"]) == (RECORDED["name"], RECORDED["kind"])
    assert resource["scopeSpans"][0]["scope"] == {"name": RECORDED["scope"]}
    assert not span.get("events")
    assert span.get("status", {}) == {}
    made = attributes_of(span)
    assert list(made) == list(RECORDED["attrs"])
    kinds = {item["key"]: next(iter(item["value"])) for item in span["attributes"]}
    types = {float: "doubleValue", int: "intValue", str: "stringValue"}
    assert kinds == {name: types[type(value)] for name, value in RECORDED["attrs"].items()}
    assert made["gen_ai.request.id"] == RECORDED["attrs"]["gen_ai.request.id"]
    assert made["gen_ai.usage.completion_tokens"] == "3"
    assert list(attributes_of(resource["resource"])) == list(RECORDED["resource"])
    assert attributes_of(resource["resource"])["service.name"] == "mocked"
    assert int(span["endTimeUnixNano"]) > int(span["startTimeUnixNano"])


def test_which_requests_leave_spans(traced: Any) -> None:
    chat(traced)
    chat(traced, temperature=0.5, n=2)
    chat(traced, stream=True)
    chat(traced, {"traceparent": f"{PARENT}-00"})  # a parent that is not sampled
    chat(traced, temperature=3)  # refused
    with httpx.stream("POST", f"{traced.url}/v1/completions", json={**BODY, "prompt": ["a", "b"]}) as response:
        response.read()
    spans = [span_of(resource) for resource in traced.spans()]
    made = [attributes_of(span) for span in spans]
    assert len(spans) == 1 + 2 + 1 + 2
    assert [item.get("gen_ai.request.temperature") for item in made] == [None, 0.5, 0.5, None, None, None]
    assert {item["gen_ai.request.n"] for item in made} == {"1"}
    assert made[1]["gen_ai.request.id"] == made[2]["gen_ai.request.id"]
    assert [item["gen_ai.request.id"][-2:] for item in made[4:]] == ["-0", "-1"]
    assert all(not span.get("parentSpanId") for span in spans)


def test_no_request_waits_for_a_receiver_that_is_not_there(start: Callable[..., Any]) -> None:
    server = start("--otlp-traces-endpoint", "http://127.0.0.1:9")
    for _ in range(5):
        assert chat(server).status_code == 200


def test_a_protocol_that_does_not_exist_is_refused(start: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="did not become ready"):
        start("--otlp-traces-endpoint", "http://127.0.0.1:9", env={"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "smoke"})
    assert "it must be 'grpc' or 'http/protobuf'" in (tmp_path / "mock-1.log").read_text()
