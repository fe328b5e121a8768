"""A long mixed load, and garbage that kills Python 3.11: the proxy lives, and the books balance. `make test-soak`.

``SOAK_MINUTES`` is the length, 2 by default. With each request come client sessions that nobody closes, in reference
cycles: aiohttp's finaliser reports them to the log, and a filter there sets context variables, as those do that
put the request's id into each line. Without the guard of `garbage_collection` Python 3.11 dies of it in seconds.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from otel_cost_logger.ledger.reading import status
from workbook.paths import BUILD_VARIABLE
from workbook.ports import listener
from workbook.services import DEFAULT_CONFIG
from workbook.stacks import TENANTS, Stack, stack

MINUTES = float(os.environ.get("SOAK_MINUTES", "2"))
AT_A_TIME = 16
SECONDS_A_CALL = 4.0  # of which an answer takes most; 4 calls a second, because what is looked for is not speed
REPORTS = 12

pytestmark = [pytest.mark.soak, pytest.mark.timeout(60 * MINUTES + 300)]

GARBAGE = """
import contextvars, itertools, logging
import aiohttp
from litellm.integrations.custom_logger import CustomLogger

NAMES = [contextvars.ContextVar(f"name_{number}") for number in range(40)]
reported = itertools.count()

class SetsContextVariables(logging.Filter):
    def filter(self, record):
        for name in NAMES:
            name.set(object())
        self.in_the_place_of_what_was_freed = [bytes([255]) * size for size in range(16, 400, 8) for _ in range(8)]
        return next(reported) % 1000 == 0

logging.getLogger("asyncio").addFilter(SetsContextVariables())

class LeavesSessionsOpen(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        for _ in range(5):
            cycle = [aiohttp.ClientSession()]
            cycle.append(cycle)
            del cycle
            for name in NAMES:
                name.set([object()])
        return data

garbage = LeavesSessionsOpen()
"""


@dataclass(frozen=True)
class Made:
    """A call, what its record may say of its outcome, and the tokens that its caller was told of: (0, 0) for none."""

    call_id: str
    outcomes: tuple[str, ...]
    tokens: tuple[int, int] = (0, 0)


class Load:
    """``AT_A_TIME`` callers, each with a call every `SECONDS_A_CALL`; ``made`` grows until ``over``."""

    def __init__(self, running: Stack) -> None:
        self._stack = running
        self._numbers = itertools.count()
        self.made: list[Made] = []
        self.over = threading.Event()

    def __enter__(self) -> Load:
        self._pool = ThreadPoolExecutor(AT_A_TIME)
        self._callers = [self._pool.submit(self._call_on, TENANTS[number % 4]) for number in range(AT_A_TIME)]
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._pool.shutdown()

    def wait(self, seconds: float) -> bool:
        """False when a caller has given up meanwhile."""
        return not self.over.wait(seconds)

    def result(self) -> list[Made]:
        """What was made; raises what a caller has met."""
        for caller in self._callers:
            caller.result()
        return self.made

    def _call_on(self, tenant: str) -> None:
        try:
            with httpx.Client(
                base_url=self._stack.proxy_url,
                headers=self._stack.headers(tenant),
                limits=httpx.Limits(max_keepalive_connections=0),  # the proxy closes idle ones, at any moment
                timeout=60,
                trust_env=False,
            ) as client:
                while not self.over.is_set():
                    next_call = time.monotonic() + SECONDS_A_CALL
                    number = next(self._numbers)
                    try:
                        self.made.append(_make(client, number))
                    except (httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError) as error:
                        print(f"call {number}: {error!r}", flush=True)  # on a busy machine
                        self.made.append(Made(f"soak-{number}", ("success", "failure", "client_disconnected")))
                    self.over.wait(next_call - time.monotonic())
        finally:
            self.over.set()


def _make(client: httpx.Client, number: int) -> Made:
    headers = {"x-litellm-call-id": (call_id := f"soak-{number}")}
    body: dict[str, Any] = {"model": "mistral-7b", "max_tokens": 24, "messages": [{"role": "user", "content": call_id}]}
    failures: list[dict[str, Any]] = [{"mock_fault": "500"}, {"model": "no-such-model"}, {"messages": "not a list"}]
    kind = number % 10
    if kind < 3:
        answer = client.post("/v1/chat/completions", json=body, headers=headers)
        return _answered(call_id, [answer.text])
    if kind < 4:  # LiteLLM leaves a session open with each
        text = {"model": "mistral-7b", "max_tokens": 24, "prompt": call_id}
        return _answered(call_id, [client.post("/v1/completions", json=text, headers=headers).text])
    if kind < 6:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        answer = client.post("/v1/chat/completions", json=body, headers=headers)
        return _answered(call_id, [line.removeprefix("data: ") for line in answer.text.split("\n")])
    if kind < 8:
        answer = client.post("/v1/chat/completions", json=body | failures[number // 10 % 3], headers=headers)
        assert answer.status_code >= 400, answer.text
        return Made(call_id, ("failure",))
    body |= {"stream": True, "max_tokens": 500, "ignore_eos": True}
    with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        next(answer.iter_lines(), None)  # and hang up
    return Made(call_id, ("client_disconnected", "failure"))


def _answered(call_id: str, pieces: list[str]) -> Made:
    """A busy machine may run into a timeout of LiteLLM's: then the caller has an error and no usage."""
    for piece in pieces:
        if '"usage":{' in piece:
            usage = json.loads(piece)["usage"]
            return Made(call_id, ("success",), (usage["prompt_tokens"], usage["completion_tokens"]))
    return Made(call_id, ("failure",))


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The shipped configuration and the garbage."""
    yield from _running(tmp_path, monkeypatch, ["otel_cost_logger.proxy_handler_instance", "garbage.garbage"])


@pytest.fixture
def unguarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """LiteLLM alone with the garbage."""
    yield from _running(tmp_path, monkeypatch, ["garbage.garbage"])


def _running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callbacks: list[str]) -> Iterator[Stack]:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    config = yaml.safe_load(DEFAULT_CONFIG.read_text())
    config["litellm_settings"]["callbacks"] = callbacks
    mock_args = ["--enable-faults", "--ttft-ms", "1500", "--tpot-ms", "80"]
    files = {"garbage.py": GARBAGE}
    with stack("soak", config=config, files=files, mock_args=mock_args, processor="durable") as started:
        yield started


def test_a_mixed_load_leaves_the_proxy_alive_and_the_books_balanced(guarded: Stack) -> None:
    port = httpx.URL(guarded.proxy_url).port
    assert port is not None
    pid = listener(port)
    with Load(guarded) as load:
        for report in range(1, REPORTS + 1):
            going_on = load.wait(60 * MINUTES / REPORTS)
            assert guarded.proxy.child.running, guarded.proxy.child.tail()
            print(
                f"{report}/{REPORTS} of {MINUTES:g} minutes: {len(load.made)} calls, proxy {_memory(pid)}", flush=True
            )
            if not going_on:
                break
    made = load.result()
    records = guarded.wait_for_records(len(made), timeout=240)
    assert listener(port) == pid
    assert "Unclosed client session" in guarded.proxy.child.text(), "no session was collected: nothing was tried"

    assert Counter(records["call_id"]) == Counter(call.call_id for call in made)
    recorded = records.set_index("call_id")
    for call in made:
        row = recorded.loc[call.call_id]
        assert row["outcome"] in call.outcomes, row
        if call.outcomes == ("success",):
            assert (row["prompt_tokens"], row["completion_tokens"]) == call.tokens
    outcomes = Counter(records["outcome"])
    print(outcomes)
    assert all(outcomes[outcome] > len(made) / 10 for outcome in ("success", "failure", "client_disconnected"))
    with closing(sqlite3.connect(guarded.durable_ledger)) as connection:
        book = status(connection)
    assert (book.spans, book.calls_in_flight, book.calls_lost, book.pending, book.dead) == (len(made), 0, 0, 0, 0)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python does not crash")
def test_without_the_guard_python_3_11_dies_of_the_same_load(unguarded: Stack) -> None:
    with Load(unguarded) as load:
        survived = load.wait(60 * MINUTES)
    assert not survived
    with suppress(Exception):
        load.result()
    assert unguarded.proxy.child.stop() == 128 + signal.SIGSEGV  # as the supervisor tells it


def _memory(pid: int | None) -> str:
    status_lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in status_lines if line.startswith("VmRSS"))
