"""A call that no hook reports is noticed, once, and any other is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from otel_cost_logger.inflight import InFlight

Requests = Callable[[InFlight], Awaitable[None]]


def run(scenario: Requests, grace_seconds: float = 0.0) -> tuple[list[Any], InFlight]:
    """What was given out as unreported while ``scenario`` ran as one request, and until nothing was open."""
    unreported: list[Any] = []
    calls = InFlight(lambda request, ended_ns: unreported.append(request), grace_seconds)

    async def server() -> None:
        request = asyncio.create_task(scenario(calls))  # type: ignore[arg-type]
        await asyncio.wait([request])
        for _ in range(1000):
            if not len(calls):
                break
            await asyncio.sleep(0.001)

    asyncio.run(server())
    return unreported, calls


def test_a_reported_call_is_forgotten() -> None:
    async def scenario(calls: InFlight) -> None:
        calls.begin("key", "request")
        assert len(calls) == 1
        calls.reported("key")

    unreported, calls = run(scenario)
    assert (unreported, len(calls)) == ([], 0)


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), asyncio.CancelledError()])
def test_a_call_whose_request_ended_in_silence_is_given_out_once(error: BaseException | None) -> None:
    async def scenario(calls: InFlight) -> None:
        calls.begin("key", "request")
        if error:
            raise error

    unreported, calls = run(scenario)
    assert (unreported, len(calls)) == (["request"], 0)


def test_a_report_within_the_grace_comes_in_time() -> None:
    async def scenario(calls: InFlight) -> None:
        calls.begin("key", "request")
        # Later than the end of this request, long before the grace is over.
        asyncio.get_running_loop().call_later(0.01, calls.reported, "key")

    unreported, calls = run(scenario, grace_seconds=30.0)
    assert (unreported, len(calls)) == ([], 0)


def test_of_two_calls_under_one_key_the_silent_one_is_given_out() -> None:
    async def scenario(calls: InFlight) -> None:
        calls.begin("key", "first")
        calls.begin("key", "second")
        calls.reported("key")

    assert run(scenario)[0] == ["second"]


def test_a_report_of_a_call_that_never_began_is_no_error() -> None:
    async def scenario(calls: InFlight) -> None:
        calls.reported("key")

    assert run(scenario)[0] == []


def test_whoever_takes_a_call_reports_it() -> None:
    async def scenario(calls: InFlight) -> None:
        calls.begin("key", "one")
        calls.begin("key", "other")
        assert calls.take(lambda request: request == "one") == ["one"]

    unreported, calls = run(scenario)
    assert (unreported, len(calls)) == (["other"], 0)


@pytest.mark.parametrize("ended_before", [True, False])
def test_a_server_that_stops_waits_no_longer(ended_before: bool) -> None:
    unreported: list[Any] = []
    calls = InFlight(lambda request, ended_ns: unreported.append(request), grace_seconds=3600)

    async def server() -> None:
        begun, end = asyncio.Event(), asyncio.Event()

        async def serve() -> None:
            calls.begin("key", "request")
            begun.set()
            await end.wait()

        request = asyncio.create_task(serve())
        await begun.wait()
        if not ended_before:
            calls.wait_no_longer()
        end.set()
        await request
        await asyncio.sleep(0)  # its end is noticed
        if ended_before:
            calls.wait_no_longer()
        for _ in range(1000):
            if not len(calls):
                break
            await asyncio.sleep(0.01)

    asyncio.run(server())
    assert unreported == ["request"]
