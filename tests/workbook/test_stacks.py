import asyncio
import os
import re
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from jupyter_client.manager import KernelManager

from workbook.paths import BUILD_VARIABLE
from workbook.ports import listener
from workbook.services import NotStarted
from workbook.spans import read_ledger
from workbook.stacks import TENANTS, RecordsMissing, Stack, stack

QUESTION = [{"role": "user", "content": "How much is it?"}]


@pytest.fixture(scope="module")
def build_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("build")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BUILD_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def running(build_for_all: Path) -> Iterator[Stack]:
    """One stack for this module, with spans over gRPC; the notebooks and the runner's tests use HTTP."""
    with stack("test_stack", protocol="grpc", mock_args=["--enable-faults"], trace_engine=True) as started:
        yield started


def test_calls_of_each_tenant_reach_the_ledger(running: Stack) -> None:
    before = len(read_ledger(running.ledger))
    for tenant in TENANTS:
        answer = running.client(tenant).chat.completions.create(model="mistral-7b", messages=QUESTION, max_tokens=4)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4
    spans = running.wait_for_records(before + len(TENANTS)).tail(len(TENANTS))
    assert sorted(spans["tenant_id"]) == sorted(TENANTS)
    assert set(spans["completion_tokens"]) == {4}
    assert (spans["cost_nano_usd"] > 0).all()


def test_a_wrong_key_is_refused(running: Stack) -> None:
    answer = httpx.get(f"{running.proxy_url}/v1/models", headers={"Authorization": "Bearer sk-wrong"})
    assert answer.status_code == 401


def test_the_client_does_not_retry(running: Stack) -> None:
    client = running.client("tenant-acme")
    assert client.max_retries == 0
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="mistral-7b", messages=QUESTION, extra_body={"mock_fault": "500"})


def test_the_http_client_has_the_tenants_key(running: Stack) -> None:
    with running.http("tenant-acme") as http:
        assert http.get("/v1/models").status_code == 200


def test_an_unknown_tenant_is_told_from_the_known(running: Stack) -> None:
    with pytest.raises(KeyError, match="no key for tenant 'acme'; known: tenant-acme, tenant-globex"):
        running.client("acme")


def test_nothing_printed_holds_a_key_or_a_port(running: Stack) -> None:
    assert repr(running) == "<stack 'test_stack': mock vLLM, LiteLLM proxy, receiver; running; 4 tenants>"
    secrets = [running.master_key, *running.keys.values()]
    assert len(set(secrets)) == 5
    assert all(re.fullmatch("sk-[0-9a-f]{48}", secret) for secret in secrets)
    for path in running.run_dir.rglob("*"):
        assert not any(secret in path.read_text() for secret in secrets), path


def test_the_runs_folder_is_the_owners_alone(running: Stack) -> None:
    assert stat.S_IMODE(running.run_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((running.run_dir / "keys.json").stat().st_mode) == 0o600


def test_there_is_a_log_for_each_process(running: Stack) -> None:
    assert list(running.logs) == ["mock_vllm", "receiver", "litellm_proxy"]
    assert all(log.stat().st_size for log in running.logs.values())


def test_everything_listens_on_this_machine_alone(running: Stack) -> None:
    for url in (running.proxy_url, running.mock_url, running.receiver_url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)


def test_missing_records_are_counted_and_the_logs_named(running: Stack) -> None:
    words = r"\d+ of 1000 records came within 0.1 s; logs: build/runs/test_stack/mock_vllm\.log, "
    with pytest.raises(RecordsMissing, match=words):
        running.wait_for_records(1000, timeout=0.1)


def test_a_call_is_found_by_the_id_in_its_answer(running: Stack) -> None:
    """However many records of other calls are still on their way."""
    request = {"model": "mistral-7b", "messages": QUESTION}
    with running.http("tenant-globex") as http:
        refused = http.post("/v1/chat/completions", json=request | {"mock_fault": "500"})
        with http.stream("POST", "/v1/chat/completions", json=request | {"stream": True}) as streamed:
            streamed.read()
    record = running.wait_for_call(streamed.headers["x-litellm-call-id"])
    assert (record["tenant_id"], record["stream"], record["outcome"]) == ("tenant-globex", True, "success")
    assert running.wait_for_call(refused.headers["x-litellm-call-id"])["outcome"] == "failure"
    with pytest.raises(RecordsMissing, match=r"no record of call nobody came within 0\.1 s; logs: build/runs/"):
        running.wait_for_call("nobody", timeout=0.1)


def test_it_works_where_an_event_loop_runs(running: Stack) -> None:
    """As in a notebook's cell."""

    async def cell() -> int:
        return len(running.wait_for_records(0))

    assert asyncio.run(cell()) >= 0


def test_a_stack_that_is_not_started_says_so() -> None:
    with pytest.raises(NotStarted, match="call start"):
        _ = stack("never").proxy_url
    with pytest.raises(NotStarted, match=r"no mock: its backend is http://vllm:8000"):
        _ = stack("never", backend="http://vllm:8000").mock_url


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backend": "vLLM"}, 'neither "mock", "vllm-cpu", "vllm" nor the URL'),
        ({"backend": "http://vllm:8000", "engine_args": ["--seed", "1"]}, "runs already: engine_args"),
        ({"backend": "http://vllm:8000", "trace_engine": True}, "runs already: trace_engine"),
    ],
)
def test_a_backend_that_cannot_be_had_is_refused_before_anything_starts(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stack("never", **settings)


def test_the_backend_is_known_by_its_url_whatever_it_is(running: Stack) -> None:
    assert running.engine_url == running.mock_url == running.engine.url
    elsewhere = stack("never", backend="http://vllm:8000/v1/")
    assert elsewhere.engine_url == "http://vllm:8000"
    with pytest.raises(NotStarted, match=r"no engine of its own: its backend is http://vllm:8000"):
        elsewhere.engine.restart()


def test_the_engines_own_spans_have_a_ledger_of_their_own(running: Stack, eventually: Callable[..., None]) -> None:
    """They are nobody's costs."""
    before = len(read_ledger(running.ledger))
    running.client("tenant-acme").chat.completions.create(model="mistral-7b", messages=QUESTION, max_tokens=1)
    running.wait_for_records(before + 1)
    eventually(lambda: "llm_request" in running.engine_spans.read_text(), "the span of the mock")
    assert "llm_request" not in running.ledger.read_text()


def test_a_backend_that_is_not_traced_has_no_spans() -> None:
    with pytest.raises(NotStarted, match="trace_engine=True"):
        _ = stack("never").engine_spans


def test_spans_that_still_wait_are_sent_when_the_stack_stops(build: Path, eventually: Callable[..., None]) -> None:
    """And so the parts of a stack end in order: the proxy before its receiver."""
    env = {
        "OTEL_TRACES_EXPORTER": "console,otlp",
        "OTEL_COST_LOGGER_PROCESSOR": "",  # its default: console at once, OTLP in batches
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
    }
    with stack("slow_batch", tenants=["one"], env=env) as started:
        started.client("one").chat.completions.create(model="mistral-7b", messages=QUESTION, max_tokens=1)
        log = started.logs["litellm_proxy"]
        eventually(lambda: '"llm.tenant_id": "one"' in log.read_text(), "the span on the proxy's console")
        assert read_ledger(started.ledger).empty
    assert list(read_ledger(started.ledger)["tenant_id"]) == ["one"]


@pytest.mark.timeout(240)
def test_a_durable_stack_loses_nothing(build: Path, eventually: Callable[..., None]) -> None:
    """The collector refuses, then is away; the proxy is killed; in the end every record is there, once."""

    def waiting() -> list[str]:
        with sqlite3.connect(started.durable_ledger) as book:
            sql = "SELECT span_id FROM spans JOIN outbox USING (id) ORDER BY span_id"
            return [span_id for (span_id,) in book.execute(sql)]

    def call() -> str:
        with started.http("tenant-acme") as http:
            request = {"model": "mistral-7b", "messages": QUESTION, "max_tokens": 1}
            return http.post("/v1/chat/completions", json=request).headers["x-litellm-call-id"]

    with stack("durable", processor="durable") as started:
        calls = [call()]
        started.wait_for_records(1)
        started.collector.fail(status=503)
        calls.append(call())
        eventually(lambda: len(waiting()) == 1, "the record of the second call in the file")
        started.collector.stop()
        calls.append(call())
        eventually(lambda: len(waiting()) == 2, "the record of the third call in the file")
        kept = waiting()
        started.proxy.kill()
        assert waiting() == kept
        started.proxy.restart()
        started.collector.restart()
        started.wait_for_records(3)  # without a call: the new proxy begins where the old one ended
        calls.append(call())  # with the key of before
        arrived = started.wait_for_records(4)
        assert list(arrived["call_id"]) == calls
        assert sorted(arrived["span_id"].iloc[1:3]) == kept
        eventually(lambda: waiting() == [], "the confirmation of what has arrived")
        secrets = [started.master_key, *started.keys.values()]
        book = started.durable_ledger.read_bytes()
        assert not any(secret.encode() in book for secret in secrets)


@pytest.mark.parametrize("processor", ["simple", "batch"])
def test_only_the_durable_processor_has_a_file(processor: Literal["simple", "batch"]) -> None:
    words = rf'keeps no file \(processor {processor}\); make the stack with processor="durable"'
    with pytest.raises(NotStarted, match=words):
        _ = stack("never", processor=processor).durable_ledger


def test_killing_the_kernel_leaves_no_child(
    build: Path,
    descendants: Callable[[int], list[int]],
    eventually: Callable[..., None],
    alive: Callable[[int], bool],
) -> None:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(extra_arguments=["--log-level=ERROR"])
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    cell = "from workbook import stack; s = stack('killed').start(); print(s.proxy_url)"
    reply = client.execute_interactive(cell, timeout=120, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok"
    kernel = manager.provisioner.pid
    assert kernel is not None
    pids = descendants(kernel)
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]
    for program in ("mock_vllm", "workbook.receiver", "workbook.supervise", "litellm"):
        assert any(program in command for command in commands), program
    assert len(pids) == 5  # with the guard of the supervisor

    os.kill(kernel, signal.SIGKILL)

    eventually(lambda: not any(map(alive, pids)), f"the end of {commands}")
    ports = [int(port) for port in re.findall(r"--port\0(\d+)", "\0".join(commands)) if port != "0"]
    assert len(ports) == 2  # the proxy's, on the supervisor's command line and on its own
    assert listener(ports[0]) is None
    client.stop_channels()
    manager.shutdown_kernel(now=True)
