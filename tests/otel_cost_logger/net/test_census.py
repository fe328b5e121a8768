"""A census of the proxy: each of its addresses is asked for what it needs, and records are held against the engines.

An address that is counted has a request here. One that has none and is not closed has no engine behind it, and the
table in `net.roads` says why; it is asked too, with each of its methods, and no engine may move. Once with the mock,
and the main kinds once with a real vLLM (marked `engine`).
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
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from otel_cost_logger.net.roads import CLOSED, COUNTED, NO_ENGINE, OPENED, ROADS, Roads
from workbook.counters import wait_idle
from workbook.paths import BUILD_VARIABLE, DEPLOY
from workbook.services import Mock
from workbook.stacks import Stack, stack

pytestmark = pytest.mark.timeout(300)

SHIPPED = yaml.safe_load((DEPLOY / "litellm_config.yaml").read_text())
TENANT, SPENT, TALKER = "tenant-acme", "tenant-globex", "tenant-initech"
PRICES = {"input_cost_per_token": 2e-7, "output_cost_per_token": 6e-7}
COLUMNS = (
    "tenant_id, call_type, outcome, usage_source, prompt_tokens, completion_tokens, cost_source, cost_nano_usd, "
    "cached_tokens, cache_hit"
)
BOOK = """\
currency: USD
prices:
  - model: booked
    input_usd_per_million_tokens: 50
    output_usd_per_million_tokens: 70
    source: test
"""
# In the proxy: an address that tells every other, those that LiteLLM leaves out of its schema among them.
TELLING = """
from fastapi.routing import iter_route_contexts
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy.proxy_server import app

async def addresses():
    return [(method, route.path) for route in iter_route_contexts(app.routes) for method in route.methods or ()]

app.add_api_route("/addresses", addresses)
instance = CustomLogger()
"""
OPENED_ROADS = "/azure/*,/health"


class SideEngine(ThreadingHTTPServer):
    """An engine for what the mock does not serve: rerankings of 42 tokens, and audio of ten seconds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _SideHandler)
        self.prompt_tokens = 0
        self.requests = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

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
    """Tokens that engines counted."""

    prompt: int
    completion: int

    def __sub__(self, other: Moved) -> Moved:
        return Moved(self.prompt - other.prompt, self.completion - other.completion)


@dataclass(frozen=True)
class Asked:
    """An answer, its record and what the engines did for it."""

    answer: httpx.Response
    row: dict[str, Any]
    moved: Moved

    @property
    def tokens(self) -> Moved:
        return Moved(self.row["prompt_tokens"], self.row["completion_tokens"])

    @property
    def told(self) -> tuple[str, str, str]:
        return self.row["outcome"], self.row["usage_source"], self.row["cost_source"]


@dataclass
class Census:
    """The running proxy, and its engines. ``slow`` is a model whose answer takes its time."""

    stack: Stack
    budgets: Path
    urls: tuple[str, ...]
    side: SideEngine
    slow: str
    real: bool

    def engines(self) -> Moved:
        if self.real:
            wait_idle(*self.urls)  # vLLM's counters come a moment after its answer
        counts = [self.side.prompt_tokens, 0]
        for url in self.urls:
            text = httpx.get(f"{url}/metrics", trust_env=False).text
            for place, name in enumerate(("prompt", "generation")):
                counts[place] += sum(map(float, re.findall(rf"^vllm:{name}_tokens_total\{{.*\}} (\S+)$", text, re.M)))
        return Moved(int(counts[0]), int(counts[1]))

    def rows(self, after: int = 0, tenant: str = "%") -> list[dict[str, Any]]:
        with sqlite3.connect(self.stack.durable_ledger) as connection:
            connection.row_factory = sqlite3.Row
            chosen = "id > ? AND tenant_id LIKE ? ORDER BY id"
            found = connection.execute(f"SELECT id, {COLUMNS} FROM spans WHERE {chosen}", (after, tenant))
            return [dict(row) for row in found]

    def last(self) -> int:
        rows = self.rows()
        return int(rows[-1]["id"]) if rows else 0

    def ask(self, address: str, request: dict[str, Any], method: str = "POST") -> Asked:
        """Make a request, and wait for its only record."""
        before, engines = self.last(), self.engines()
        answer = self.stack.http(TENANT).request(method, address, **request)
        self.wait(lambda: len(self.rows(before)) > 0, f"{address} left no record: {answer.status_code} {answer.text}")
        moved = self.engines() - engines
        (row,) = self.rows(before)
        assert row["tenant_id"] == TENANT
        return Asked(answer, row, moved)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    def limit(self, tenant: str, usd: str) -> None:
        partial = self.budgets.with_suffix(".partial")
        partial.write_text(f"tenants:\n  {tenant}: {{day: {usd}}}\n")
        partial.replace(self.budgets)


def config(side: SideEngine, pooling: str, engine: str, slow: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SHIPPED))

    def deployment(name: str, model: str, base: str, info: dict[str, Any]) -> dict[str, Any]:
        return {
            "model_name": name,
            "litellm_params": {"model": model, "api_base": base, "api_key": "none"},
            "model_info": info,
        }

    config["model_list"] += [
        deployment("booked", "hosted_vllm/mistral-7b", f"{engine}/v1", {}),
        deployment("slow", "hosted_vllm/slow", f"{slow}/v1", PRICES),
        deployment("embed", "hosted_vllm/mistral-7b", f"{pooling}/v1", PRICES),
        deployment("rerank", "hosted_vllm/reranker", side.url, PRICES | {"mode": "rerank"}),
        deployment("whisper", "hosted_vllm/whisper", f"{side.url}/v1", PRICES | {"mode": "audio_transcription"}),
    ]
    config["general_settings"]["pass_through_endpoints"] = [
        {"path": "/direct", "target": f"{slow}/v1/chat/completions", "auth": True},
        {"path": "/below", "target": f"{slow}/v1", "include_subpath": True, "auth": True},
    ]
    return config


@pytest.fixture(scope="module", params=["mock", pytest.param("vllm", marks=pytest.mark.engine)])
def census(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Census]:
    """The shipped configuration and what an operator may add to it, with every address of LiteLLM's registered."""
    real = request.getfixturevalue("engine").url if request.param == "vllm" else None
    folder = tmp_path_factory.mktemp("census")
    budgets, prices = folder / "budgets.yaml", folder / "prices.yaml"
    budgets.write_text("tenants: {nobody: {day: 1}}\n")
    prices.write_text(BOOK)
    with ExitStack() as running:
        patch = running.enter_context(pytest.MonkeyPatch.context())
        patch.setenv(BUILD_VARIABLE, str(folder))
        side = running.enter_context(SideEngine())
        pooling = Mock("census-pooling", args=["--runner", "pooling", "--served-model-name", "mistral-7b"])
        urls = [running.enter_context(pooling).url, real]
        if real is None:
            slow = Mock("census-slow", args=["--tpot-ms", "25", "--served-model-name", "slow", "mistral-7b"])
            engine = Mock("census-engine", args=["--enable-faults", "--tpot-ms", "1"])
            urls[1:] = [running.enter_context(mock).url for mock in (engine, slow)]
        configuration = config(side, *urls[:2], urls[-1])
        configuration["litellm_settings"] |= {"cache": True, "cache_params": {"type": "local", "mode": "default_off"}}
        configuration["litellm_settings"]["callbacks"] += ["telling.instance"]
        started = stack(
            "census",
            config=configuration,
            backend=urls[1],
            tenants=[TENANT, SPENT, TALKER, *map(leaver, LEFT)],
            processor="durable",
            files={"telling.py": TELLING},
            env={
                "AZURE_API_BASE": side.url,
                "AZURE_API_KEY": "none",
                "LITELLM_DISABLE_LAZY_ROUTES": "true",
                "OTEL_COST_LOGGER_BUDGETS_FILE": str(budgets),
                "OTEL_COST_LOGGER_OPEN_ROADS": OPENED_ROADS,
                "OTEL_COST_LOGGER_PRICES_FILE": str(prices),
            },
        )
        census_stack = running.enter_context(started)
        yield Census(census_stack, budgets, tuple(urls), side, "mistral-7b" if real else "slow", real is not None)


@pytest.fixture
def mocked(census: Census) -> Census:
    """For what a real engine has no say in."""
    if census.real:
        pytest.skip("no engine is asked, or one that fails on request")
    return census


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
    (
        "/interactions",
        {"json": {"model": "mistral-7b", "input": "hi there", "generation_config": {"max_output_tokens": 9}}},
    ),
    ("/audio/transcriptions", {"data": {"model": "whisper"}, "files": {"file": ("a.wav", _wav(), "audio/wav")}}),
    ("/audio/translations", {"data": {"model": "whisper"}, "files": {"file": ("a.wav", _wav(), "audio/wav")}}),
    ("/audio/speech", {"json": {"model": "whisper", "input": "hello", "voice": "a"}}),
)


def needs(address: str) -> dict[str, Any] | None:
    return next((request for end, request in NEEDS if address.endswith(end)), None)


def filled(pattern: str) -> str:
    """An address that fits ``pattern``, LiteLLM's or the table's."""
    return re.sub(r"\*|\{[^}]*model[^}]*\}", "mistral-7b", re.sub(r"\{(?!.*model)[^}]*\}", "x", pattern))


ADDRESSES = [*(filled(road.pattern) for road in ROADS if road.kind in COUNTED), "/direct", "/below/chat/completions"]
# One address of each shape is asked in every way; its other names only plainly.
GOOGLE_STREAM = "/v1beta/models/mistral-7b:streamGenerateContent"
SHAPES = (
    *("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/vllm/chat/completions"),
    *("/vllm/completions", "/vllm/messages", "/vllm/responses", "/direct", "/below/chat/completions"),
    *("/v1beta/interactions", GOOGLE_STREAM),
)
WHOLE = ("/v1/embeddings", "/v1/rerank", "/v1beta/models/mistral-7b:generateContent")
WAYS = [("plain", address) for address in ADDRESSES]
WAYS += [(way, address) for way in ("streamed", "no stream", "not JSON", "refused") for address in SHAPES]
WAYS += [("unknown model", address) for address in (*SHAPES, *WHOLE, "/v1/audio/transcriptions", "/v1/audio/speech")]
# Of these the engine says at the end only how much it has generated. A stream that breaks off is counted by its pieces.
NOT_COUNTED_AS_THEY_GO = ("/v1/responses", "/vllm/messages", "/vllm/responses", "/v1beta/interactions")
LEFT = SHAPES


def leaver(address: str) -> str:
    """The tenant that leaves an answer of ``address``."""
    return f"left-{LEFT.index(address)}"


def asked(address: str, **changes: Any) -> dict[str, Any]:
    """A request of ``address``, with other fields in its body."""
    request = needs(address)
    assert request is not None, f"{address} is counted, and the census has no request for it"
    body = "json" if "json" in request else "data"
    return {**request, body: {**request[body], **changes}}


def streamed(address: str) -> dict[str, Any]:
    """The fields that make a stream of an answer of ``address``."""
    return {} if "Content" in address else {"stream": True}


def cost(row: dict[str, Any]) -> int:
    """What the tokens of ``row`` cost by the deployment's own prices, in billionths of a dollar."""
    return int(row["prompt_tokens"] * 200 - (row["cached_tokens"] or 0) * 180 + row["completion_tokens"] * 600)


@pytest.mark.parametrize(("way", "address"), WAYS)
def test_what_an_engine_did_is_on_one_record_of_the_keys_tenant(census: Census, way: str, address: str) -> None:
    if census.real and address not in (*SHAPES, *WHOLE):
        pytest.skip("another name of an address that is asked")
    request = asked(address)
    if way == "streamed":
        request = asked(address, **streamed(address))
    elif way == "no stream":
        request = asked(address, stream=False)
    elif way == "not JSON":
        request = {"content": b"{no", "headers": {"content-type": "application/json"}}
    elif way == "refused":
        request = asked(address, temperature="hot", generationConfig={"temperature": "hot"})
    elif way == "unknown model":
        request = asked(address, model="no-such-model")
        address = address.replace("mistral-7b", "no-such-model")
    done = census.ask(address, request)
    assert done.tokens == done.moved, (done.answer.text, done.row)
    if done.moved.prompt:
        assert done.answer.status_code == 200
        assert done.told == ("success", "engine", "custom_price")
        assert done.row["cost_nano_usd"] == cost(done.row)
    if done.answer.status_code >= 400:
        assert done.row["outcome"] == "failure"
    if way in ("not JSON", "refused", "unknown model"):
        assert done.told == ("failure", "none", "not_charged"), done.answer.text


@pytest.mark.parametrize("fault", ["500", "503"])
@pytest.mark.parametrize(
    "address", [each for each in SHAPES if "below" not in each and each.endswith(("completions", "messages"))]
)
def test_what_an_engine_that_fails_has_done_is_unknown(mocked: Census, address: str, fault: str) -> None:
    done = mocked.ask(address, asked(address, mock_fault=fault))
    assert done.answer.status_code >= 500
    assert done.told == ("failure", "none", "unknown")


BOTH: tuple[dict[str, Any], ...] = ({}, {"stream": True})
CACHED = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/v1beta/interactions")


CACHE_ASKED = [
    *(
        (address, {"model": model} | stream)
        for address in CACHED
        for model in ("mistral-7b", "booked")
        for stream in BOTH
    ),
    *((address, {}) for address in ("/v1/rerank", "/v1/embeddings", "/vllm/chat/completions")),
]


@pytest.mark.parametrize(("address", "fields"), CACHE_ASKED)
def test_an_answer_of_litellms_cache_costs_nothing(census: Census, address: str, fields: dict[str, Any]) -> None:
    fields = fields | {"cache": {"use-cache": True}}
    first, again = (census.ask(address, asked(address, **fields)) for _ in range(2))
    assert first.tokens == first.moved
    assert first.told == ("success", "engine", "price_book" if "booked" in fields.values() else "custom_price")
    assert again.tokens == first.tokens
    if again.moved == Moved(0, 0):
        assert again.told == ("success", "cache", "not_charged")
        assert (again.row["cost_nano_usd"], again.row["cache_hit"]) == (0, 1)
    else:
        assert address not in CACHED
        assert (again.tokens, again.told) == (again.moved, first.told)


PROMPTS = ["one two", "three four five"]
SEVERAL: list[tuple[str, dict[str, Any], int]] = [
    *(
        (address, {"n": 2, "temperature": 1.0} | stream, 2)
        for address in ("/v1/chat/completions", "/vllm/chat/completions", "/direct", "/v1/completions")
        for stream in BOTH
    ),
    *(
        (address, {"prompt": PROMPTS, "n": choices, "temperature": 1.0} | stream, choices)
        for address in ("/v1/completions", "/vllm/completions")
        for choices in (1, 2)
        for stream in BOTH
    ),
    ("/v1/embeddings", {"input": PROMPTS}, 1),
    ("/v1beta/models/mistral-7b:generateContent", {"generationConfig": {"candidateCount": 2, "maxOutputTokens": 9}}, 1),
]


@pytest.mark.parametrize(("address", "fields", "choices"), SEVERAL)
def test_several_answers_to_one_request_are_one_record(
    census: Census, address: str, fields: dict[str, Any], choices: int
) -> None:
    """An engine reads a prompt once for each choice, and says in its answer how long it is."""
    done = census.ask(address, asked(address, **fields))
    assert done.told == ("success", "engine", "custom_price"), done.answer.text
    assert Moved(done.tokens.prompt * choices, done.tokens.completion) == done.moved
    assert done.row["cost_nano_usd"] == cost(done.row)


def test_a_list_of_models_is_answered_by_nobody(mocked: Census) -> None:
    """What LiteLLM would answer it refuses with 400 before it sends anything. An engine knows no such model."""
    listed = "mistral-7b,booked"
    for address in ADDRESSES:
        if address not in (*SHAPES, *WHOLE) and address.startswith(("/vllm/", "/engines", "/openai")):
            continue
        to_the_engine = address.startswith(("/vllm", "/direct", "/below"))
        done = mocked.ask(address.replace("mistral-7b", listed), asked(address, model=listed))
        assert done.answer.status_code == (404 if to_the_engine else 400), address
        assert done.told == ("failure", "none", "not_charged"), address
        assert done.moved == Moved(0, 0), address


@pytest.fixture(scope="module")
def left(census: Census) -> dict[str, Moved]:
    """Each stream was left early; what the engine had done for it by then."""
    moved = {}
    for address in LEFT:
        limits = {
            "max_tokens": 400,
            "max_output_tokens": 400,
            "generationConfig": {"maxOutputTokens": 400},
            "generation_config": {"max_output_tokens": 400},
        }
        known = {name: limit for name, limit in limits.items() if name in asked(address)["json"]}
        whole = {"ignore_eos": True} if address.endswith(("completions", "/direct")) else {}
        model = {} if "Content" in address else {"model": census.slow}
        before = census.engines()
        with census.stack.http(leaver(address)).stream(
            "POST",
            address.replace("mistral-7b", census.slow),
            **asked(address, **known, **whole, **model, **streamed(address)),
        ) as answer:
            pieces = answer.iter_lines()
            for _ in range(12):
                next(pieces)
        wait_idle(*census.urls)
        moved[address] = census.engines() - before
    return moved


@pytest.mark.parametrize("address", LEFT)
def test_who_leaves_early_pays_for_what_was_generated(census: Census, left: dict[str, Moved], address: str) -> None:
    tenant, moved = leaver(address), left[address]
    census.wait(lambda: len(census.rows(tenant=tenant)) > 0, f"{address} left no record")
    (row,) = census.rows(tenant=tenant)
    assert row["outcome"] == "client_disconnected"
    assert row["cost_source"] == "custom_price"
    assert moved.completion > 0
    assert abs(row["completion_tokens"] - moved.completion) <= 2  # what was on its way
    if address in NOT_COUNTED_AS_THEY_GO:
        assert row["usage_source"] == "estimated"
        assert row["prompt_tokens"] > 0
    else:
        assert (row["usage_source"], row["prompt_tokens"]) == ("engine", moved.prompt)


def test_an_opened_road_is_recorded_and_unknown_where_nobody_counted(mocked: Census) -> None:
    """Behind it is an engine that counts rerankings, and nothing else that it does."""
    asked_before = mocked.side.requests
    uncounted = mocked.ask("/azure/audio/transcriptions", {"json": {"model": "elsewhere", "input": "a"}})
    counted = mocked.ask("/azure/rerank", {"json": {**RERANK, "model": "elsewhere"}})
    assert mocked.side.requests == asked_before + 2
    assert uncounted.answer.status_code == counted.answer.status_code == 200
    assert uncounted.told == ("success", "none", "unknown")
    assert counted.told == ("success", "engine", "unpriced")
    assert counted.tokens == counted.moved == Moved(42, 0)


def test_what_an_opened_road_makes_litellm_ask_is_the_callers(mocked: Census) -> None:
    """``/health`` sends a call of LiteLLM's own to each deployment."""
    before, engines = mocked.last(), mocked.engines()
    assert mocked.stack.http(TENANT).get("/health").status_code == 200
    moved = mocked.engines() - engines
    assert moved.completion > 0

    def recorded() -> Moved:
        rows = mocked.rows(before)
        return Moved(sum(row["prompt_tokens"] for row in rows), sum(row["completion_tokens"] for row in rows))

    mocked.wait(lambda: recorded() == moved, "the records are not what the engines did")
    rows = mocked.rows(before)
    assert {row["tenant_id"] for row in rows} == {TENANT}
    assert {row["cost_source"] for row in rows if not row["prompt_tokens"]} <= {"unknown", "not_charged"}


def test_a_spent_budget_is_spent_on_every_road(mocked: Census) -> None:
    client = mocked.stack.http(SPENT)
    cached = chat(cache={"use-cache": True})
    assert client.post("/v1/chat/completions", json=cached).status_code == 200
    engines = mocked.engines()
    assert client.post("/v1/chat/completions", json=cached).status_code == 200
    assert mocked.engines() == engines  # the answer is in the cache
    mocked.limit(SPENT, "0.000001")

    def spent() -> bool:
        return client.post("/v1/chat/completions", json=chat()).status_code == 429

    mocked.wait(spent, "the budget is never spent")
    assert client.post("/v1/chat/completions", json=cached).status_code == 429
    engines, requests = mocked.engines(), mocked.side.requests
    for address in (*ADDRESSES, "/azure/rerank"):
        request = asked("/rerank") if "azure" in address else asked(address)
        assert client.post(address, **request).status_code == 429, address
    assert mocked.engines() == engines
    assert mocked.side.requests == requests


def addresses_of(census: Census) -> list[tuple[str, str]]:
    """Every method and address that the running proxy has, as it says itself."""
    operator = {"Authorization": f"Bearer {census.stack.master_key}"}
    before = census.last()
    answer = httpx.get(f"{census.stack.proxy_url}/addresses", headers=operator, timeout=60, trust_env=False)
    census.wait(lambda: len(census.rows(before)) > 0, "the operator's own call left no record")
    return sorted({(method, re.sub(":path}", "}", path)) for method, path in answer.json()})


def test_every_address_is_counted_or_closed_or_has_no_engine_behind_it(mocked: Census) -> None:
    """What LiteLLM adds in a later version is closed: it is in no row of the table.

    What has no engine behind it is asked by a tenant, and by the operator, whom no role keeps out.
    """
    roads, before, engines, requests = Roads(), mocked.last(), mocked.engines(), mocked.side.requests
    client, found = mocked.stack.http(TALKER), {CLOSED: 0, NO_ENGINE: 0}
    operator = httpx.Client(
        base_url=mocked.stack.proxy_url,
        headers={"Authorization": f"Bearer {mocked.stack.master_key}"},
        timeout=60,
        trust_env=False,
    )
    listed = addresses_of(mocked)
    before = mocked.last()
    for method, path in listed:
        address = filled(path)
        road = roads.of(address, method)
        if road.kind in COUNTED or address.startswith(("/direct", "/below")):
            known = needs(address) is not None or address.startswith("/below")
            assert known or method != "POST", f"{address} is counted, and not in the census"
            continue
        if Roads(OPENED_ROADS.split(",")).of(address, method).kind == OPENED:
            continue  # asked by a test of its own
        found[road.kind] += 1
        body = None if method in ("GET", "HEAD") else chat()
        answer = client.request(method, address, json=body)
        if road.kind == CLOSED:
            assert answer.status_code == 403, (method, address)
            assert method == "HEAD" or answer.json()["error"]["type"] == "road_closed"
        else:
            operator.request(method, address, json=body)
    assert min(found.values()) > 200
    assert mocked.engines() == engines
    assert mocked.side.requests == requests
    refused = [row for row in mocked.rows(before) if row["call_type"] == "closed_road"]
    assert len(refused) == found[CLOSED]
    assert {(row["tenant_id"], row["cost_source"], row["cost_nano_usd"]) for row in refused} == {
        (TALKER, "not_charged", 0)
    }
