"""The HTTP application: which path does what, who may call it, and what an error looks like."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_vllm import metrics, tokenization
from mock_vllm.chat import ChatCall
from mock_vllm.completions import CompletionsCall
from mock_vllm.dispatch import json_response, respond
from mock_vllm.embeddings import EmbeddingsCall
from mock_vllm.engine import Engine
from mock_vllm.errors import ApiError, Unauthorized
from mock_vllm.messages import MessagesCall, count_tokens, messages_error
from mock_vllm.responses import ResponsesCall, not_stored
from mock_vllm.settings import VLLM_VERSION, Settings
from mock_vllm.validation import read_json
from mock_vllm.wire import Call, Json, random_id

if TYPE_CHECKING:
    from mock_vllm.tracing import SpanWriter


def create_app(settings: Settings, spans: SpanWriter | None = None) -> FastAPI:
    """An application with an engine of its own; two of them in one process share nothing.

    `spans` is where finished requests are told, if anywhere.
    """
    # The schema pages would describe this module, not vLLM. FastAPI's own spans and metrics would mix with
    # those of whoever runs the mock; vLLM makes none unless told to.
    app = FastAPI(
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.engine = engine = Engine(settings, spans.write if spans is not None else None)
    _add_operations(app, settings, engine)
    _add_tokenizer(app, settings)
    if settings.runner == "pooling":
        _add_call(app, "/v1/embeddings", EmbeddingsCall, settings, engine, spans)
    else:
        _add_call(app, "/v1/chat/completions", ChatCall, settings, engine, spans)
        _add_call(app, "/v1/completions", CompletionsCall, settings, engine, spans)
        _add_call(app, "/v1/responses", ResponsesCall, settings, engine, spans)
        _add_call(app, "/v1/messages", MessagesCall, settings, engine, spans)
        _add_messages_count(app, settings)
        _add_invocations(app, settings, engine, spans)
    app.add_exception_handler(ApiError, _answer_error)
    app.add_exception_handler(Exception, _answer_failure)
    if settings.enable_request_id_headers:
        app.add_middleware(_RequestIdHeader)
    if settings.api_keys:
        app.add_middleware(_KeyCheck, keys=settings.api_keys)
    return app


def _add_operations(app: FastAPI, settings: Settings, engine: Engine) -> None:
    # Registered from below: a wrong method is told of the first route alone, in vLLM and here.
    @app.post("/ping")
    @app.get("/ping")
    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=503 if engine.dead else 200)

    @app.get("/version")
    async def version() -> Response:
        return json_response({"version": VLLM_VERSION})

    @app.get("/load")
    async def load() -> Response:
        return json_response({"server_load": engine.in_flight})

    @app.get("/v1/models")
    async def models() -> Response:
        cards = [_model_card(name, settings) for name in settings.served_model_names]
        return json_response({"object": "list", "data": cards})

    @app.get("/metrics")
    async def exposition() -> Response:
        return Response(engine.metrics.exposition(), headers={"content-type": metrics.CONTENT_TYPE})

    @app.get("/v1/responses/{response_id}")
    @app.post("/v1/responses/{response_id}/cancel")
    async def stored_response(response_id: str) -> Response:
        raise not_stored(404, "response_id", f"Response with id '{response_id}' not found.")


def _add_tokenizer(app: FastAPI, settings: Settings) -> None:
    @app.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        return json_response(tokenization.tokenize(await read_json(request), settings))

    @app.post("/detokenize")
    async def detokenize(request: Request) -> Response:
        return json_response(tokenization.detokenize(await read_json(request), settings))


def _add_call(
    app: FastAPI, path: str, read: type[Call], settings: Settings, engine: Engine, spans: SpanWriter | None
) -> None:
    @app.post(path)
    async def call(request: Request) -> Response:
        return await respond(request, read, settings, engine, spans)


def _add_messages_count(app: FastAPI, settings: Settings) -> None:
    @app.post("/v1/messages/count_tokens")
    async def count(request: Request) -> Response:
        return json_response(count_tokens(await read_json(request), settings))


def _add_invocations(app: FastAPI, settings: Settings, engine: Engine, spans: SpanWriter | None) -> None:
    """SageMaker's one path for everything: what a body is, is seen from what it has."""

    @app.post("/invocations")
    async def call(request: Request) -> Response:
        body = await read_json(request)
        chat = isinstance(body, dict) and "messages" in body
        return await respond(request, ChatCall if chat else CompletionsCall, settings, engine, spans)


def _model_card(name: str, settings: Settings) -> Json:
    now = int(time.time())
    return {
        "id": name,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": settings.model,
        "parent": None,
        "max_model_len": settings.max_model_len,
        "permission": [
            {
                "id": f"modelperm-{random_id()}",
                "object": "model_permission",
                "created": now,
                "allow_create_engine": False,
                "allow_sampling": True,
                "allow_logprobs": True,
                "allow_search_indices": False,
                "allow_view": True,
                "allow_fine_tuning": False,
                "organization": "*",
                "group": None,
                "is_blocking": False,
            }
        ],
    }


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    anthropic = request.url.path.startswith("/v1/messages")
    return json_response(messages_error(error) if anthropic else error.body(), error.status)


async def _answer_failure(request: Request, error: Exception) -> Response:
    """A fault of the mock itself, in the shape that clients of vLLM understand; the traceback is logged."""
    return await _answer_error(request, ApiError(500, "InternalServerError", f"mock_vllm failed: {error!r}"))


class _KeyCheck:
    """`--api-key`: a bearer token on every path under /v1, and on no other."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1") and not self._admits(Headers(scope=scope)):
            await json_response(Unauthorized().body(), 401)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admits(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Compare with every key, so that the time taken tells nothing.
        matches = [secrets.compare_digest(given.encode(), key) for key in self._keys]
        return scheme.lower() == "bearer" and any(matches)


class _RequestIdHeader:
    """`--enable-request-id-headers`: the caller's X-Request-Id, or a new one, on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id") or uuid.uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
