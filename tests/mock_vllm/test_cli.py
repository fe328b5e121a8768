"""Starting and stopping: the ready line, the end of stdin, taken ports, bad switches."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

COMMAND = [sys.executable, "-m", "mock_vllm"]
DEADLINE = 20


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE
    )


def test_ready_line_says_where_it_is(start: Callable[..., Any]) -> None:
    server = start("--served-model-name", "one", "two", "--max-model-len", "512")
    assert server.ready == {
        "url": f"http://127.0.0.1:{server.ready['port']}",
        "port": server.ready["port"],
        "pid": server.process.pid,
        "model": "one",
        "max_model_len": 512,
        "version": "0.32.0",
    }
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_stdout_has_nothing_but_the_ready_line(start: Callable[..., Any]) -> None:
    server = start()
    assert server.chat(max_tokens=1).status_code == 200
    assert server.chat(max_tokens=-1).status_code == 400
    server.process.stdin.close()
    server.process.wait(DEADLINE)
    assert server.process.stdout.read() == b""


def test_exits_when_stdin_closes(start: Callable[..., Any]) -> None:
    server = start()
    server.process.stdin.close()
    assert server.process.wait(DEADLINE) == 0
    assert "--no-exit-on-stdin-close" in server.log.read_text()


def test_exits_when_stdin_closes_in_the_middle_of_a_stream(start: Callable[..., Any]) -> None:
    server = start("--tpot-ms", "1000")
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 100, "ignore_eos": True}
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=DEADLINE) as response:
        chunks = response.iter_raw()
        assert b"chat.completion.chunk" in next(chunks)
        server.process.stdin.close()
        assert server.process.wait(DEADLINE) == 0
        with pytest.raises(httpx.TransportError):
            list(chunks)


def test_runs_detached_when_told_to() -> None:
    command = [*COMMAND, "--port", "0", "--no-exit-on-stdin-close"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], DEADLINE)[0]
            url = json.loads(process.stdout.readline())["url"]
            assert httpx.get(f"{url}/health").status_code == 200
            process.terminate()
            # uvicorn closes down in good order and then ends by the signal that it was sent.
            assert process.wait(DEADLINE) == -signal.SIGTERM
        finally:
            process.kill()


def test_terminates_with_a_request_open(slow_to_answer: Any) -> None:
    with httpx.stream(
        "POST",
        f"{slow_to_answer.url}/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "hi"}], "stream": True},
        timeout=DEADLINE,
    ):
        slow_to_answer.process.terminate()
        assert slow_to_answer.process.wait(DEADLINE) == -signal.SIGTERM


@pytest.fixture
def slow_to_answer(start: Callable[..., Any]) -> Any:
    return start("--ttft-ms", "600000")


def test_taken_port_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        result = run("--port", str(port), "--no-exit-on-stdin-close")
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert f"port {port}" in result.stderr
    assert "in use" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "70000"], "--port"),
        (["--port", "http"], "--port"),
        (["--max-model-len", "0"], "--max-model-len"),
        (["--ttft-ms", "-1"], "--ttft-ms"),
        (["--ttft-ms", "nan"], "--ttft-ms"),
        (["--latency-jitter", "1.5"], "--latency-jitter"),
        (["--runner", "train"], "--runner"),
        (["--served-model-name"], "--served-model-name"),
        (["--no-such-switch"], "--no-such-switch"),
    ],
)
def test_bad_switches_are_named_in_one_line(arguments: list[str], named: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert named in result.stderr
    assert "--help" in result.stderr


def test_unknown_host_is_a_clear_error() -> None:
    result = run("--host", "256.0.0.1", "--port", "0", "--no-exit-on-stdin-close")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "256.0.0.1" in result.stderr
