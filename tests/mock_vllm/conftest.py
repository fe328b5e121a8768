"""A mock server in a process of its own, and what tests ask of one."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

DEADLINE = 20.0


@dataclass
class MockServer:
    """A running `python -m mock_vllm`; `ready` is the line it printed."""

    process: subprocess.Popen[bytes]
    ready: dict[str, Any]
    log: Path

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name that carry these labels."""
        samples = [
            sample
            for family in text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert samples, f"no sample {name} {labels}"
        return sum(sample.value for sample in samples)

    def chat(self, **body: Any) -> httpx.Response:
        body.setdefault("messages", [{"role": "user", "content": "What is the capital of France?"}])
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=DEADLINE)


def read_ready_line(stdout: IO[bytes]) -> dict[str, Any]:
    """Wait for the ready line, not longer than the deadline."""
    readable, _, _ = select.select([stdout], [], [], DEADLINE)
    line = stdout.readline() if readable else b""
    assert line, "mock_vllm did not become ready"
    ready = json.loads(line)
    assert isinstance(ready, dict)
    return ready


@contextmanager
def running_server(log: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[MockServer]:
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "mock_vllm", "--port", "0", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **(env or {})},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield MockServer(process, read_ready_line(process.stdout), log)
        except AssertionError:
            sys.stderr.write(log.read_text())
            raise
        finally:
            process.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., MockServer]]:
    """Start servers of a test's own: `start("--ttft-ms", "5", env={...})`."""
    with ExitStack() as stack:
        count = 0

        def start_one(*arguments: str, env: dict[str, str] | None = None) -> MockServer:
            nonlocal count
            count += 1
            log = tmp_path / f"mock-{count}.log"
            return stack.enter_context(running_server(log, *arguments, env=env))

        yield start_one


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., MockServer]]:
    """Servers that several tests use, one for each set of switches. Counters move under a test's feet."""
    started: dict[tuple[str, ...], MockServer] = {}
    with ExitStack() as stack:

        def get(*arguments: str) -> MockServer:
            if arguments not in started:
                log = tmp_path_factory.mktemp("mock") / "mock.log"
                started[arguments] = stack.enter_context(running_server(log, *arguments))
            return started[arguments]

        yield get


@pytest.fixture(scope="session")
def mock(shared: Callable[..., MockServer]) -> MockServer:
    """The server as it comes, but for a second name."""
    return shared("--served-model-name", "mistral-7b", "alias")


@pytest.fixture(scope="session")
def slow(shared: Callable[..., MockServer]) -> MockServer:
    """A server that takes seconds over a long answer: time enough to leave in the middle."""
    return shared("--ttft-ms", "20", "--tpot-ms", "5", "--enable-faults")


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds; fails at the deadline."""

    def wait(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            time.sleep(0.01)

    return wait


@pytest.fixture
def sse() -> Callable[[str], list[Any]]:
    """Decode a stream of `data:` events, and check its framing to the byte; `[DONE]` stays a string."""

    def decode(text: str) -> list[Any]:
        assert text.endswith("\n\n"), text[-80:]
        events = text[:-2].split("\n\n")
        for event in events:
            assert event.startswith("data: "), event
            assert "\n" not in event, event
        return [event[6:] if event == "data: [DONE]" else json.loads(event[6:]) for event in events]

    return decode
