"""A closed loop: so many connections, each asking again as soon as it has its answer.

It finds out how many requests per second a server answers when it is never idle, and which calls were answered. It does
not tell what latency a user would see at a given rate: a slow server slows its own callers down here (coordinated
omission).

Plain asyncio streams and one prepared request, because the client runs beside what it measures: an answer costs
it a fraction of what httpx takes, which would measure httpx.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

CALL_ID = b"x-litellm-call-id"  # LiteLLM names each call in its answer

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class LoadError(ConnectionError):
    """The load could not be started: nothing accepts connections at the address."""


class _BadAnswer(Exception):
    """An answer came that does not count as one; the message says why and becomes the error's name."""


@dataclass(frozen=True)
class Request:
    """A POST of ``body`` as JSON to ``url`` (http only). An answer counts only if it is 200 and has ``expected``."""

    url: str
    body: Mapping[str, Any]
    expected: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(
                f"{self.url!r} is not an address that the load client can use; it needs http://HOST:PORT/..."
            )
        return parts.hostname, parts.port or 80

    def wire(self) -> bytes:
        """The request as it is sent."""
        host, port = self.address
        body = json.dumps(self.body).encode()
        headers = {
            "Host": f"{host}:{port}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **self.headers,
        }
        lines = [
            f"POST {urlsplit(self.url).path or '/'} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Load:
    """What a closed loop saw: good answers, and everything else by kind.

    ``call_ids`` are those of the good answers that have one, ``durations`` the seconds that each good answer took.
    ``seconds`` are those from the first request to the last answer, ``cpu_seconds`` what this client used of them.
    """

    answered: int = 0
    call_ids: list[str] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Good answers per second."""
        return self.answered / self.seconds


def closed_loop(
    request: Request,
    *,
    connections: int,
    seconds: float = math.inf,
    calls: int | None = None,
    timeout: float = 30.0,
    break_off: bool = False,
    seen: Load | None = None,
) -> Load:
    """Send ``request`` over ``connections`` kept-alive connections for ``seconds``, ``calls`` times at most.

    Every request begun is finished; ``timeout`` (seconds) is for one answer. Failures are counted, by kind, in
    `Load.errors`; a connection that was lost is opened again unless ``break_off``, and one that cannot be opened again
    stays away. ``seen`` is filled meanwhile, for another thread to watch. Raises `LoadError` when not all connections
    can be opened at the start.
    """
    numbers = iter(range(calls)) if calls is not None else itertools.count()
    gc.collect()
    gc.disable()  # a collection of this process's heap would look like a stall of the server
    try:
        return asyncio.run(_Loop(request, timeout, numbers, break_off, seen or Load()).run(connections, seconds))
    finally:
        gc.enable()


class _Loop:
    def __init__(self, request: Request, timeout: float, numbers: Iterator[int], break_off: bool, seen: Load) -> None:
        self._host, self._port = request.address
        self._wire = request.wire()
        self._expected = request.expected
        self._timeout = timeout
        self._numbers = numbers
        self._break_off = break_off
        self._load = seen

    async def run(self, connections: int, seconds: float) -> Load:
        try:
            opened = [await self._open() for _ in range(connections)]
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise LoadError(f"cannot connect to {self._host} port {self._port}: {reason}") from error
        cpu_started, started = time.process_time(), time.perf_counter()
        await asyncio.gather(*(self._ask_until(started + seconds, connection) for connection in opened))
        self._load.seconds = time.perf_counter() - started
        self._load.cpu_seconds = time.process_time() - cpu_started
        return self._load

    async def _open(self) -> _Connection:
        async with asyncio.timeout(self._timeout):
            return await asyncio.open_connection(self._host, self._port)

    async def _ask_until(self, deadline: float, connection: _Connection) -> None:
        while time.perf_counter() < deadline and next(self._numbers, None) is not None:
            began = time.perf_counter()
            reusable, failure = False, ""
            try:
                async with asyncio.timeout(self._timeout):
                    reusable = await self._ask(*connection)
                self._load.answered += 1
                self._load.durations.append(time.perf_counter() - began)
            except _BadAnswer as error:
                failure = str(error)
            except TimeoutError:
                failure = "timed out"
            except (OSError, asyncio.IncompleteReadError):
                failure = "disconnected"
            except (ValueError, asyncio.LimitOverrunError):
                failure = "not HTTP"
            if failure:
                self._load.errors[failure] += 1
            if not reusable:
                await _close(connection)
                if self._break_off and failure == "disconnected":
                    return
                try:
                    connection = await self._open()
                except OSError:
                    self._load.errors["could not reconnect"] += 1
                    return
        await _close(connection)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; True when the connection can be used again."""
        writer.write(self._wire)
        status, headers = parse_head(await reader.readuntil(b"\r\n\r\n"))
        body, reusable = await _read_body(reader, headers)
        if status != 200:
            raise _BadAnswer(f"HTTP {status}")
        if self._expected not in body:
            raise _BadAnswer("unexpected answer")
        if call_id := headers.get(CALL_ID):
            self._load.call_ids.append(call_id.decode())
        return reusable


def parse_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers, their names in lower case, of an answer in HTTP/1.1. Raises ValueError for anything else."""
    status_line, *lines = head.split(b"\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    protocol, _, rest = status_line.partition(b" ")
    if protocol != b"HTTP/1.1":
        raise ValueError(f"not an answer in HTTP/1.1: {status_line!r}")
    return int(rest[:3]), headers


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[bytes, bytes]) -> tuple[bytes, bool]:
    """The body (RFC 9112, section 6), and whether the connection stays open after it."""
    stays_open = headers.get(b"connection", b"").lower() != b"close"
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        return await _read_chunks(reader), stays_open
    if b"content-length" in headers:
        return await reader.readexactly(int(headers[b"content-length"])), stays_open
    return await reader.read(), False


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailer fields
    return b"".join(chunks)


async def _close(connection: _Connection) -> None:
    _, writer = connection
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
