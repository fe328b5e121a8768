from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pandas as pd
import pytest

from workbook.counters import (
    EngineBusy,
    EngineCounters,
    EngineRestarted,
    EngineUnreadable,
    ModelCounters,
    OneEngine,
    read_counters,
    wait_idle,
)
from workbook.ports import free_port
from workbook.services import Mock

Pages = dict[str, list[tuple[int, str]]]


def metrics(*, running: int = 0, prompt: int = 10, started: float = 1000.0, model: str = "m") -> str:
    """What a server with two engine cores exposes, as far as it is read."""
    lines = [f"process_start_time_seconds {started}"]
    for core in ("0", "1"):
        labels = f'engine="{core}",model_name="{model}"'
        lines += [
            f"vllm:prompt_tokens_total{{{labels}}} {prompt}",
            f"vllm:generation_tokens_total{{{labels}}} 7",
            f"vllm:request_prompt_tokens_sum{{{labels}}} 8",
            f"vllm:request_generation_tokens_sum{{{labels}}} 5",
            f'vllm:request_success_total{{{labels},finished_reason="stop"}} 1',
            f'vllm:request_success_total{{{labels},finished_reason="length"}} 2',
            f"vllm:prefix_cache_hits_total{{{labels}}} 4",
            f"vllm:external_prefix_cache_hits_total{{{labels}}} 3",
            f"vllm:num_requests_running{{{labels}}} {running}",
        ]
    return "\n".join(lines) + "\n"


def models(*names: str) -> str:
    return json.dumps({"data": [{"id": name, "max_model_len": 512} for name in names]})


@pytest.fixture
def serve() -> Iterator[Callable[[Pages], str]]:
    """Serve pages: for each path its answers in turn, the last one again and again. Returns the URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(pages: Pages) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answers = pages.get(self.path, [(404, "{}")])
                status, text = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def counters(url: str = "http://one", started: float | None = 1.0, **counts: int) -> EngineCounters:
    model = ModelCounters(**counts)
    return EngineCounters({url: OneEngine({"m": model}, started, {"m": "m"}, 512)}, pd.Timestamp(0, tz="UTC"))


def test_the_mocks_counters_are_read(build: Path) -> None:
    question = {"model": "mistral-7b", "messages": [{"role": "user", "content": "How much?"}], "max_tokens": 3}
    with Mock() as mock:
        before = read_counters(mock.url)
        answer = httpx.post(f"{mock.url}/v1/chat/completions", json=question | {"n": 2, "temperature": 1.0}).json()
        after = wait_idle(f"{mock.url}/v1")  # as a client's configuration has it
    grown = after.since(before)["mistral-7b"]
    prompt = answer["usage"]["prompt_tokens"]
    assert (grown.prompt_tokens, grown.finished_prompt_tokens) == (2 * prompt, 2 * prompt)
    assert (grown.generation_tokens, grown.finished_generation_tokens) == (6, 6)
    assert grown.requests == sum(grown.requests_by_reason.values()) == 2
    assert grown.cache_queries == 2 * prompt
    assert after.idle
    assert (after.names, after.context) == ({"mistral-7b": "mistral-7b"}, 8192)
    assert before.read_at < after.read_at


def test_engine_cores_are_summed_and_all_names_are_known(serve: Callable[[Pages], str]) -> None:
    url = serve({"/metrics": [(200, metrics())], "/v1/models": [(200, models("m", "alias", "adapter"))]})
    read = read_counters(url)
    assert read.models == {
        "m": ModelCounters(
            prompt_tokens=20,
            generation_tokens=14,
            finished_prompt_tokens=16,
            finished_generation_tokens=10,
            requests=6,
            cache_hits=14,
            requests_by_reason={"length": 4, "stop": 2},
        )
    }
    assert read.names == {"m": "m", "alias": "m", "adapter": "m"}
    assert read.context == 512
    assert read.engines[url].started == 1000


@pytest.mark.parametrize("answer", [(401, '{"error":"Unauthorized"}'), (200, "<html>"), (200, '{"data":[1]}')])
def test_without_its_list_of_models_a_server_is_read_all_the_same(
    serve: Callable[[Pages], str], answer: tuple[int, str]
) -> None:
    read = read_counters(serve({"/metrics": [(200, metrics())], "/v1/models": [answer]}))
    assert (read.names, read.context) == ({"m": "m"}, None)
    assert read.models["m"].prompt_tokens == 20


def test_several_engines_are_read_as_one(serve: Callable[[Pages], str]) -> None:
    one = serve({"/metrics": [(200, metrics())], "/v1/models": [(200, models("m"))]})
    other = serve({"/metrics": [(200, metrics(prompt=100))], "/v1/models": [(200, models("m"))]})
    unknown = serve({"/metrics": [(200, metrics(model="x"))]})
    both = read_counters(one, other)
    assert both.models["m"].prompt_tokens == 220
    assert both.models["m"].requests_by_reason == {"length": 8, "stop": 4}
    assert both.context == 512
    three = read_counters(one, other, unknown)
    assert list(three.models) == ["m", "x"]
    assert three.context is None
    with pytest.raises(ValueError, match="different engines"):
        three.since(both)


def test_what_is_no_vllm_is_named(serve: Callable[[Pages], str]) -> None:
    with pytest.raises(
        EngineUnreadable, match=r"no answer from http://127\.0\.0\.1:\d+/metrics .*is the engine running"
    ):
        read_counters(f"http://127.0.0.1:{free_port()}")
    for page in ((404, "Not Found"), (200, "python_info 1\n"), (200, "<html>"), (500, metrics())):
        with pytest.raises(EngineUnreadable, match=r"not a vLLM server; give the engine's own address"):
            read_counters(serve({"/metrics": [page]}))
    with pytest.raises(EngineUnreadable, match="no answer"):
        read_counters("nonsense")
    with pytest.raises(ValueError, match="at least one engine"):
        read_counters()


def test_a_restart_is_noticed() -> None:
    before = counters(prompt_tokens=5, requests=1)
    assert counters(prompt_tokens=7, requests=1).since(before)["m"].prompt_tokens == 2
    with pytest.raises(EngineRestarted, match="http://one was started anew between the two reads"):
        counters(started=2.0, prompt_tokens=50, requests=9).since(before)
    unknown_start = counters(started=None, prompt_tokens=5, requests=1)
    with pytest.raises(EngineRestarted, match="reconcile the calls made from then on"):
        counters(started=None, prompt_tokens=4, requests=1).since(unknown_start)


def test_waiting_ends_when_nothing_runs_and_nothing_moves(serve: Callable[[Pages], str]) -> None:
    pages = [metrics(running=1), metrics(running=1), metrics(prompt=11), metrics(prompt=12), metrics(prompt=12)]
    url = serve({"/metrics": [(200, page) for page in pages]})
    assert wait_idle(url).models["m"].prompt_tokens == 24


def test_waiting_is_bounded(serve: Callable[[Pages], str]) -> None:
    url = serve({"/metrics": [(200, metrics(running=1))]})
    with pytest.raises(EngineBusy, match=r"not idle within 0\.1 s \(m: 2 running, 0 waiting\)"):
        wait_idle(url, timeout=0.1)


def test_counters_add_up() -> None:
    one = ModelCounters(prompt_tokens=3, requests_by_reason={"stop": 1})
    other = ModelCounters(prompt_tokens=4, waiting=1, requests_by_reason={"length": 2})
    assert one + other == replace(one, prompt_tokens=7, waiting=1, requests_by_reason={"length": 2, "stop": 1})
    assert not (one + other).idle
    assert (one + other - other).prompt_tokens == 3
