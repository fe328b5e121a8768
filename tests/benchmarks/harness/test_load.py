"""The load client counts good answers, and everything that is not one, by kind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from benchmarks.harness.load import Load, LoadError, Request, closed_loop

GOOD = b'{"usage": 16}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)

# What the server does with a connection's n-th request; True means that it goes on reading from the connection.
Handler = Callable[[int, bytes, asyncio.StreamWriter], Awaitable[bool]]


def answering(*parts: bytes, then_close: bool = False) -> Handler:
    """Answer with ``parts``, each sent by itself."""

    async def handle(number: int, request: bytes, writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return not then_close

    return handle


class Server:
    """A tiny HTTP server; ``requests`` are those that it received, ``connections`` how many it accepted."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.stop = asyncio.Event()

    async def serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.loop = asyncio.get_running_loop()
        ready.set()
        await self.stop.wait()
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = 0
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                if not await self._handler(number, self.requests[-1], writer):
                    break
                number += 1
        writer.close()


@contextmanager
def serving(handler: Handler) -> Iterator[Server]:
    server, ready = Server(handler), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(ready)))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        server.loop.call_soon_threadsafe(server.stop.set)
        thread.join()


def asked(server: Server) -> Request:
    url = f"http://127.0.0.1:{server.port}/v1/chat"
    return Request(url, {"model": "m"}, b'"usage"', {"Authorization": "Bearer k"})


def load(server: Server, *, connections: int = 2, seconds: float = 0.3, timeout: float = 10.0) -> Load:
    return closed_loop(asked(server), connections=connections, seconds=seconds, timeout=timeout)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE_ANSWERS = {
    "with a length": answering(PLAIN),
    "in pieces": answering(PLAIN[:5], PLAIN[5:30], PLAIN[30:-1], PLAIN[-1:]),
    "in chunks": answering(CHUNKED, b'6\r\n{"usag\r\n', b'7;name=value\r\ne": 16}\r\n0\r\n\r\n'),
    "in chunks with a trailer": answering(CHUNKED + b"D\r\n" + GOOD + b"\r\n0\r\nServer-Timing: 1\r\n\r\n"),
    "with what looks like an end": answering(CHUNKED + b"12\r\n0\r\n\r\n" + GOOD + b"\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("handler", WHOLE_ANSWERS.values(), ids=WHOLE_ANSWERS.keys())
def test_whole_answers_are_counted_on_kept_connections(handler: Handler) -> None:
    with serving(handler) as server:
        seen = load(server)
    assert seen.errors == {}
    assert seen.answered == len(server.requests) > 2
    assert server.connections == 2
    assert seen.per_second == pytest.approx(seen.answered / seen.seconds)
    assert seen.seconds >= 0.3
    assert seen.cpu_seconds > 0


def test_the_request_is_what_was_asked_for() -> None:
    with serving(answering(PLAIN)) as server:
        load(server, connections=1)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat HTTP/1.1"
    assert {b"Host: 127.0.0.1:%d" % server.port, b"Content-Type: application/json", b"Authorization: Bearer k"} <= {
        *lines
    }
    assert json.loads(body) == {"model": "m"}
    assert set(server.requests) == {server.requests[0]}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD),
        b"HTTP/1.1 200 OK\r\n\r\n" + GOOD,
    ],
    ids=["announced", "by the end of the connection"],
)
def test_a_server_may_close_after_each_answer(answer: bytes) -> None:
    with serving(answering(answer, then_close=True)) as server:
        seen = load(server)
    assert seen.errors == {}
    assert seen.answered == len(server.requests) > 2
    assert server.connections >= seen.answered


@pytest.mark.parametrize(
    ("kind", "handler"),
    [
        ("HTTP 500", answering(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")),
        ("HTTP 401", answering(b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\n"usage": 0')),
        ("unexpected answer", answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")),
        ("disconnected", answering(b"", then_close=True)),
        ("disconnected", answering(PLAIN[:-1], then_close=True)),
        ("disconnected", answering(CHUNKED + b"D\r\n" + GOOD, then_close=True)),
        ("not HTTP", answering(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")),
        ("not HTTP", answering(CHUNKED + b"many\r\n")),
        ("not HTTP", answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")),
    ],
)
def test_failures_are_counted_by_kind(kind: str, handler: Handler) -> None:
    with serving(handler) as server:
        seen = load(server)
    assert seen.answered == 0
    assert set(seen.errors) == {kind}
    # More than one for each connection: it was opened again.
    assert seen.errors[kind] == len(server.requests) > 2


def test_every_second_answer_lost() -> None:
    async def handle(number: int, request: bytes, writer: asyncio.StreamWriter) -> bool:
        if number == 1:
            return False
        writer.write(PLAIN)
        return True

    with serving(handle) as server:
        seen = load(server)
    assert set(seen.errors) == {"disconnected"}
    assert seen.answered + seen.errors["disconnected"] == len(server.requests)
    assert seen.answered >= seen.errors["disconnected"] > 0


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with serving(answering()) as server:
        seen = load(server, connections=1, seconds=0.05, timeout=0.1)
    assert seen.answered == 0
    assert set(seen.errors) == {"timed out"}


def test_what_was_begun_is_finished() -> None:
    """The clock stops with the last answer, not with the last request: a slow server's rate is not flattered."""

    async def handle(number: int, request: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.3)
        writer.write(PLAIN)
        return True

    with serving(handle) as server:
        seen = load(server, connections=3, seconds=0.05)
    assert seen.answered == len(server.requests) == 3
    assert seen.seconds >= 0.3


def test_calls_are_counted_off_and_remembered_by_their_ids(wait_until: Callable[[Callable[[], bool]], None]) -> None:
    named = PLAIN.replace(b"Content-Length", b"x-litellm-call-id: call-%d\r\nContent-Length")
    served = itertools.count()

    async def handle(number: int, request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(named % next(served))
        return True

    with serving(handle) as server:
        seen = closed_loop(asked(server), connections=4, calls=50)
        fewer = closed_loop(asked(server), connections=4, calls=50, seconds=0)
        wait_until(lambda: server.connections >= 8)  # the server accepts some of them after they were closed
    assert sorted(seen.call_ids) == sorted(f"call-{number}" for number in range(50))
    assert (seen.answered, len(server.requests), server.connections) == (50, 50, 8)
    assert 0 < min(seen.durations) <= max(seen.durations) <= seen.seconds
    assert fewer.answered == 0


def test_a_break_ends_a_connection_that_is_to_break_off() -> None:
    async def handle(number: int, request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(PLAIN)
        return number < 2

    with serving(handle) as server:
        seen = closed_loop(asked(server), connections=4, calls=1000, break_off=True)
    assert (seen.answered, seen.errors) == (12, {"disconnected": 4})


def test_calls_in_the_background_can_be_watched() -> None:
    async def handle(number: int, request: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.01)
        writer.write(PLAIN)
        return True

    with serving(handle) as server, ThreadPoolExecutor(1) as background:
        seen = Load()
        end = background.submit(closed_loop, asked(server), connections=2, calls=40, seen=seen)
        while not seen.answered:
            assert not end.done()
        assert end.result() is seen
    assert seen.answered == 40


def test_a_server_that_goes_away_ends_the_load() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept_and_leave() -> None:
        connection, _ = listener.accept()
        listener.close()
        connection.recv(1)
        connection.close()

    thread = threading.Thread(target=accept_and_leave)
    thread.start()
    request = Request(f"http://127.0.0.1:{listener.getsockname()[1]}/", {}, b"")
    seen = closed_loop(request, connections=1, seconds=60)
    thread.join()
    assert seen.answered == 0
    assert seen.errors == {"disconnected": 1, "could not reconnect": 1}
    assert seen.seconds < 60


def test_nobody_listening_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LoadError, match=f"cannot connect to 127.0.0.1 port {port}: "):
        closed_loop(Request(f"http://127.0.0.1:{port}/", {}, b""), connections=1, seconds=1)
    assert gc.isenabled()


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "127.0.0.1:80", "http:///v1"])
def test_an_address_it_cannot_use_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="needs http://HOST:PORT"):
        closed_loop(Request(url, {}, b""), connections=1, seconds=1)
