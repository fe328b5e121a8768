"""A real vLLM as a child: it starts, serves and leaves nothing behind, however it or its parents end."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from workbook import engine as module
from workbook.children import ChildDied, ChildNotReady
from workbook.engine import CPU_VARIABLE, GPU_VARIABLE, Engine, EngineNotBuilt, vllm_command
from workbook.ports import HOST, PortTaken, free_port, listener
from workbook.services import Mock, NotStarted
from workbook.spans import read_ledger
from workbook.stacks import stack

QUESTION = {"model": "mistral-7b", "messages": [{"role": "user", "content": "Who pays?"}], "max_tokens": 5}
START_SECONDS = 300.0
SPEAKS_AND_ENDS = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)])); sys.exit(1)"
SLEEPS = "import time; time.sleep(600)"


PARTS = {
    "workbook.supervise": "supervisor",  # first: the command that it was given stands behind it
    "VLLM::EngineCore": "EngineCore",
    "VLLM::Worker": "worker",
    "/vllm serve": "API server",
}


def part_of(pid: int) -> str:
    """Which of the engine's processes it is; "" for one that only helps."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next((part for words, part in PARTS.items() if words in command), "")


@pytest.fixture
def no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no vLLM was ever installed."""
    monkeypatch.delenv(CPU_VARIABLE, raising=False)
    monkeypatch.delenv(GPU_VARIABLE, raising=False)
    monkeypatch.setattr(module, "ROOT", tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(("backend", "how"), [("vllm-cpu", "make vllm-cpu"), ("vllm", "make vllm-gpu")])
def test_without_an_environment_the_command_that_makes_one_is_named(
    backend: str, how: str, build: Path, no_environment: None
) -> None:
    with pytest.raises(EngineNotBuilt, match=f"no environment with vLLM in .*{backend}.*: {how}"):
        stack("no-engine", backend=backend).start()


def test_an_environment_that_is_half_built_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").touch()
    monkeypatch.setenv(CPU_VARIABLE, str(tmp_path))
    with pytest.raises(EngineNotBuilt, match="make vllm-cpu"):
        vllm_command("vllm-cpu")
    (tmp_path / ".complete").touch()
    assert vllm_command("vllm-cpu") == [str(tmp_path / "bin" / "vllm")]


def test_an_interpreter_that_has_vllm_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_environment: None
) -> None:
    (tmp_path / "vllm.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert vllm_command("vllm") == [sys.executable, "-m", "vllm.entrypoints.cli.main"]


def test_the_engine_gets_its_flags_and_nothing_that_is_not_meant_for_it(
    build: Path, monkeypatch: pytest.MonkeyPatch, no_environment: None
) -> None:
    for name, value in {
        GPU_VARIABLE: shlex.join([sys.executable, "-c", SPEAKS_AND_ENDS]),
        "CUDA_VISIBLE_DEVICES": "3",
        "PYTHONPATH": "/where/vllm/is",
        "VLLM_API_KEY": "the proxy's",
        "OTEL_TRACES_SAMPLER": "always_off",
    }.items():
        monkeypatch.setenv(name, value)
    engine = Engine("told", kind="vllm", args=["--seed", "1"], env={"MORE": "yes"}, traces_endpoint="http://spans:4318")
    with pytest.raises(ChildDied):
        engine.start()
    arguments, environment = json.loads(engine.log.read_text())
    assert arguments[:4] == ["serve", str(build / "models" / "mistral-7b"), "--load-format", "dummy"]
    assert arguments[-4:] == ["--otlp-traces-endpoint", "http://spans:4318/v1/traces", "--seed", "1"]
    assert "--enforce-eager" in arguments
    assert environment.items() >= {"CUDA_VISIBLE_DEVICES": "3", "PYTHONPATH": "/where/vllm/is", "MORE": "yes"}.items()
    assert environment.items() >= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_HOST_IP": HOST}.items()
    assert environment.items() >= {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}.items()
    assert not {"VLLM_API_KEY", "OTEL_TRACES_SAMPLER"} & environment.keys()
    assert not Path(environment["TMPDIR"]).exists()


def test_another_program_on_the_port_is_not_taken_for_the_engine(
    build: Path, monkeypatch: pytest.MonkeyPatch, no_environment: None
) -> None:
    """Even one that serves a model of the same name."""
    monkeypatch.setenv(GPU_VARIABLE, shlex.join([sys.executable, "-c", SLEEPS]))
    monkeypatch.setitem(module._KINDS, "vllm", dataclasses.replace(module._KINDS["vllm"], ready_seconds=1.0))
    with Mock("mock", args=["--served-model-name", "mistral-7b"]) as mock:
        monkeypatch.setattr(module, "free_port", lambda: int(mock.url.rpartition(":")[2]))
        with pytest.raises(ChildNotReady):
            Engine("late", kind="vllm").start()


def test_a_taken_port_is_named_before_anything_starts(build: Path, taken: int) -> None:
    with pytest.raises(PortTaken, match=f"port {taken} .* process {os.getpid()}"):
        Engine("taken", port=taken).start()


def test_only_what_has_started_can_be_started_again(build: Path) -> None:
    with pytest.raises(NotStarted, match="was never started"):
        Engine("never").restart()


@pytest.mark.engine
def test_the_shared_engine_serves_and_sends_its_spans(engine: Any, eventually: Callable[..., None]) -> None:
    answer = httpx.post(f"{engine.url}/v1/chat/completions", json=QUESTION, timeout=120).json()
    assert answer["model"] == "mistral-7b"
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["usage"]["prompt_tokens_details"] is not None
    request = answer["id"].removeprefix("chatcmpl-")
    eventually(lambda: request in engine.spans.read_text(), f"the engine's span of request {request}")
    assert (engine.model / "config.json").is_file()


@pytest.mark.engine
def test_a_bad_flag_is_shown_in_vllms_own_words(build: Path) -> None:
    engine = Engine("bad-flag", shape="tiny", args=["--no-such-flag"])
    with pytest.raises(ChildDied, match="unrecognized arguments: --no-such-flag"):
        engine.start()
    assert not engine.running


@pytest.mark.engine
def test_its_whole_life(
    build: Path,
    taken: int,
    monkeypatch: pytest.MonkeyPatch,
    descendants: Callable[[int], list[int]],
    eventually: Callable[..., None],
    alive: Callable[[int], bool],
) -> None:
    """It loses a race for a port and tries another, serves, and is gone when `stop` returns."""
    ports = [taken, free_port()]
    monkeypatch.setattr(module, "free_port", lambda: ports.pop(0))
    with Engine("life", shape="tiny") as engine:
        assert ports == []
        port = int(engine.url.rpartition(":")[2])
        answer = httpx.post(f"{engine.url}/v1/chat/completions", json=QUESTION, timeout=120).json()
        assert answer["usage"]["completion_tokens"] == 5
        assert part_of(listener(port) or 0) == "API server"
        everyone = [engine.child.pid, *descendants(engine.child.pid)]
        assert {part_of(pid) for pid in everyone} >= set(PARTS.values())
        (api_server,) = (pid for pid in everyone if part_of(pid) == "API server")
        scratch = Path(f"/proc/{api_server}/environ").read_text().split("TMPDIR=")[1].split("\0")[0]
        assert Path(scratch).is_dir()
    assert not any(map(alive, everyone))
    assert listener(port) is None
    assert not Path(scratch).exists()


@pytest.mark.engine
@pytest.mark.parametrize("victim", ["starter", "supervisor", "API server"])
def test_whoever_is_killed_nothing_is_left(
    victim: str,
    build: Path,
    descendants: Callable[[int], list[int]],
    eventually: Callable[..., None],
    alive: Callable[[int], bool],
) -> None:
    """Also in the middle of a start, when EngineCore and its worker have just come."""
    code = "from workbook.engine import Engine; e = Engine('killed', shape='tiny'); e.launch(); e.wait()"
    with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as scratch:
        starter = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"TMPDIR": scratch}, stderr=subprocess.DEVNULL
        )
        parts: dict[str, int] = {}

        def complete() -> bool:
            parts.update({part_of(pid): pid for pid in descendants(starter.pid)})
            return parts.keys() >= set(PARTS.values()) or starter.poll() is not None

        eventually(complete, "all processes of the engine", START_SECONDS)
        everyone = descendants(starter.pid)
        os.kill(parts.get(victim, starter.pid), signal.SIGKILL)
        assert parts.keys() >= set(PARTS.values())
        eventually(lambda: not any(map(alive, everyone)), f"the end of {parts}")
        starter.wait(timeout=30)


@pytest.mark.engine
def test_a_stack_is_the_same_with_a_real_engine(build: Path, eventually: Callable[..., None]) -> None:
    with stack("real", tenants=["one"], backend="vllm-cpu", engine_shape="tiny", trace_engine=True) as started:
        asked: dict[str, Any] = QUESTION
        answer = started.client("one").chat.completions.create(**asked)
        assert answer.usage is not None
        (record,) = started.wait_for_records(1).to_dict("records")
        assert record["tenant_id"] == "one"
        assert record["completion_tokens"] == answer.usage.completion_tokens == 5
        assert record["prompt_tokens"] == answer.usage.prompt_tokens
        eventually(lambda: "llm_request" in started.engine_spans.read_text(), "the engine's own span")
        assert len(read_ledger(started.ledger)) == 1
        assert httpx.get(f"{started.engine_url}/version").json()["version"].startswith("0.32.0")
        assert list(started.logs) == ["vllm", "receiver", "litellm_proxy"]
        with pytest.raises(NotStarted, match="has no mock: its backend is vllm-cpu"):
            _ = started.mock_url
