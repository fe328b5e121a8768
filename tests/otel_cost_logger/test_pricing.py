"""Cost: exact in nano-dollars, and always with a source."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cost_logger.prices.price import Price
from otel_cost_logger.prices.reading import parse_book
from otel_cost_logger.pricing import Cost, cost_by_book, cost_of, price_for, to_nano_usd

CUSTOM = {"metadata": {"model_info": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}}


BOOK = parse_book(
    """\
currency: USD
prices:
  - model: sold
    input_usd_per_million_tokens: 10
    output_usd_per_million_tokens: 20
    cached_input_usd_per_million_tokens: 1
    usd_per_request: 0.000001
    valid_until: 1970-01-01
    source: test
""",
    "prices.yaml",
)
TOMORROW = 86_400 * 10**9


def test_a_deployments_own_price_wins_and_its_version_changes_with_it() -> None:
    first = cost_of({"response_cost": 7e-06}, CUSTOM)
    assert (first.nano_usd, first.source) == (7000, "custom_price")
    dearer = {"metadata": {"model_info": {"input_cost_per_token": 3e-6, "output_cost_per_token": 2e-6}}}
    second = cost_of({"response_cost": 7e-06}, dearer)
    assert second.price_version != first.price_version


def test_a_price_under_litellm_metadata_counts_as_well() -> None:
    """/v1/messages and /v1/responses keep the deployment there."""
    moved = {"litellm_metadata": CUSTOM["metadata"]}
    assert cost_of({"response_cost": 7e-06}, moved).source == "custom_price"


def test_zero_from_the_map_means_that_it_has_no_price() -> None:
    assert cost_of({"response_cost": 0.0}, {}) == Cost(0, "unpriced", None)


def test_a_price_of_the_map_names_the_release_it_came_with() -> None:
    cost = cost_of({"response_cost": 4.2e-06}, {})
    assert (cost.nano_usd, cost.source) == (4200, "cost_map")
    assert cost.price_version is not None
    assert cost.price_version.startswith("litellm-")


def test_no_tokens_is_not_the_same_as_no_price() -> None:
    assert cost_of({"response_cost": 0.0}, CUSTOM, without_tokens="not_charged") == Cost(0, "not_charged", None)


def test_a_price_of_zero_that_somebody_set_is_a_price() -> None:
    free = {"metadata": {"model_info": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}}}
    assert cost_of({"response_cost": 0.0}, free).source == "custom_price"


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(1, 10**6), st.integers(1, 10**6))
def test_nano_dollars_agree_with_decimal_arithmetic(
    prompt: int, completion: int, price_in: int, price_out: int
) -> None:
    """Prices in whole pico-dollars per token; the float path must round to the same nano-dollar or its neighbour.

    A float has 53 bits: below 9e6 USD its error stays under half a nano-dollar, so only exact ties may differ.
    """
    exact = (Decimal(prompt) * price_in + Decimal(completion) * price_out) / 1000
    usd = prompt * (price_in * 1e-12) + completion * (price_out * 1e-12)
    got = to_nano_usd(usd)
    assert got is not None
    assert abs(Decimal(got) - exact) <= Decimal("0.5") + exact * Decimal("1e-15")


@pytest.mark.parametrize(
    ("usd", "nano"), [(7e-06, 7000), (1.64e-05, 16400), (0.3, 300_000_000), (1e-10, 0), (5e-10, 0), (1.5e-9, 2)]
)
def test_rounding_is_half_even_of_the_shortest_decimal(usd: float, nano: int) -> None:
    assert to_nano_usd(usd) == nano
    assert (Decimal(repr(usd)) * 10**9).quantize(Decimal(1), ROUND_HALF_EVEN) == nano


@pytest.mark.parametrize("usd", [float("nan"), float("inf"), float("-inf"), -1e-9, None, "1", True, 1e12])
def test_what_is_no_amount_has_no_nano_dollars(usd: object) -> None:
    assert to_nano_usd(usd) is None


def test_the_book_prices_a_call_by_its_tokens_and_its_beginning() -> None:
    tokens = {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 4}
    cost = cost_by_book(BOOK, "sold", "m", TOMORROW - 1, **tokens)
    assert cost == Cost(6 * 10_000 + 4 * 1000 + 5 * 20_000 + 1000, "price_book", BOOK.version)
    assert cost_by_book(BOOK, "sold", "m", TOMORROW, **tokens) is None
    assert cost_by_book(BOOK, "m", "sold", 0, **tokens) is None


def test_an_amount_that_no_record_can_carry_is_unpriced() -> None:
    cost = cost_by_book(BOOK, "sold", None, 0, prompt_tokens=2**63 - 1, completion_tokens=0, cached_tokens=0)
    assert cost == Cost(0, "unpriced", None)


def test_the_price_before_the_call_comes_from_the_same_sources_in_the_same_order() -> None:
    litellm.register_model({"hosted_vllm/registered": {"input_cost_per_token": 3e-6, "output_cost_per_token": 4e-6}})
    hosted = {"custom_llm_provider": "hosted_vllm", "model": "registered"}
    book = Price(Decimal("1e-5"), Decimal("2e-5"), Decimal("1e-6"), Decimal("1e-6"))
    own = Price(Decimal("1e-6"), Decimal("2e-6"))
    assert price_for("sold", "registered", hosted | CUSTOM, 0, book=BOOK) == book
    assert price_for("sold", "registered", hosted | CUSTOM, TOMORROW, book=BOOK) == own
    assert price_for("sold", "registered", hosted | {"model_info": CUSTOM["metadata"]["model_info"]}, 0) == own
    assert price_for("sold", "registered", hosted | {"cache_read_input_token_cost": 1e-7} | CUSTOM, 0) == Price(
        Decimal("1e-6"), Decimal("2e-6"), Decimal("1e-7")
    )
    registered = Price(Decimal("3e-6"), Decimal("4e-6"))
    assert price_for("sold", "registered", hosted, TOMORROW, book=BOOK) == registered
    assert price_for("sold", None, {"model": "hosted_vllm/registered"}, 0) == registered
    assert price_for("gpt-4o", "registered-by-nobody", {"custom_llm_provider": "hosted_vllm"}, 0) is None
