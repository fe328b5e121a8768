"""The client's end of a request: has it gone, and how its answer is sent or cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mock_vllm.errors import ApiError


class ClientDisconnected(Exception):
    """The client closed its connection; what was being made for it must stop."""


class ConnectionCut(Exception):
    """Raised while streaming to drop the connection in the middle of the answer."""


class Client:
    """Watches one connection while its answer is being made. The body must have been read before."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._gone: asyncio.Task[None] | None = None

    async def pause(self, seconds: float) -> None:
        """Let time, or at least the other requests, pass. Raises `ClientDisconnected`."""
        gone = self._watch()
        if seconds > 0:
            await asyncio.wait((gone,), timeout=seconds)
        else:
            await asyncio.sleep(0)
        if gone.done():
            raise ClientDisconnected

    async def wait_for(self, future: asyncio.Future[None]) -> None:
        """Wait for something else to happen. Raises `ClientDisconnected`."""
        gone = self._watch()
        await asyncio.wait((gone, future), return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise ClientDisconnected

    async def until_gone(self) -> None:
        """Wait for the client to give up; always raises `ClientDisconnected`."""
        await self._watch()
        raise ClientDisconnected

    def release(self) -> None:
        """Stop watching: the answer is complete."""
        if self._gone is not None:
            self._gone.cancel()

    def _watch(self) -> asyncio.Task[None]:
        if self._gone is None:
            self._gone = asyncio.create_task(self._until_disconnect())
        return self._gone

    async def _until_disconnect(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


class EventStream(Response):
    """Server-sent events, one write each. Ends the events' generator whichever way the stream ends.

    `last_words` are the events that tell of an error, once it is too late for a status.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[str, None], client: Client, last_words: Callable[[ApiError], list[str]]
    ) -> None:
        super().__init__()
        self._events = events
        self._client = client
        self._last_words = last_words
        # The length is not known, and a default of 0 would be a lie.
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        except (ClientDisconnected, ConnectionCut):
            # Returning without a last body makes uvicorn close the connection as it stands.
            return
        except ApiError as error:
            for event in self._last_words(error):
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        finally:
            await self._events.aclose()
            self._client.release()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class TruncatedResponse(Response):
    """Promises the whole body, sends half of it, and drops the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": half, "more_body": True})
