"""Around the proxy's application: what the plugin answers itself, before LiteLLM sees the request."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

READINESS = "/health/readiness"


class Readiness:
    """Answers the readiness probe with 503 while ``problem()`` gives a reason why calls cannot be recorded; everything
    else, and the probe otherwise, is ``app``'s."""

    def __init__(self, app: App, problem: Callable[[], str | None]) -> None:
        self._app = app
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) == READINESS:
            problem = self._problem()
            if problem is not None:
                await answer_json(send, 503, {"status": "unhealthy", "reason": f"calls cannot be recorded: {problem}"})
                return
        await self._app(scope, receive, send)


def wrap_proxy(wrapper: Callable[[App], App]) -> None:
    """Put ``wrapper`` around the routes of the proxy's application while it starts.

    The wrapper stands inside the application's own middleware, because that compresses answers.
    """
    app = sys.modules["litellm.proxy.proxy_server"].app
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    layer = app.middleware_stack
    while type(layer.app).__name__ != "ExceptionMiddleware" and hasattr(layer.app, "app"):
        layer = layer.app
    layer.app = wrapper(layer.app)


async def answer_json(send: Send, status: int, body: dict[str, Any]) -> None:
    """Answer a request with ``body``."""
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
