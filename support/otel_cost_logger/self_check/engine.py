"""A small engine on loopback that answers the self-check's calls, with token counts that no tokenizer would find."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

MODEL = "self-check-engine"
BUSY_MODEL = "self-check-busy-engine"  # it is always busy
PROMPT_TOKENS = 1234
CACHED_TOKENS = 234
COMPLETION_TOKENS = 567
REASONING_TOKENS = 89
PARTIAL_TOKENS = 5  # what the engine has counted when a caller hangs up
RESPONSE_ID = "self-check-response"
ALWAYS_BUSY = "the engine is always busy"  # a prompt
ONCE_BUSY = "the engine is busy once"  # a prompt
ENDLESS = "the engine does not end"  # a prompt


class Engine:
    """Answers /v1/chat/completions and /v1/completions. ``traceparents`` are the trace contexts that it was told."""

    def __init__(self) -> None:
        self.traceparents: list[str] = []
        self.port = 0
        self._was_busy = False

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Engine]:
        """Listens on a port of the loopback interface that is free."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            request = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))))
            self.traceparents.append(headers.get("traceparent", ""))
            prompt = request.get("prompt") or request["messages"][0]["content"]
            if prompt == ALWAYS_BUSY or request["model"] == BUSY_MODEL or (prompt == ONCE_BUSY and not self._was_busy):
                self._was_busy = prompt == ONCE_BUSY
                status = "500 Internal Server Error"
                _write(writer, status, "application/json", json.dumps({"error": {"message": prompt}}))
            elif request.get("stream"):
                await _stream(writer, request, endless=prompt == ENDLESS)
            else:
                answer = _part(request, "message") | {"usage": _usage(COMPLETION_TOKENS)}
                _write(writer, "200 OK", "application/json", json.dumps(answer))
            await writer.drain()
        writer.close()


def _write(writer: asyncio.StreamWriter, status: str, kind: str, body: str) -> None:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    writer.write((head + body).encode())


async def _stream(writer: asyncio.StreamWriter, request: Mapping[str, Any], *, endless: bool) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    options = request.get("stream_options") or {}
    part = _part(request, "delta", finish=None)
    if options.get("continuous_usage_stats"):
        part["usage"] = _usage(PARTIAL_TOKENS)
    parts = [part, part] if endless else [part, _part(request, "delta")]
    if options.get("include_usage") and not endless:
        parts.append({**part, "choices": [], "usage": _usage(COMPLETION_TOKENS)})
    for each in parts:
        writer.write(f"data: {json.dumps(each)}\n\n".encode())
        await writer.drain()
    if endless:
        await asyncio.sleep(3600)  # until the caller or the check is gone
    writer.write(b"data: [DONE]\n\n")


def _part(request: Mapping[str, Any], whole: str, *, finish: str | None = "stop") -> dict[str, Any]:
    text = {"role": "assistant", "content": "word"}
    choice = {"text": "word"} if "prompt" in request else {whole: text}
    kind = "text_completion" if "prompt" in request else f"chat.completion{'.chunk' if whole == 'delta' else ''}"
    choices = [{"index": 0, "finish_reason": finish, "logprobs": None, **choice}]
    return {"id": RESPONSE_ID, "object": kind, "created": 1, "model": MODEL, "choices": choices}


def _usage(completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion,
        "total_tokens": PROMPT_TOKENS + completion,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "completion_tokens_details": {"reasoning_tokens": min(REASONING_TOKENS, completion)},
    }
