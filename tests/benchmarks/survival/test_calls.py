"""The callers remember what was answered, by id, and count everything else by its kind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.harness.load import Request
from benchmarks.survival.calls import CALL_ID, Callers

GOOD = b'{"usage": 16}'


class Server(ThreadingHTTPServer):
    """Answers the n-th request as ``status(n)`` says; 0 closes the connection. Each answer has an id of its own."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, status: Callable[[int], int], body: bytes = GOOD, named: bool = True, pause: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.named, self.pause = status, body, named, pause
        self.requests = 0
        self.connections = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            number = self.server.requests
            self.server.requests += 1
        time.sleep(self.server.pause)
        if not (status := self.server.status(number)):
            self.close_connection = True
            return
        self.send_response(status)
        if self.server.named:
            self.send_header(CALL_ID, f"call-{number}")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving(server: Server) -> Iterator[Callers]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    request = Request(f"http://127.0.0.1:{server.server_port}/v1/chat", {"model": "m"}, b'"usage"')
    try:
        yield Callers(request, at_a_time=4, timeout=5)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_answer_is_remembered_by_its_id() -> None:
    with serving(server := Server(lambda number: 200)) as callers:
        made = callers.make(50)
    assert sorted(made.call_ids) == sorted(f"call-{number}" for number in range(50))
    assert (made.sent, made.failed, server.requests, server.connections) == (50, {}, 50, 4)
    assert len(made.durations) == 50
    assert 0 < min(made.durations) <= max(made.durations) <= made.seconds


@pytest.mark.parametrize(
    ("kind", "server"),
    [
        ("HTTP 500", lambda: Server(lambda number: 500 if number % 2 else 200)),
        ("disconnected", lambda: Server(lambda number: 0 if number % 2 else 200)),
    ],
)
def test_failures_are_counted_and_not_repeated(kind: str, server: Callable[[], Server]) -> None:
    with serving(running := server()) as callers:
        made = callers.make(20)
    assert made.failed == {kind: 10}
    assert len(made.call_ids) == 10
    assert made.sent == running.requests == 20


@pytest.mark.parametrize(
    ("kind", "server"),
    [
        ("unexpected answer", lambda: Server(lambda number: 200, body=b"{}")),
        (f"an answer without {CALL_ID}", lambda: Server(lambda number: 200, named=False)),
    ],
)
def test_an_answer_that_is_none_does_not_count(kind: str, server: Callable[[], Server]) -> None:
    with serving(server()) as callers:
        assert callers.make(3).failed == {kind: 3}


def test_a_server_that_is_too_slow_is_not_waited_for() -> None:
    with serving(server := Server(lambda number: 200, pause=1.0)):
        request = Request(f"http://127.0.0.1:{server.server_port}/", {}, b"")
        assert Callers(request, at_a_time=2, timeout=0.1).make(2).failed == {"timed out": 2}


def test_a_break_ends_a_thread_that_is_to_break_off() -> None:
    with serving(server := Server(lambda number: 200 if number < 10 else 0)) as callers:
        made = callers.make(1000, break_off=True)
    assert (len(made.call_ids), made.failed, server.requests) == (10, {"disconnected": 4}, 14)


def test_no_call_begins_after_the_end() -> None:
    with serving(server := Server(lambda number: 200, pause=0.05)) as callers:
        made = callers.make(1000, until=time.monotonic() + 0.12)
        assert 4 <= made.sent < 1000
        assert callers.make(1000, until=time.monotonic() - 1).sent == 0
    assert server.requests == made.sent


def test_calls_in_the_background_can_be_watched() -> None:
    with serving(Server(lambda number: 200, pause=0.01)) as callers:
        with callers.making(40) as (made, end):
            while not made.call_ids:
                time.sleep(0.001)
            watched = len(made.call_ids)
        assert end.done()
    assert 1 <= watched < len(made.call_ids) == 40
