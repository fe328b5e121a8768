"""A census of the proxy: each of its addresses is asked for what it needs, and records are held against the engines.

An address that is counted has a request here. One that has none and is not closed has no engine behind it, and the
table in `net.roads` says why; it is asked too, and no engine may move.
"""

from __future__ import annotations

import io
import json
import re
import sqlite3
import threading
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from otel_cost_logger.net.roads import CLOSED, COUNTED, NO_ENGINE, ROADS, Roads
from workbook.paths import BUILD_VARIABLE, DEPLOY
from workbook.services import Mock
from workbook.stacks import Stack, stack

pytestmark = pytest.mark.timeout(300)

SHIPPED = yaml.safe_load((DEPLOY / "litellm_config.yaml").read_text())
TENANT, SPENT, TALKER = "tenant-acme", "tenant-globex", "tenant-initech"
PRICES = {"input_cost_per_token": 2e-7, "output_cost_per_token": 6e-7}
COLUMNS = "tenant_id, call_type, outcome, usage_source, prompt_tokens, completion_tokens, cost_source, cost_nano_usd"
LEFT_AFTER = 3  # tokens


class SideEngine(ThreadingHTTPServer):
    """An engine for what the mock does not serve: rerankings of 42 tokens, and audio of ten seconds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _SideHandler)
        self.prompt_tokens = 0
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _SideHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SideEngine

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.requests += 1
        answer: dict[str, Any] = {"text": "hello", "usage": {"type": "duration", "seconds": 10}}
        if "rerank" in self.path:
            self.server.prompt_tokens += 42
            results = [{"index": 0, "document": {"text": "a"}, "relevance_score": 0.9}]
            answer = {"id": "r", "model": "reranker", "results": results, "usage": {"total_tokens": 42}}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@dataclass(frozen=True)
class Moved:
    """What engines counted, and as many records as came of it."""

    prompt: int
    completion: int

    def __sub__(self, other: Moved) -> Moved:
        return Moved(self.prompt - other.prompt, self.completion - other.completion)


@dataclass
class Census:
    """The running proxy, and its engines."""

    stack: Stack
    budgets: Path
    mocks: tuple[Mock, ...]
    side: SideEngine

    def engines(self) -> Moved:
        counts = [self.side.prompt_tokens, 0]
        for url in (mock.url for mock in self.mocks):
            text = httpx.get(f"{url}/metrics", trust_env=False).text
            for place, name in enumerate(("prompt", "generation")):
                counts[place] += sum(map(float, re.findall(rf"^vllm:{name}_tokens_total\{{.*\}} (\S+)$", text, re.M)))
        return Moved(int(counts[0]), int(counts[1]))

    def rows(self, after: int = 0) -> list[dict[str, Any]]:
        with sqlite3.connect(self.stack.durable_ledger) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"SELECT id, {COLUMNS} FROM spans WHERE id > ? ORDER BY id", (after,))
            return [dict(row) for row in found]

    def last(self) -> int:
        rows = self.rows()
        return int(rows[-1]["id"]) if rows else 0

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    def limit(self, tenant: str, usd: str) -> None:
        partial = self.budgets.with_suffix(".partial")
        partial.write_text(f"tenants:\n  {tenant}: {{day: {usd}}}\n")
        partial.replace(self.budgets)


def config(side: SideEngine, pooling: Mock, engine: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SHIPPED))

    def deployment(name: str, model: str, base: str, **info: Any) -> dict[str, Any]:
        params = {"model": model, "api_base": base, "api_key": "none"}
        return {"model_name": name, "litellm_params": params, "model_info": {**PRICES, **info}}

    config["model_list"] += [
        deployment("embed", "hosted_vllm/mistral-7b", f"{pooling.url}/v1"),
        deployment("rerank", "hosted_vllm/reranker", side.url, mode="rerank"),
        deployment("whisper", "hosted_vllm/whisper", f"{side.url}/v1", mode="audio_transcription"),
    ]
    config["general_settings"]["pass_through_endpoints"] = [
        {"path": "/direct", "target": f"{engine}/v1/chat/completions", "auth": True},
        {"path": "/below", "target": f"{engine}/v1", "include_subpath": True, "auth": True},
    ]
    return config


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Census]:
    """The shipped configuration and what an operator may add to it, with every address of LiteLLM's registered."""
    folder = tmp_path_factory.mktemp("census")
    budgets = folder / "budgets.yaml"
    budgets.write_text("tenants: {nobody: {day: 1}}\n")
    env = {"OTEL_COST_LOGGER_BUDGETS_FILE": str(budgets), "LITELLM_DISABLE_LAZY_ROUTES": "true"}
    with pytest.MonkeyPatch.context() as patch, SideEngine() as side:
        patch.setenv(BUILD_VARIABLE, str(folder))
        threading.Thread(target=side.serve_forever, daemon=True).start()
        pooling = Mock("census-pooling", args=["--runner", "pooling", "--served-model-name", "mistral-7b"])
        with pooling, Mock("census-engine", args=["--enable-faults", "--tpot-ms", "1"]) as engine:
            shipped_and_more = config(side, pooling, engine.url)
            with stack("census", config=shipped_and_more, backend=engine.url, processor="durable", env=env) as running:
                yield Census(running, budgets, (engine, pooling), side)
        side.shutdown()


def chat(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Who pays for the tokens of this answer?"}]
    return {"model": "mistral-7b", "max_tokens": 9, "messages": messages, **more}


def _wav() -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return data.getvalue()


GOOGLE = {"contents": [{"role": "user", "parts": [{"text": "hi there"}]}], "generationConfig": {"maxOutputTokens": 9}}
RERANK = {"model": "rerank", "query": "q", "documents": ["a", "b"]}
# The end of an address, and what it needs; the first that fits.
NEEDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("chat/completions", {"json": chat()}),
    ("/direct", {"json": chat()}),
    ("/completions", {"json": {"model": "mistral-7b", "prompt": "one two three", "max_tokens": 9}}),
    ("/messages", {"json": chat()}),
    ("/responses", {"json": {"model": "mistral-7b", "input": "hello", "max_output_tokens": 9}}),
    ("/embeddings", {"json": {"model": "embed", "input": "what is a token?"}}),
    ("/rerank", {"json": RERANK}),
    ("/score", {"json": {"model": "mistral-7b", "text_1": "a", "text_2": "b"}}),
    ("/pooling", {"json": {"model": "mistral-7b", "input": "a"}}),
    ("/classify", {"json": {"model": "mistral-7b", "input": "a"}}),
    (":generateContent", {"json": GOOGLE}),
    (":streamGenerateContent", {"json": GOOGLE}),
    ("/interactions", {"json": {"model": "mistral-7b", "input": "hi there"}}),
    ("/audio/transcriptions", {"data": {"model": "whisper"}, "files": {"file": ("a.wav", _wav(), "audio/wav")}}),
    ("/audio/translations", {"data": {"model": "whisper"}, "files": {"file": ("a.wav", _wav(), "audio/wav")}}),
    ("/audio/speech", {"json": {"model": "whisper", "input": "hello", "voice": "a"}}),
)
STREAMED = ("completions", "/direct", "/messages", "/responses", "/interactions", "streamGenerateContent")


def needs(address: str) -> dict[str, Any] | None:
    return next((request for end, request in NEEDS if address.endswith(end)), None)


def filled(pattern: str) -> str:
    """An address that fits ``pattern``, LiteLLM's or the table's."""
    return re.sub(r"\*|\{[^}]*model[^}]*\}", "mistral-7b", re.sub(r"\{(?!.*model)[^}]*\}", "x", pattern))


ADDRESSES = [*(filled(road.pattern) for road in ROADS if road.kind in COUNTED), "/direct", "/below/chat/completions"]
# One address of each shape is asked in every way; its other names only plainly.
SHAPES = (
    *("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/vllm/chat/completions"),
    *("/vllm/completions", "/vllm/messages", "/vllm/responses", "/direct", "/below/chat/completions"),
    *("/v1beta/interactions", "/v1beta/models/mistral-7b:streamGenerateContent"),
)
WAYS = [("plain", address) for address in ADDRESSES]
WAYS += [("streamed", address) for address in SHAPES]
WAYS += [("failing", address) for address in (*SHAPES, "/v1/embeddings", "/v1/rerank")]


@pytest.mark.parametrize(("way", "address"), WAYS)
def test_what_an_engine_did_is_on_one_record_of_the_keys_tenant(census: Census, way: str, address: str) -> None:
    request = needs(address)
    assert request is not None, f"{address} is counted, and the census has no request for it"
    body = dict(request.get("json") or {})
    if way == "streamed" and "Content" not in address:
        body["stream"] = True
    if way == "failing":
        if "model" in body:
            body["model"] = "no-such-model"
        address = address.replace("mistral-7b", "no-such-model")
    before, engines = census.last(), census.engines()
    answer = census.stack.http(TENANT).post(address, **({**request, "json": body} if body else request))
    census.wait(lambda: len(census.rows(before)) > 0, f"{address} left no record: {answer.status_code} {answer.text}")
    (row,) = census.rows(before)
    moved = census.engines() - engines
    assert row["tenant_id"] == TENANT
    assert (row["prompt_tokens"], row["completion_tokens"]) == (moved.prompt, moved.completion), (answer.text, row)
    if moved.prompt:
        assert answer.status_code == 200
        assert (row["outcome"], row["usage_source"]) == ("success", "engine")
        assert row["cost_nano_usd"] == moved.prompt * 200 + moved.completion * 600
        assert row["cost_source"] == "custom_price"
    if answer.status_code >= 400:
        assert row["outcome"] == "failure"


@pytest.mark.parametrize(
    "address",
    [
        "/v1/chat/completions",
        "/v1/messages",
        "/vllm/messages",
        "/vllm/chat/completions",
        "/vllm/completions",
        "/direct",
        "/v1/completions",
    ],
)
def test_who_leaves_early_pays_for_what_was_generated(census: Census, address: str) -> None:
    request = needs(address)
    assert request is not None
    body = {**request["json"], "stream": True, "mock_fault": f"hang:{LEFT_AFTER}"}
    before, engines = census.last(), census.engines()
    with census.stack.http(TENANT).stream("POST", address, json=body) as answer:
        next(answer.iter_lines())
        census.wait(lambda: (census.engines() - engines).completion > 0, "the engine did not begin")
    census.wait(lambda: len(census.rows(before)) > 0, f"{address} left no record")
    (row,) = census.rows(before)
    moved = census.engines() - engines
    assert (row["tenant_id"], row["outcome"]) == (TENANT, "client_disconnected")
    assert row["prompt_tokens"] == moved.prompt or row["usage_source"] == "estimated"
    assert abs(row["completion_tokens"] - moved.completion) <= 1
    counts_as_it_goes = address.endswith(("completions", "/direct"))
    assert row["usage_source"] == "engine" or not counts_as_it_goes


def test_a_spent_budget_is_spent_on_every_road(census: Census) -> None:
    census.limit(SPENT, "0.000001")
    client = census.stack.http(SPENT)

    def spent() -> bool:
        return client.post("/v1/chat/completions", json=chat()).status_code == 429

    census.wait(spent, "the budget is never spent")
    engines, asked = census.engines(), census.side.requests
    for address in ADDRESSES:
        request = needs(address)
        assert request is not None
        assert client.post(address, **request).status_code == 429, address
    assert census.engines() == engines
    assert census.side.requests == asked


def addresses_of(census: Census) -> list[tuple[str, str]]:
    """Every method and address that the running proxy has, as it says itself."""
    answer = httpx.get(f"{census.stack.proxy_url}/openapi.json", timeout=60, trust_env=False)
    paths = answer.json()["paths"]
    methods = ("get", "post", "put", "patch", "delete")
    return [(method.upper(), path) for path, found in paths.items() for method in methods if method in found]


# These are asked by nobody here: the proxy would end, or wait.
NOT_ASKED = ("/health/drain", "/sso/", "/scim/")


def test_every_address_is_counted_or_closed_or_has_no_engine_behind_it(census: Census) -> None:
    """What LiteLLM adds in a later version is closed: it is in no row of the table."""
    roads, before, engines, asked = Roads(), census.last(), census.engines(), census.side.requests
    client, found = census.stack.http(TALKER), {CLOSED: 0, NO_ENGINE: 0}
    for method, path in addresses_of(census):
        address = filled(path)
        road = roads.of(address)
        if road.kind in COUNTED or address.startswith(("/direct", "/below")):
            known = needs(address) is not None or address.startswith("/below")
            assert known or method != "POST", f"{address} is counted, and not in the census"
            continue
        found[road.kind] += 1
        if road.kind == NO_ENGINE and (address.startswith(NOT_ASKED) or method == "DELETE"):
            continue
        answer = client.request(method, address, json=None if method == "GET" else chat())
        if road.kind == CLOSED:
            assert answer.status_code == 403, (method, address)
            assert answer.json()["error"]["type"] == "road_closed"
    assert min(found.values()) > 200
    assert census.engines() == engines
    assert census.side.requests == asked
    refused = [row for row in census.rows(before) if row["call_type"] == "closed_road"]
    assert len(refused) == found[CLOSED]
    assert {(row["tenant_id"], row["cost_source"], row["cost_nano_usd"]) for row in refused} == {
        (TALKER, "not_charged", 0)
    }
