"""From a request to its answer: read it, run it through the engine, send it whole or as a stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from mock_vllm.connection import Client, ClientDisconnected, EventStream, TruncatedResponse
from mock_vllm.engine import Engine
from mock_vllm.errors import engine_dead
from mock_vllm.faults import Fault, requested_fault, spoil
from mock_vllm.settings import Settings
from mock_vllm.validation import read_json
from mock_vllm.wire import Call, Choice, GeneratingCall, Json, dumps

ReadCall = Callable[[Any, Headers, Settings], Call]

# nginx's "client closed request": written for the sake of a status, nobody is there to read it.
_CLIENT_CLOSED_REQUEST = 499


def json_response(body: Json, status: int = 200) -> Response:
    return Response(dumps(body), status, media_type="application/json")


async def respond(request: Request, read: ReadCall, settings: Settings, engine: Engine) -> Response:
    """The answer to a request that `read` understands. Raises `ApiError` before the first byte."""
    body = await read_json(request)
    fault = None
    if settings.enable_faults and isinstance(body, dict):
        fault = requested_fault(body, request.headers)
    call = read(body, request.headers, settings)
    engine.check_admission(len(call.job.sequences))
    client = Client(request)
    if isinstance(call, GeneratingCall) and call.stream:
        events = call.events(engine.generate(call.job, client))
        if fault is not None:
            events = spoil(events, fault, client, call.last_words(engine_dead()))
        return EventStream(events, client)
    try:
        return await _whole(call, engine, client, fault)
    except ClientDisconnected:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    finally:
        client.release()


async def _whole(call: Call, engine: Engine, client: Client, fault: Fault | None) -> Response:
    if fault is not None and fault.kind == "hang":
        await client.until_gone()
    if fault is not None and fault.kind == "die":
        raise engine_dead()
    choices = [Choice(index) for index in range(len(call.job.sequences))]
    async with aclosing(engine.generate(call.job, client)) as tokens:
        async for sequence, token in tokens:
            choices[sequence.index].add(token)
    if fault is not None:
        return TruncatedResponse(dumps(call.answer(choices)), media_type="application/json")
    return json_response(call.answer(choices))
