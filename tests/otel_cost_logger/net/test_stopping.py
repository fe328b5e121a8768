"""The net at SIGTERM, around an application that is not LiteLLM's: what ends in time, and what is ended."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest
import test_boundary

from otel_cost_logger.net.boundary import Net
from otel_cost_logger.net.passage import Identity, Passage, current

RAW, REPORTED = "/vllm/chat/completions", "/v1/chat/completions"
COUNTED = {"choices": [{"delta": {}}], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
EVENT = b"data: " + json.dumps(COUNTED).encode() + b"\n\n"
BODY = json.dumps({"model": "m", "messages": [], "stream": True}).encode()


class Recorder(test_boundary.Recorder):
    """Keeps the records, and is asked for nobody's key."""

    def identity_of(self, key: str) -> Identity | None:
        raise AssertionError(key)


class Server:
    """One request to ``address`` of a net whose application begins an answer, or does not, and waits; SIGTERM comes
    then, ends the request after ``patience`` seconds, and ``go_on`` lets the application end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, address: str, *, begins: bool, patience: float) -> None:
        self.recorder = Recorder()
        self.net = Net(self.engine, self.recorder)
        self.sent: list[Any] = []
        self.told: list[str] = []
        self.begins = begins
        self.address = address
        self.passage: Passage | None = None
        handlers: list[Any] = []
        monkeypatch.setattr(signal, "getsignal", lambda _: lambda *_: self.told.append("server"))
        monkeypatch.setattr(signal, "signal", lambda _, handler: handlers.append(handler))
        self.net.requests.end_after_sigterm(
            patience, lambda: self.told.append("stopping"), lambda: self.told.append("stopped")
        )
        (self.sigterm,) = handlers
        self.waiting, self.go_on = asyncio.Event(), asyncio.Event()

    async def engine(self, scope: Any, receive: Any, send: Any) -> None:
        self.passage = current()
        assert self.passage is not None
        await self.passage.admit(self.passage)
        headers = [(b"content-type", b"text/event-stream")]
        if self.begins:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        self.waiting.set()
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": EVENT, "more_body": False})

    async def serve(self, *, ends: bool = False) -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message: Any) -> None:
            self.sent.append(message)

        scope = {"type": "http", "method": "POST", "path": self.address, "query_string": b"", "headers": []}
        request = asyncio.create_task(self.net(scope, receive, send))  # type: ignore[arg-type]
        await self.waiting.wait()
        self.sigterm(signal.SIGTERM, None)
        if ends:
            self.go_on.set()
        await asyncio.wait_for(request, 30)


def test_a_counted_stream_that_stays_open_is_recorded_and_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, RAW, begins=True, patience=0.01)
    asyncio.run(server.serve())
    assert server.told == ["server", "stopping", "stopped"]
    (record,) = server.recorder.records
    assert (record.outcome, record.error_type, record.error_status) == ("failure", "ProxyStopped", 503)
    assert (record.prompt_tokens, record.completion_tokens, record.usage_source) == (7, 3, "engine")
    assert server.sent[-1]["more_body"]  # the server sees that the answer is not whole, and closes the connection


@pytest.mark.parametrize("address", [RAW, REPORTED])
def test_who_has_no_answer_yet_is_told(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    server = Server(monkeypatch, address, begins=False, patience=0.01)
    asyncio.run(server.serve())
    assert server.passage is not None
    assert server.passage.stopped
    assert server.sent[0]["status"] == 503
    assert json.loads(server.sent[1]["body"])["error"]["type"] == "proxy_stopped"
    assert [record.cost_source for record in server.recorder.records] == ["unknown"] * (address == RAW)


def test_what_ends_in_time_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, RAW, begins=True, patience=60)
    asyncio.run(server.serve(ends=True))
    assert server.told == ["server", "stopping"]
    assert [record.outcome for record in server.recorder.records] == ["success"]
    assert not server.sent[-1]["more_body"]


def test_a_request_that_ends_in_time_waits_for_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server goes when the last request is over, and LiteLLM's hooks report a moment later."""
    server = Server(monkeypatch, REPORTED, begins=True, patience=60)

    async def scenario() -> None:
        serving = asyncio.create_task(server.serve(ends=True))
        await server.waiting.wait()
        assert server.passage is not None
        server.passage.key = "key"
        done, _ = await asyncio.wait([serving], timeout=0.1)
        assert not done
        server.passage.reports += 1
        await serving

    asyncio.run(scenario())
