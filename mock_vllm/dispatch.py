"""From a request to its answer: read it, run it through the engine, send it whole or as a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from mock_vllm.connection import Client, ClientDisconnected, EventStream, TruncatedResponse
from mock_vllm.engine import Engine
from mock_vllm.errors import EngineDead, EngineRefusal
from mock_vllm.faults import Fault, requested_fault, spoil
from mock_vllm.settings import Settings
from mock_vllm.validation import read_json
from mock_vllm.wire import Call, Choice, GeneratingCall, Json, dumps

if TYPE_CHECKING:
    from mock_vllm.tracing import SpanWriter

# nginx's "client closed request": written for the sake of a status, nobody is there to read it.
_CLIENT_CLOSED_REQUEST = 499


def json_response(body: Json, status: int = 200) -> Response:
    return Response(dumps(body), status, media_type="application/json")


async def respond(
    request: Request, read: type[Call], settings: Settings, engine: Engine, spans: SpanWriter | None
) -> Response:
    """The answer to a request that `read` understands. Raises `ApiError` before the first byte."""
    body = await read_json(request)
    fault = None
    if settings.enable_faults and isinstance(body, dict):
        fault = requested_fault(body, request.headers)
    client = Client(request)
    try:
        call = read(body, request.headers, settings)
    except EngineRefusal as error:
        if not (issubclass(read, GeneratingCall) and body.get("stream")):
            raise
        return EventStream(_told(read.last_words(error)), client, read.last_words)
    if spans is not None:
        call.job.trace_headers = spans.context_of(request.headers)
    engine.check_admission(len(call.job.sequences))
    if isinstance(call, GeneratingCall) and call.stream:
        events = call.events(engine.generate(call.job, client))
        if fault is not None:
            events = spoil(events, fault, client, engine)
        return EventStream(events, client, call.last_words)
    try:
        return await _whole(call, engine, client, fault)
    except ClientDisconnected:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    finally:
        client.release()


async def _told(events: list[str]) -> AsyncGenerator[str, None]:
    for event in events:
        yield event


async def _whole(call: Call, engine: Engine, client: Client, fault: Fault | None) -> Response:
    if fault is not None and fault.kind == "hang":
        await client.until_gone()
    if fault is not None and fault.kind == "crash":
        engine.crash()
    if fault is not None and fault.kind in ("die", "crash"):
        raise EngineDead()
    choices = [Choice(index) for index in range(len(call.job.sequences))]
    async with aclosing(engine.generate(call.job, client)) as tokens:
        async for sequence, token in tokens:
            choices[sequence.index].add(token)
    if fault is not None:
        return TruncatedResponse(dumps(call.answer(choices)), media_type="application/json")
    return json_response(call.answer(choices))
