"""The net itself: an ASGI application around LiteLLM's.

It lies inside everything that LiteLLM puts around its routes (compression among it), so that it sees answers as they
are. A request on a road that LiteLLM's hooks report passes with a note of where it came from and nothing else. What
goes through raw is counted here. A closed road answers with 403.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qs

import httpx

from otel_cost_logger.asgi import App, Message, Receive, Scope, Send, answer_json
from otel_cost_logger.caller_fields import NotAllowed, require_plain_stream
from otel_cost_logger.net.passage import Identity, Passage, enter
from otel_cost_logger.net.roads import CLOSED, NO_ENGINE, OPENED, RAW, REPORTED, Road, Roads
from otel_cost_logger.net.stopping import OpenRequests
from otel_cost_logger.net.stream_options import Unasked, counting
from otel_cost_logger.net.usage import AnswerReader
from otel_cost_logger.settings import in_force

_KEY_HEADERS = (  # LiteLLM's
    *("authorization", "x-litellm-api-key", "api-key", "x-api-key", "x-goog-api-key"),
    "ocp-apim-subscription-key",
)
_NO_SOCKETS = Road("", CLOSED, "what goes through a WebSocket is not counted")
_GRACE_SECONDS = 2.0  # LiteLLM's hooks report a moment after the answer
_LOOKS = 100

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Answer:
    """What came of a passage that the net counts: ``status`` is None where no answer began. ``finished`` says that it
    was given in full, ``left`` that the caller did not wait for that. Times are nanoseconds since the epoch."""

    status: int | None = None
    stream: bool = False
    reader: AnswerReader | None = None
    first_ns: int | None = None
    ended_ns: int = 0
    finished: bool = False
    left: bool = False


class Recorder(Protocol):
    """What the net asks of the plugin."""

    async def admit(self, passage: Passage) -> None:
        """Note the request before it is dispatched; raises what the caller is to be told when it must not be."""

    def answered(self, passage: Passage, answer: Answer) -> None:
        """The request is over: its record is due. Never raises."""

    def identity_of(self, key: str) -> Identity | None:
        """Whose key this is; None for one that nobody knows."""


class Net:
    """The ASGI application ``app``, with every road to an engine watched. ``opened`` are the roads that the operator
    opened, ``requests`` what is under way on them."""

    def __init__(self, app: App, recorder: Recorder, opened: tuple[str, ...] = ()) -> None:
        self.app = app
        self.requests = OpenRequests()
        self._recorder = recorder
        self._roads = Roads(opened)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        address = _address(scope)
        road = self._roads.of(address, scope.get("method", ""))
        if scope["type"] == "websocket" and road.kind != OPENED:
            road = _NO_SOCKETS
        if road.kind == NO_ENGINE:
            await self.app(scope, receive, send)
            return
        engine = address
        if road.kind == CLOSED and (configured := _configured(address, scope)):
            road, engine = configured
        headers = _Headers(scope)
        if road.kind == CLOSED and _is_operator(headers, scope):
            road = Road(road.pattern or address, OPENED, "the operator's own key")
        whose = partial(self._whose, headers, scope)
        passage = Passage(road, address, engine, headers, self._recorder.admit, whose)
        if road.kind != REPORTED:
            passage.call_id = str(uuid.uuid4())
        if road.kind == CLOSED:
            await self._refuse(passage, scope, receive, send)
            return
        enter(passage)
        if road.streams_text:
            passage.upstream = AnswerReader(stream=True)
        await self._served(passage, scope, receive, send)
        if self.requests.stopping and not passage.stopped:
            await _reported(passage)

    async def _served(self, passage: Passage, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        serve = self._counted if passage.road.kind in (RAW, OPENED) else self._passed
        self.requests.begin(passage)
        try:
            await serve(passage, scope, receive, noted)
        except asyncio.CancelledError:
            if not passage.stopped:
                raise
            if scope["type"] == "http" and not begun:  # an answer that has begun breaks off
                await _respond(send, 503, "The proxy stops. Send your request again.", "proxy_stopped")
        finally:
            self.requests.end(passage)

    async def _passed(self, _: Passage, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    async def _counted(self, passage: Passage, scope: Scope, receive: Receive, send: Send) -> None:
        answer = Answer()
        try:
            if scope["type"] == "http":
                receive = await _read_request(passage, scope, receive)
        except NotAllowed as error:
            answer.status, answer.finished = 400, True
            await _respond(send, 400, str(error), "invalid_request_error")
            self._over(passage, answer)
            return
        try:
            await self.app(scope, _watched(receive, answer), _Read(passage, answer, send))
        except BaseException as error:
            answer.left = answer.left or not isinstance(error, Exception) or isinstance(error, OSError)
            if isinstance(error, httpx.HTTPStatusError) and answer.status is None:
                answer.status = error.response.status_code  # the engine's own; the caller gets another
            raise
        finally:
            self._over(passage, answer)

    def _over(self, passage: Passage, answer: Answer) -> None:
        answer.ended_ns = time.time_ns()
        if passage.road.kind == OPENED and not self.requests.stopping:
            # Whether LiteLLM's hooks report what is behind such a road is known when they had the time to.
            asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._recorder.answered, passage, answer)
        else:
            self._recorder.answered(passage, answer)

    async def _refuse(self, passage: Passage, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "this address is closed"})
        else:
            await _respond(
                send,
                403,
                f"{passage.address} is closed: {passage.road.why}. Use another address of this proxy, or ask your "
                "operator, who can open it.",
                "road_closed",
            )
        if any(_keys_shown(passage.headers, scope)):  # whoever shows none is nobody's tenant
            passage.identity = passage.whose()
            self._recorder.answered(passage, Answer(status=403, ended_ns=time.time_ns(), finished=True))

    def _whose(self, headers: Mapping[str, str], scope: Scope) -> Identity | None:
        return next(filter(None, map(self._recorder.identity_of, _keys_shown(headers, scope))), None)


async def _reported(passage: Passage) -> None:
    """Wait until LiteLLM's hooks have reported the call of ``passage``, if it made one. A server that stops waits for
    open requests only."""
    for _ in range(_LOOKS):
        if passage.key is None or passage.reports:
            return
        await asyncio.sleep(_GRACE_SECONDS / _LOOKS)


class _Read:
    """``send``, with an eye on what is sent."""

    def __init__(self, passage: Passage, answer: Answer, send: Send) -> None:
        self._passage = passage
        self._answer = answer
        self._send = send
        self._unasked: Unasked | None = None

    async def __call__(self, message: Message) -> None:
        answer = self._answer
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            answer.status = message["status"]
            answer.stream = headers.get(b"content-type", b"").startswith(b"text/event-stream")
            answer.reader = AnswerReader(stream=answer.stream)
            if answer.stream and self._passage.asked_to_count:
                self._unasked = Unasked(self._passage.body, answer.reader)
        elif message["type"] == "http.response.body" and answer.reader is not None:
            last = not message.get("more_body", False)
            body = message.get("body", b"")
            if body and answer.first_ns is None:
                answer.first_ns = time.time_ns()
            if self._unasked is not None:
                message = {**message, "body": self._unasked.passed(body, last=last)}
            else:
                answer.reader.feed(body)
            answer.finished = last and not answer.left
        await self._send(message)


def _watched(receive: Receive, answer: Answer) -> Receive:
    async def watched() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect" and not answer.finished:
            answer.left = True
        return message

    return watched


async def _read_request(passage: Passage, scope: Scope, receive: Receive) -> Receive:
    """``receive`` of a request that was read; it asks the engine to count a stream. Raises `NotAllowed`."""
    if passage.headers.get("content-type", "").startswith("multipart/"):
        return receive
    pieces: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return _replayed(message, receive)
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    whole = b"".join(pieces)
    try:
        body = json.loads(whole) if whole.strip() else None
    except ValueError:
        body = None
    if isinstance(body, dict):
        passage.body = body
        if passage.road.kind == RAW and (asked := _asked(passage, body)) is not None:
            whole = json.dumps(asked).encode()
            others = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
            scope["headers"] = [*others, (b"content-length", str(len(whole)).encode())]
    return _replayed({"type": "http.request", "body": whole, "more_body": False}, receive)


def _asked(passage: Passage, body: dict[str, Any]) -> dict[str, Any] | None:
    """What is sent in the place of ``body``; None where it can go as it is. Raises `NotAllowed`."""
    require_plain_stream(body)
    if passage.engine == passage.address and not isinstance(body.get("model"), str):
        raise NotAllowed('"model" must name a model: without it, it is not known what the answer costs')
    asked = counting(body, passage.engine)
    passage.asked_to_count = asked is not None
    if asked is None and not body.get("stream", True):
        # LiteLLM stumbles over the answer where a request says that it is to be no stream.
        return {name: value for name, value in body.items() if name != "stream"}
    return asked


def _replayed(message: Message, receive: Receive) -> Receive:
    first = [message]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed


async def _respond(send: Send, status: int, message: str, kind: str) -> None:
    """LiteLLM's form of an error."""
    await answer_json(send, status, {"error": {"message": message, "type": kind, "param": None, "code": str(status)}})


def _address(scope: Scope) -> str:
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class _Headers(Mapping[str, str]):
    """A request's headers by their names in lower case, decoded when asked for."""

    def __init__(self, scope: Scope) -> None:
        self._raw = scope["headers"]

    def __getitem__(self, name: str) -> str:
        raw = name.encode("latin-1")
        for found, value in self._raw:
            if found == raw:
                text: str = value.decode("latin-1")
                return text
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name, _ in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


def _keys_shown(headers: Mapping[str, str], scope: Scope) -> list[str]:
    own = _general_settings().get("litellm_key_header_name")
    names = (*_KEY_HEADERS, own.lower()) if isinstance(own, str) else _KEY_HEADERS
    shown = [headers.get(name, "") for name in names]
    shown += parse_qs(scope.get("query_string", b"").decode("latin-1")).get("key", [])
    return [key.partition(" ")[2].strip() if key[:7].lower() == "bearer " else key for key in shown if key]


def _is_operator(headers: Mapping[str, str], scope: Scope) -> bool:
    master = in_force().master_key or getattr(_proxy(), "master_key", None)
    if not isinstance(master, str) or not master:
        return False
    return any(hmac.compare_digest(key.encode(), master.encode()) for key in _keys_shown(headers, scope))


def _proxy() -> object:
    return sys.modules.get("litellm.proxy.proxy_server")


def _general_settings() -> Mapping[str, Any]:
    found = getattr(_proxy(), "general_settings", None)
    return found if isinstance(found, Mapping) else {}


def _configured(address: str, scope: Scope) -> tuple[Road, str] | None:
    """The road of an endpoint that the operator configured to be passed through (``pass_through_endpoints``), and where
    it leads."""
    module = sys.modules.get("litellm.proxy.pass_through_endpoints.pass_through_endpoints")
    registry = getattr(module, "InitPassThroughEndpointHelpers", None)
    if registry is None:
        return None
    try:
        found = registry.get_registered_pass_through_route(route=address, method=scope.get("method"))
        target = str(found["passthrough_params"]["target"]) + address[len(found["path"]) :] if found else ""
    except Exception:
        _log.exception("it could not be told whether %s is a configured endpoint; it is closed", address)
        return None
    return (Road(address, RAW, "configured by the operator"), target) if found else None
