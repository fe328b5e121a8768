"""The open loop: latency counts from the intended time, whatever the server makes its callers wait."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from statistics import fmean

import pytest

from benchmarks.harness.load import Request
from benchmarks.harness.streams import Answer
from benchmarks.throughput.open_loop import Arrival, intended_times, open_loop

STALL = 0.4


def test_the_times_are_those_of_a_poisson_process_and_come_again_with_the_seed() -> None:
    times = intended_times(200.0, 20.0, seed=3)
    assert times == intended_times(200.0, 20.0, seed=3) != intended_times(200.0, 20.0, seed=4)
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 20
    assert len(times) == pytest.approx(4000, rel=0.1)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = fmean(gaps)
    assert fmean((gap - mean) ** 2 for gap in gaps) == pytest.approx(mean**2, rel=0.15)


def test_a_late_request_has_been_waiting_since_its_time() -> None:
    arrival = Arrival(intended=1.0, sent=1.5, answer=Answer(0.1, 0.3, 8, 4))
    assert arrival.late == 0.5
    assert arrival.first_token() == pytest.approx(0.6)
    assert arrival.latency() == pytest.approx(0.8)
    failed = Arrival(1.0, 1.0, "HTTP 500")
    assert failed.first_token() is None
    assert failed.latency() is None


@pytest.fixture
def stalling() -> Iterator[str]:
    """A server that answers one request at a time, and the first one only after `STALL` seconds."""
    loop = asyncio.new_event_loop()
    one_at_a_time = asyncio.Lock()
    first = True

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        async with one_at_a_time:
            if first:
                first = False
                await asyncio.sleep(STALL)
        usage = json.dumps({"usage": {"prompt_tokens": 8, "completion_tokens": 4}}).replace(" ", "")
        body = f'data: {{"choices":[]}}\n\ndata: {usage}\n\ndata: [DONE]\n\n'.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{port}/v1/chat/completions"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    loop.close()


def test_a_stall_is_felt_by_everybody_who_came_meanwhile(stalling: str) -> None:
    times = [0.0, 0.05, 0.1, 0.15]
    arrivals = open_loop(lambda *_: Request(stalling, {}, expected=b""), times, max_tokens=4)
    assert [arrival.intended for arrival in arrivals] == times
    for arrival in arrivals:
        # A closed loop with one connection would have seen the stall once.
        assert (arrival.latency() or 0) >= STALL - arrival.intended - 0.01
        assert arrival.late >= 0


def test_failures_are_kept_by_kind() -> None:
    def nobody(*_: int) -> Request:
        return Request("http://127.0.0.1:9/v1/chat/completions", {}, expected=b"")

    (arrival,) = open_loop(nobody, [0.0], max_tokens=4)
    assert arrival.answer == "disconnected"
