"""A request to the proxy's application in this process, as a server would hand it over: no socket, no port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, MutableMapping
from typing import Any


async def post(
    app: Any, path: str, body: Mapping[str, Any], headers: Mapping[str, str], *, hang_up: bool = False
) -> tuple[int, bytes]:
    """POST ``body`` as JSON to ``path`` of the ASGI application ``app``: its status and answer.

    With ``hang_up`` the caller is gone as soon as some of the answer has come.
    """
    content = json.dumps(body).encode()
    sent = {"host": "localhost", "content-type": "application/json", "content-length": str(len(content)), **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
        "state": {},
    }
    requests = [{"type": "http.request", "body": content, "more_body": False}]
    gone = asyncio.Event()
    status, parts = 0, []

    async def receive() -> MutableMapping[str, Any]:
        if requests:
            return requests.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)
        if message.get("body"):
            parts.append(message["body"])
            if hang_up:
                gone.set()

    await app(scope, receive, send)
    return status, b"".join(parts)
