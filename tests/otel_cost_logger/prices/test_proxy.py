"""Behind the real proxy: whose price a call gets, and that its caller can't change it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from otel_cost_logger.prices.price import Price
from otel_cost_logger.prices.reading import read_book
from workbook.spans import read_ledger
from workbook.stacks import TENANTS, Stack, stack

pytestmark = pytest.mark.timeout(300)

BOOK = """\
currency: USD
prices:
  - model: booked
    input_usd_per_million_tokens: {input}
    output_usd_per_million_tokens: 70
    cached_input_usd_per_million_tokens: 5
    usd_per_request: 0.0001
    source: test
  - model: own
    input_usd_per_million_tokens: 1
    output_usd_per_million_tokens: 1
    valid_until: 2020-12-31
    source: a price of long ago
"""
OWN = {"input_cost_per_token": 2e-6, "output_cost_per_token": 3e-6, "cache_read_input_token_cost": 1e-6}
REGISTERED = {"input_cost_per_token": 4e-6, "output_cost_per_token": 5e-6, "litellm_provider": "openai"}
REGISTER = f"""
import litellm
from litellm.integrations.custom_logger import CustomLogger

litellm.register_model({{"openai/mistral-7b": {REGISTERED}}})
instance = CustomLogger()
"""
BOOKED = Price(Decimal("5e-5"), Decimal("7e-5"), Decimal("5e-6"), Decimal("1e-4"))
OWN_PRICE = Price(Decimal("2e-6"), Decimal("3e-6"), Decimal("1e-6"))
REGISTERED_PRICE = Price(Decimal("4e-6"), Decimal("5e-6"))


def deployment(name: str, model: str, **model_info: Any) -> dict[str, Any]:
    params = {"model": model, "api_base": "os.environ/VLLM_API_BASE", "api_key": "none"}
    return {"model_name": name, "litellm_params": params, "model_info": model_info}


CONFIG = {
    "model_list": [
        deployment("booked", "hosted_vllm/mistral-7b", **OWN),
        deployment("own", "hosted_vllm/mistral-7b", **OWN),
        deployment("registered", "openai/mistral-7b"),
        deployment("unpriced", "hosted_vllm/mistral-7b"),
    ],
    "litellm_settings": {"callbacks": ["register.instance", "otel_cost_logger.proxy_handler_instance"]},
    "router_settings": {"disable_cooldowns": True},
    "general_settings": {
        "master_key": "os.environ/LITELLM_MASTER_KEY",
        "custom_auth": "otel_cost_logger.auth.user_api_key_auth",
    },
}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prices") / "prices.yaml"
    path.write_text(BOOK.format(input=50))
    return path


@pytest.fixture(scope="module")
def running(book: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path_factory.mktemp("build")))
        mock_args = ["--enable-prompt-tokens-details"]
        env = {"OTEL_COST_LOGGER_PRICES_FILE": str(book)}
        with stack("prices", config=CONFIG, mock_args=mock_args, env=env, files={"register.py": REGISTER}) as started:
            yield started


_numbers = itertools.count()
Call = Callable[..., Any]


def post(running: Stack, model: str, path: str, body: dict[str, Any]) -> tuple[str, int]:
    """Make a call; its id and the answer's status."""
    call_id = f"call-{next(_numbers)}"
    asked = {"model": model, "max_tokens": 9, **body}
    if path.endswith(("chat/completions", "messages")):
        asked.setdefault("messages", [{"role": "user", "content": f"Question {call_id}: what is it?"}])
    with running.http(TENANTS[0]) as client:
        answer = client.post(path, json=asked, headers={"x-litellm-call-id": call_id})
    return call_id, answer.status_code


@pytest.fixture
def call(running: Stack) -> Call:
    """Make a call that succeeds; its record."""

    def made(model: str, **body: Any) -> Any:
        call_id, status = post(running, model, "/v1/chat/completions", body)
        assert status == 200
        return running.wait_for_call(call_id)

    return made


def cost(price: Price, row: Any) -> int:
    return price.nano_usd(int(row["prompt_tokens"]), int(row["completion_tokens"]), int(row["cached_tokens"] or 0))


def test_the_book_comes_first_then_the_deployment_then_the_map_then_nobody(call: Call, book: Path) -> None:
    for model, source, price in (
        ("booked", "price_book", BOOKED),
        ("own", "custom_price", OWN_PRICE),
        ("registered", "cost_map", REGISTERED_PRICE),
        ("unpriced", "unpriced", Price(Decimal(0), Decimal(0))),
    ):
        row = call(model)
        assert (row["cost_source"], row["cost_nano_usd"]) == (source, cost(price, row)), row
        assert row["cost_usd"] == row["cost_nano_usd"] / 1e9
        assert row["completion_tokens"] == 9
        if source == "price_book":
            assert row["price_version"] == read_book(book).version
        assert isinstance(row["price_version"], str) == (source != "unpriced")


@pytest.mark.parametrize("stream", [False, True])
def test_cached_tokens_are_charged_at_the_cached_price(call: Call, stream: bool) -> None:
    text = f"{stream} " + " ".join(f"word{number}" for number in range(200))
    asked = {"messages": [{"role": "user", "content": text}], "stream": stream}
    first, second = (call("booked", **asked) for _ in range(2))
    assert first["prompt_tokens"] == second["prompt_tokens"]
    assert not first["cached_tokens"]
    hits = int(second["cached_tokens"])
    assert 0 < hits < second["prompt_tokens"]
    assert first["cost_nano_usd"] - second["cost_nano_usd"] == hits * (50_000 - 5_000)
    assert second["cost_nano_usd"] == cost(BOOKED, second)


PRICES = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "cache_read_input_token_cost": 0.0}
OVERRIDES: dict[str, dict[str, Any]] = {
    "prices": PRICES,
    "a price per second": {"input_cost_per_second": 0.0, "output_cost_per_second": 0.0},
    "model_info": {"model_info": PRICES},
    "metadata": {"metadata": {**PRICES, "model_info": PRICES, "model_group": "unpriced"}},
    "litellm_metadata": {"litellm_metadata": {**PRICES, "model_info": PRICES, "model_group": "unpriced"}},
    "extra_body": {"extra_body": {**PRICES, "model_info": PRICES}},
    "litellm_params": {"litellm_params": {**PRICES, "model_info": PRICES, "metadata": {"model_info": PRICES}}},
    "base_model": {"base_model": "free"},
    "response_cost": {"response_cost": 0.0, "metadata": {"response_cost": 0.0}},
    "service tier": {"service_tier": "flex"},
    "provider": {"custom_llm_provider": "openai"},
    "price book": {"metadata": {"price_book": "x", "llm.cost_source": "x", "cost_source": "not_charged"}},
}
ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {},
    "/v1/completions": {"prompt": "what is it?"},
    "/v1/messages": {},
    "/v1/responses": {"input": "what is it?", "max_output_tokens": 9},
}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_nothing_in_a_body_changes_the_price(running: Stack, call: Call, path: str) -> None:
    """It is refused or it has no effect."""
    statuses = {post(running, "booked", path, ENDPOINTS[path] | override) for override in OVERRIDES.values()}
    answered = [call_id for call_id, status in statuses if status == 200]
    assert len(answered) >= 5
    for call_id in answered:
        row = running.wait_for_call(call_id)
        assert (row["model"], row["cost_source"], row["cost_nano_usd"]) == ("booked", "price_book", cost(BOOKED, row))
        assert row["cost_nano_usd"] > 100_000
    call("booked")  # the records of those before it have come by now
    spans = read_ledger(running.ledger)
    refused = spans[spans["call_id"].isin([call_id for call_id, status in statuses if status != 200])]
    # Over one of them LiteLLM stumbles when it has begun to send: nobody can tell that no engine worked.
    assert set(refused["cost_source"]) <= {"not_charged", "unknown"}


def test_nor_the_price_of_the_calls_after_it(running: Stack, call: Call) -> None:
    """LiteLLM registers a price that comes with a call for the whole process."""
    for model in ("own", "registered", "unpriced"):
        for override in OVERRIDES.values():
            post(running, model, "/v1/chat/completions", override)
    own, registered = call("own"), call("registered")
    assert (own["cost_source"], own["cost_nano_usd"]) == ("custom_price", cost(OWN_PRICE, own))
    assert (registered["cost_source"], registered["cost_nano_usd"]) == ("cost_map", cost(REGISTERED_PRICE, registered))
    assert call("unpriced")["cost_source"] == "unpriced"


def test_a_price_change_never_rewrites_history(
    call: Call, running: Stack, book: Path, eventually: Callable[[Callable[[], object], str], None]
) -> None:
    before = call("booked")
    old = read_book(book)
    other = book.with_suffix(".new")
    other.write_text(BOOK.format(input=60))
    other.replace(book)
    new = read_book(book)
    eventually(lambda: call("booked")["price_version"] == new.version, "the new price book is in force")
    after = call("booked")
    dearer = Price(Decimal("6e-5"), Decimal("7e-5"), Decimal("5e-6"), Decimal("1e-4"))
    assert after["cost_nano_usd"] == cost(dearer, after)
    kept = read_ledger(running.ledger).set_index("call_id").loc[before["call_id"]]
    assert (kept["cost_nano_usd"], kept["price_version"]) == (before["cost_nano_usd"], old.version)

    book.write_text(BOOK.format(input=-1))  # broken: the last good one stays in force
    log = running.logs["litellm_proxy"]

    def refused() -> bool:
        call("booked")
        return "'input_usd_per_million_tokens' is negative: -1" in log.read_text()

    eventually(refused, "the broken book is in the log")
    assert call("booked")["price_version"] == new.version
    assert log.read_text().count("is negative: -1") == 1
