"""Streamed chat completions: when the first token came, and how fast the others followed.

Lengths are the engine's: tokens come from the answer's usage, never from counting chunks, because under load one
chunk holds several tokens and some tokens have no text. Plain asyncio streams, for the reason given in `load`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.load import Request, parse_head
from workbook.engine import MODEL_NAME

MakeRequest = Callable[[int, int], Request]
"""Gives the request with the running number ``number`` and the answer's length ``max_tokens``."""

_WORDS = (
    "amber anchor basket beacon candle canyon cedar cobalt comet copper coral cotton delta ember falcon fern "
    "galaxy garden granite harbor hazel indigo island ivory jasmine kernel lantern lemon linen magnet maple meadow "
    "mirror nectar needle ocean olive orchid paper pebble pepper pigeon planet quartz raven ribbon river saddle "
    "sailor shadow silver sparrow summer thunder timber tulip valley velvet violet walnut willow window winter zephyr"
)


@dataclass(frozen=True)
class Answer:
    """One answer that came whole. Times are in seconds from the moment the request was sent."""

    first_token: float
    last_token: float
    prompt_tokens: int
    completion_tokens: int

    @property
    def per_output_token(self) -> float:
        """Seconds per token after the first."""
        return (self.last_token - self.first_token) / (self.completion_tokens - 1)


def varied_prompt(words: int, seed: int) -> str:
    """A text of ``words`` words in an order that ``seed`` decides.

    The words are the same for every seed and each has a space before it, so a tokenizer that splits at spaces gives
    every such prompt the same number of tokens, and hardly two of them begin alike: no prefix cache helps.
    """
    bag = list(itertools.islice(itertools.cycle(_WORDS.split()), words))
    random.Random(seed).shuffle(bag)
    return "".join(f" {word}" for word in bag)


def streamed(url: str, headers: Mapping[str, str], words: int, seed: int) -> MakeRequest:
    """Requests to ``url`` for streams of full length, each with a prompt of its own of so many ``words``."""

    def make(number: int, max_tokens: int) -> Request:
        body = {
            "model": MODEL_NAME,
            "messages": [{"role": "user", "content": varied_prompt(max(1, words), seed + number)}],
            **{"max_tokens": max_tokens, "ignore_eos": True, "temperature": 0},
            **{"stream": True, "stream_options": {"include_usage": True}},
        }
        return Request(f"{url}/v1/chat/completions", body, expected=b"", headers=headers)

    return make


class _BadAnswer(Exception):
    """An answer that does not count; the message says why and becomes the error's name."""


async def ask(request: Request, max_tokens: int, seconds: float) -> Answer | str:
    """The answer to ``request``, of exactly ``max_tokens`` tokens, or what kind of failure came instead.

    It may take ``seconds``.
    """
    try:
        async with asyncio.timeout(seconds):
            answer = await _answer(request)
    except _BadAnswer as error:
        return str(error)
    except TimeoutError:
        return "timed out"
    except (OSError, asyncio.IncompleteReadError):
        return "disconnected"
    except (ValueError, KeyError, TypeError, asyncio.LimitOverrunError):
        return "not a stream of events"
    if answer.completion_tokens != max_tokens:
        return f"{answer.completion_tokens} tokens instead of {max_tokens}"
    return answer


async def _answer(request: Request) -> Answer:
    host, port = request.address
    reader, writer = await asyncio.open_connection(host, port)
    try:
        begun = time.perf_counter()
        writer.write(request.wire())
        status, headers = parse_head(await reader.readuntil(b"\r\n\r\n"))
        if status != 200:
            raise _BadAnswer(f"HTTP {status}")
        if headers.get(b"transfer-encoding", b"").lower() != b"chunked":
            raise _BadAnswer("not a stream")
        first = last = 0.0
        usage: dict[str, Any] | None = None
        async for event in _events(reader):
            if event == b"[DONE]":
                break
            # The first event tells the role; vLLM sends it together with the first token.
            last = time.perf_counter()
            first = first or last
            if b'"error"' in event and "error" in json.loads(event):
                raise _BadAnswer("an error in the stream")
            if b'"usage":{' in event.replace(b" ", b""):
                usage = json.loads(event)["usage"]
        if usage is None:
            raise _BadAnswer("ended without usage")
        return Answer(first - begun, last - begun, int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The data of each server-sent event in a chunked body, as it comes."""
    rest = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *events, rest = rest.split(b"\n\n")
        for event in events:
            if event.startswith(b"data: "):
                yield event[6:]
