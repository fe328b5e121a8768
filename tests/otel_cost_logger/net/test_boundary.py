"""The net around an application that is not LiteLLM's: who comes in, what goes out, and what is recorded of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from otel_cost_logger.net.boundary import Answer, Net
from otel_cost_logger.net.passage import Identity, Passage, current
from otel_cost_logger.net.record import record_of_passage
from otel_cost_logger.record import CallRecord

MASTER = "sk-the-operators-own-key"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Recorder:
    """Admits everybody, and keeps the records."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    async def admit(self, passage: Passage) -> None:
        passage.admitted = True

    def answered(self, passage: Passage, answer: Answer) -> None:
        self.records.append(record_of_passage(passage, answer, None))

    def identity_of(self, key: str) -> Identity | None:
        return Identity("tenant-acme", "acme-key", "hash") if key == "acme" else None


Part = tuple[bytes, bool]


class Engine:
    """Stands for LiteLLM's routes: lets every key in, and answers ``parts``; keeps what it was asked."""

    def __init__(self, *parts: bytes, status: int = 200, kind: bytes = b"application/json") -> None:
        self.parts = parts
        self.status = status
        self.kind = kind
        self.bodies: list[bytes] = []
        self.passages: list[Passage | None] = []
        self.sockets = 0

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        if scope["type"] == "websocket":
            self.sockets += 1
            return
        passage = current()
        self.passages.append(passage)
        if passage is not None:
            passage.identity = Identity("tenant-acme", None, None)
            await passage.admit(passage)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"content-type", self.kind)]})
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def ask(
    net: Net, address: str, body: bytes = b"", *, headers: dict[str, str] | None = None, kind: str = "http"
) -> tuple[int | None, bytes]:
    """Status and body of the answer; the context is the request's own, as under a server."""
    sent: list[Any] = []
    came = [{"type": "http.request", "body": body[:5], "more_body": True}, {"type": "http.request", "body": body[5:]}]

    async def receive() -> Any:
        return came.pop(0) if came and kind == "http" else {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {"authorization": "Bearer acme"}).items()]
    scope = {"type": kind, "method": "POST", "path": address, "root_path": "", "query_string": b"", "headers": raw}
    asyncio.run(net(scope, receive, send))
    status = next((message["status"] for message in sent if message["type"] == "http.response.start"), None)
    if any(message["type"] == "websocket.close" for message in sent):
        return 1008, b""
    return status, b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")


def test_a_plain_answer_passes_as_it_is_and_leaves_one_record() -> None:
    recorder, engine = Recorder(), Engine(json.dumps({"model": "served", "usage": USAGE}).encode())
    status, body = ask(Net(engine, recorder), "/vllm/chat/completions", json.dumps(CHAT).encode())
    assert (status, body) == (200, engine.parts[0])
    assert engine.bodies == [json.dumps(CHAT).encode()]
    (record,) = recorder.records
    assert (record.tenant_id, record.model, record.model_served) == ("tenant-acme", "m", "served")
    assert (record.prompt_tokens, record.completion_tokens, record.usage_source) == (7, 3, "engine")
    assert (record.outcome, record.operation, record.cost_source) == ("success", "chat", "unpriced")


def test_where_nobody_counted_the_record_says_so_and_not_zero() -> None:
    recorder = Recorder()
    ask(Net(Engine(b"{}"), recorder), "/vllm/chat/completions", json.dumps(CHAT).encode())
    ask(Net(Engine(b"", status=400), recorder), "/vllm/chat/completions", json.dumps(CHAT).encode())
    ask(Net(Engine(b"", status=500), recorder), "/vllm/chat/completions", json.dumps(CHAT).encode())
    assert [record.cost_source for record in recorder.records] == ["unknown", "not_charged", "unknown"]


@pytest.mark.parametrize("body", [{**CHAT, "stream": 1}, {**CHAT, "background": True}, {"messages": []}])
def test_what_could_not_be_counted_is_refused_before_it_is_dispatched(body: dict[str, Any]) -> None:
    recorder, engine = Recorder(), Engine(b"{}")
    status, answer = ask(Net(engine, recorder), "/vllm/chat/completions", json.dumps(body).encode())
    assert status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"
    assert not engine.bodies
    assert [(record.outcome, record.cost_source) for record in recorder.records] == [("failure", "not_charged")]


def test_a_reported_road_gets_a_note_and_no_record() -> None:
    recorder, engine = Recorder(), Engine(b"{}")
    ask(Net(engine, recorder), "/v1/chat/completions", json.dumps(CHAT).encode())
    (passage,) = engine.passages
    assert passage is not None
    assert passage.road.kind == "reported"
    assert not recorder.records
    ask(Net(engine, recorder), "/key/delete")
    assert engine.passages[1] is None


def test_a_closed_road_is_refused_and_the_refusal_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", MASTER)
    recorder, engine = Recorder(), Engine(b"{}")
    net = Net(engine, recorder)
    for headers in ({"authorization": "Bearer acme"}, {"x-api-key": "acme"}, {"x-api-key": "nobody"}, {"a": "b"}):
        status, body = ask(net, "/azure/chat/completions", headers=headers)
        assert status == 403
        assert json.loads(body)["error"]["type"] == "road_closed"
    assert not engine.bodies
    tenants = ["tenant-acme", "tenant-acme", "unauthenticated"]  # who shows no key is not recorded
    assert [record.tenant_id for record in recorder.records] == tenants
    assert {(record.call_type, record.cost_source, record.error_status) for record in recorder.records} == {
        ("closed_road", "not_charged", 403)
    }


def test_the_operators_own_key_and_what_the_operator_opened_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", MASTER)
    recorder, engine = Recorder(), Engine(b"{}")
    assert ask(Net(engine, recorder), "/azure/a", headers={"authorization": f"Bearer {MASTER}"})[0] == 200
    assert ask(Net(engine, recorder, ("/azure/*",)), "/azure/a")[0] == 200
    assert ask(Net(engine, recorder, ("/azure/*",)), "/azure_ai/a")[0] == 403


def test_no_socket_is_open_that_nobody_counts() -> None:
    recorder, engine = Recorder(), Engine()
    for address in ("/v1/responses", "/v1/realtime", "/openai/v1/realtime", "/ui/socket"):
        assert ask(Net(engine, recorder), address, kind="websocket")[0] == 1008
    assert engine.sockets == 0
    ask(Net(engine, recorder, ("/v1/realtime",)), "/v1/realtime", kind="websocket")
    assert engine.sockets == 1


def test_a_stream_that_breaks_off_in_the_engine_is_a_failure() -> None:
    recorder = Recorder()
    counted = b"data: " + json.dumps({"choices": [{"delta": {}}], "usage": USAGE}).encode() + b"\n\n"
    engine = Engine(counted, b'data: {"error": {"code": 500}}\n\n', kind=b"text/event-stream; charset=utf-8")
    ask(Net(engine, recorder), "/vllm/chat/completions", json.dumps(CHAT | {"stream": True}).encode())
    (record,) = recorder.records
    assert (record.outcome, record.completion_tokens, record.stream) == ("failure", 3, True)


def test_an_application_that_raises_leaves_a_record_too() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        passage = current()
        assert passage is not None
        await passage.admit(passage)
        raise RuntimeError("no")

    recorder = Recorder()
    with pytest.raises(RuntimeError):
        ask(Net(broken, recorder), "/vllm/chat/completions", json.dumps(CHAT).encode())
    (record,) = recorder.records
    assert (record.outcome, record.error_status, record.cost_source) == ("failure", 500, "unknown")
