"""The engine is killed under load: every call in flight ends as a failure on record, and the gateway outlives it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from workbook.counters import read_counters
from workbook.paths import BUILD_VARIABLE, DEPLOY
from workbook.ports import listener
from workbook.services import Mock
from workbook.stacks import TENANTS, Stack, stack

pytestmark = pytest.mark.timeout(420)

IN_FLIGHT = 12
REQUEST_TIMEOUT = 15  # seconds, LiteLLM's; it ends what the engine leaves hanging
BOUND = 60.0  # seconds for all calls to end, start-up of nothing included
LONG = {"model": "mistral-7b", "messages": [{"role": "user", "content": "Go on and on."}]}


@dataclass
class Ended:
    """How a call ended, as its caller saw it."""

    call_id: str
    complete: bool


@pytest.fixture(scope="module", params=["mock", pytest.param("vllm-cpu", marks=pytest.mark.engine)])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    config = yaml.safe_load((DEPLOY / "litellm_config.yaml").read_text())
    config["litellm_settings"]["request_timeout"] = REQUEST_TIMEOUT
    # Tokens that come slowly enough for the kill to be in the middle of every answer.
    mock_args = ["--tpot-ms", "20", "--hang-on-sigterm"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BUILD_VARIABLE, str(tmp_path_factory.mktemp("build")))
        with stack("engine-killed", backend=request.param, config=config, mock_args=mock_args) as started:
            yield started


def ask(running: Stack, number: int) -> Ended:
    """One endless question, every other one streamed."""
    body: dict[str, Any] = LONG | {"max_tokens": 3000, "ignore_eos": True, "stream": number % 2 == 0}
    call_id = f"killed-{number}-{time.monotonic_ns()}"
    try:
        answer = running.http(TENANTS[number % len(TENANTS)]).post(
            "/v1/chat/completions", json=body, headers={"x-litellm-call-id": call_id}, timeout=2 * BOUND
        )
    except httpx.TransportError:
        return Ended(call_id, complete=False)
    return Ended(call_id, complete=answer.status_code == httpx.codes.OK and '"error"' not in answer.text)


def wait_for(condition: Any, what: str, seconds: float = BOUND) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def busy(running: Stack) -> bool:
    return sum(model.running for model in read_counters(running.engine_url).models.values()) == IN_FLIGHT


def api_server(running: Stack) -> int:
    pid = listener(urlsplit(running.engine_url).port or 0)
    assert pid is not None
    return pid


def descendants(pid: int) -> set[int]:
    """The process and all that it started."""
    tree = {pid}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        tree |= descendants(int(child))
    return tree


def engine_core(running: Stack) -> int:
    (pid,) = [pid for pid in descendants(api_server(running)) if "EngineCor" in Path(f"/proc/{pid}/comm").read_text()]
    return pid


VICTIMS = {
    "API server, SIGKILL": (api_server, signal.SIGKILL),
    "API server, SIGTERM": (api_server, signal.SIGTERM),
    "EngineCore, SIGKILL": (engine_core, signal.SIGKILL),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_every_call_in_flight_ends_as_a_failure_on_record(running: Stack, victim: str) -> None:
    find, number = VICTIMS[victim]
    if find is engine_core and isinstance(running.engine, Mock):
        pytest.skip("the mock is one process")
    before = len(running.wait_for_records(0)) if running.ledger.stat().st_size else 0
    everything = descendants(api_server(running))
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        calls = [pool.submit(ask, running, index) for index in range(IN_FLIGHT)]
        wait_for(lambda: busy(running), f"{IN_FLIGHT} calls run")
        os.kill(find(running), number)
        killed = time.monotonic()
        ended = [call.result(timeout=BOUND) for call in calls]
    assert time.monotonic() - killed < BOUND
    if number == signal.SIGKILL:
        assert not any(call.complete for call in ended), ended

    records = running.wait_for_records(before + IN_FLIGHT, timeout=BOUND)
    ours = records[records["call_id"].isin([call.call_id for call in ended])]
    assert len(ours) == len(records) - before == IN_FLIGHT
    # The record says what the caller saw. (vLLM may answer SIGTERM by cutting answers short, with status 200.)
    complete = {call.call_id for call in ended if call.complete}
    assert set(ours.loc[ours["outcome"] == "success", "call_id"]) == complete
    assert set(ours["outcome"]) <= {"failure", "success"}, ours[["outcome", "stream", "error_type"]]

    # The gateway is there, and says what it finds.
    alive = httpx.get(f"{running.proxy_url}/health/liveliness", timeout=BOUND, trust_env=False)
    assert alive.status_code == httpx.codes.OK
    running.engine.stop()
    meanwhile = running.http(TENANTS[0]).post("/v1/chat/completions", json=LONG)
    assert meanwhile.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
    assert not [pid for pid in everything if Path(f"/proc/{pid}").exists()], "the engine left processes behind"

    running.engine.restart()
    again = running.http(TENANTS[0]).post("/v1/chat/completions", json=LONG | {"max_tokens": 4})
    assert again.status_code == httpx.codes.OK, again.text
    row = running.wait_for_call(again.headers["x-litellm-call-id"])
    assert (row["outcome"], row["usage_source"]) == ("success", "engine")
