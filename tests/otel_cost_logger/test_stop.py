"""The proxy is told to stop while requests are open: each leaves one record, with what the engine has counted."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from workbook.counters import read_counters
from workbook.paths import BUILD_VARIABLE
from workbook.stacks import TENANTS, Stack, stack

pytestmark = pytest.mark.timeout(300)

CHAT = {"model": "mistral-7b", "messages": [{"role": "user", "content": "Go on and on."}], "max_tokens": 3000}
GOOGLE = {"contents": [{"role": "user", "parts": [{"text": "Go on."}]}], "generationConfig": {"maxOutputTokens": 3000}}
HANGS_AFTER = 5  # events; the roads that LiteLLM translates do not pass it on, and go on slowly
HANGS = {"stream": True, "ignore_eos": True, "mock_fault": f"hang:{HANGS_AFTER}"}
OPEN = (
    ("/v1/chat/completions", CHAT | HANGS),
    ("/v1/completions", {"model": "mistral-7b", "prompt": "Go on.", "max_tokens": 3000} | HANGS),
    ("/v1/messages", CHAT | HANGS),
    ("/vllm/chat/completions", CHAT | HANGS),
    ("/v1/responses", {"model": "mistral-7b", "input": "Go on.", "max_output_tokens": 3000} | HANGS),
    ("/v1beta/models/mistral-7b:streamGenerateContent", GOOGLE | HANGS),
)
PLAIN = ("/v1/chat/completions", CHAT | {"mock_fault": "hang"})
# It ends after the signal, and before the proxy's patience does.
ENDS = ("/v1/chat/completions", CHAT | {"stream": True, "ignore_eos": True, "max_tokens": 6})
FINISHED = "Finished server process"  # uvicorn's words, whoever started it
ASKED = [*OPEN, PLAIN, ENDS]
COLUMNS = "tenant_id, outcome, error_type, usage_source, cost_source, prompt_tokens, completion_tokens, cost_nano_usd"


@pytest.fixture(params=[pytest.param((), id="uvicorn"), pytest.param(("--run_gunicorn",), id="gunicorn")])
def running(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path))
    with stack(
        "stopped",
        mock_args=["--enable-faults", "--tpot-ms", "150"],
        env={"OTEL_COST_LOGGER_STOP_SECONDS": "4"},
        processor="durable",
        proxy_args=request.param,
    ) as started:
        yield started


def program(running: Stack) -> int:
    """The server that an operator starts; of gunicorn its master process."""
    supervisor = running.proxy.child.pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    (found,) = [int(pid) for pid in children if b"litellm" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def rows(running: Stack, sql: str) -> list[Any]:
    with sqlite3.connect(running.durable_ledger) as connection:
        return connection.execute(sql).fetchall()


def test_what_is_open_when_the_proxy_stops_is_recorded_once_with_what_was_counted(
    running: Stack, eventually: Any
) -> None:
    begun = threading.Event()

    def ask(number: int) -> tuple[int, bool]:
        """Status of the answer, and whether it is whole."""
        address, body = ASKED[number]
        with running.http(TENANTS[number % len(TENANTS)]).stream("POST", address, json=body, timeout=60) as answer:
            try:
                for _ in answer.iter_lines():
                    if ASKED[number] == ENDS:
                        begun.set()
            except httpx.RemoteProtocolError:
                return answer.status_code, False
            return answer.status_code, True

    with ThreadPoolExecutor(len(ASKED)) as pool:
        calls = [pool.submit(ask, number) for number in range(len(ASKED) - 1)]
        noted = "SELECT count(*) FROM calls_in_flight"
        eventually(lambda: rows(running, noted) == [(len(calls),)], "every call is noted")
        calls.append(pool.submit(ask, len(calls)))
        assert begun.wait(30)
        os.kill(program(running), signal.SIGTERM)
        answers = [call.result(timeout=60) for call in calls]
    assert answers == [*((200, False) for _ in OPEN), (503, True), (200, True)]
    eventually(lambda: running.proxy.log.read_text().count(FINISHED) == 1, "the server has ended")

    assert rows(running, noted) == [(0,)]
    found = rows(running, f"SELECT {COLUMNS} FROM spans")
    asked_by = Counter(TENANTS[number % len(TENANTS)] for number in range(len(ASKED)))
    assert Counter(row[0] for row in found) == asked_by
    stopped = ("failure", "ProxyStopped")
    ends = Counter(row[1:5] for row in found)
    assert ends.pop(("success", None, "engine", "custom_price")) == 1
    assert ends.pop((*stopped, "none", "unknown")) == 1
    # Who counts at the end only is counted by pieces here.
    counted_by_pieces = ends.pop((*stopped, "estimated", "custom_price"), 0)
    assert ends.pop((*stopped, "engine", "custom_price")) + counted_by_pieces == len(OPEN)
    assert not ends
    (engine,) = read_counters(running.engine_url).models.values()
    # The first event of a stream has no token. An engine that does not hang goes on until it notices the end.
    assert all(row[6] >= HANGS_AFTER - 1 for row in found if row[4] == "custom_price")
    assert sum(row[6] for row in found) <= engine.generation_tokens
    assert all(row[7] == 200 * row[5] + 600 * row[6] for row in found)
