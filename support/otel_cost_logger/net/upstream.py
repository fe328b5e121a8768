"""What the engine says, read where it comes back to LiteLLM.

Of some streams LiteLLM keeps nothing when their caller leaves: no hook is called, and what the engine had counted is
gone. Such a request's passage has a reader, and the engine's answer passes it here. LiteLLM sends what it asks of an
engine with httpx; there is no other place that all of its versions and all of its translations go through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import wraps
from typing import Any

import httpx

from otel_cost_logger.net.passage import current
from otel_cost_logger.net.usage import AnswerReader


class _Tapped(httpx.AsyncByteStream):
    """``stream``, shown to ``reader`` as it passes."""

    def __init__(self, stream: httpx.AsyncByteStream, reader: AnswerReader) -> None:
        self._stream = stream
        self._reader = reader

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._reader.feed(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def watch_engines() -> None:
    """From here on every passage with a reader sees its engine's stream. Once per process."""
    send = httpx.AsyncClient.send
    if getattr(send, "__wrapped__", None) is not None:
        return

    @wraps(send)
    async def watched(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        response = await send(client, request, **options)
        passage = current()
        if passage is None or passage.upstream is None or not options.get("stream") or not response.is_success:
            return response
        # What an engine compresses is read by nobody.
        if "content-encoding" not in response.headers and isinstance(response.stream, httpx.AsyncByteStream):
            passage.upstream = AnswerReader(stream=True)  # of several attempts the last
            response.stream = _Tapped(response.stream, passage.upstream)
        return response

    setattr(httpx.AsyncClient, "send", watched)  # noqa: B010  # the types see a method where a function is
