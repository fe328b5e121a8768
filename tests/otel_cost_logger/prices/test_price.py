"""A price: what it makes of tokens agrees with exact decimal arithmetic, to the nano-dollar."""

from __future__ import annotations

import sqlite3
from decimal import ROUND_HALF_EVEN, Context, Decimal
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_cost_logger.prices.price import Price

EXACT = Context(prec=400, rounding=ROUND_HALF_EVEN)
TOKENS = st.integers(0, 2_000_000)
# US dollars per token: from a trillionth of a dollar per million tokens to a dollar per token.
AMOUNTS = st.decimals(0, 1, allow_nan=False, allow_infinity=False, places=18) | st.integers(0, 10**6).map(
    lambda micro: Decimal(micro).scaleb(-9)
)
PRICES = st.builds(Price, AMOUNTS, AMOUNTS, st.none() | AMOUNTS, AMOUNTS)


def by_decimals(price: Price, prompt: int, completion: int, cached: int) -> int:
    """The same amount by another way: decimals with digits to spare, rounded once."""
    hits = min(prompt, cached)
    at_hit = price.input if price.cached_input is None else price.cached_input
    terms = [
        EXACT.multiply(Decimal(prompt - hits), price.input),
        EXACT.multiply(Decimal(hits), at_hit),
        EXACT.multiply(Decimal(completion), price.output),
        price.per_request,
    ]
    usd = Decimal(0)
    for term in terms:
        usd = EXACT.add(usd, term)
    return int(EXACT.quantize(EXACT.multiply(usd, Decimal(10**9)), Decimal(1)))


@settings(max_examples=1000)
@given(PRICES, TOKENS, TOKENS, TOKENS)
@example(Price(Decimal("5e-10"), Decimal(0)), 1, 0, 0)
@example(Price(Decimal("5e-10"), Decimal(0)), 3, 0, 0)
@example(Price(Decimal("2e-7"), Decimal("6e-7"), Decimal("2e-8"), Decimal("0.001")), 10, 5, 4)
def test_1000_random_usages_cost_what_exact_decimal_arithmetic_says(
    price: Price, prompt: int, completion: int, cached: int
) -> None:
    assert price.nano_usd(prompt, completion, cached) == by_decimals(price, prompt, completion, cached)


@settings(max_examples=100)
@given(PRICES, st.lists(st.tuples(TOKENS, TOKENS, TOKENS), max_size=40), st.randoms(use_true_random=False))
def test_sums_in_any_order_agree_also_in_sqlite(
    price: Price, usages: list[tuple[int, int, int]], random: Random
) -> None:
    costs = [price.nano_usd(*usage) for usage in usages]
    shuffled = random.sample(costs, len(costs))
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE spans (cost_nano_usd INTEGER)")
        connection.executemany("INSERT INTO spans VALUES (?)", [(cost,) for cost in shuffled])
        (in_sqlite,) = connection.execute("SELECT coalesce(sum(cost_nano_usd), 0) FROM spans").fetchone()
    connection.close()
    assert sum(shuffled) == sum(costs) == in_sqlite
    assert isinstance(in_sqlite, int)


@pytest.mark.parametrize(
    ("price", "usage", "nano_usd"),
    [
        (Price(Decimal("2e-7"), Decimal("6e-7")), (10, 5, 4), 5000),
        (Price(Decimal("2e-7"), Decimal("6e-7"), Decimal("2e-8")), (10, 5, 4), 4280),
        (Price(Decimal("2e-7"), Decimal("6e-7"), Decimal("2e-8")), (4, 0, 9), 80),
        (Price(Decimal("2e-7"), Decimal("6e-7"), Decimal(0)), (4, 0, 4), 0),
        (Price(Decimal(0), Decimal(0), None, Decimal("0.002")), (9, 9, 0), 2_000_000),
        (Price(Decimal("1e-6"), Decimal(1)), (0, 10**18, 0), 10**27),
    ],
    ids=["no cached price", "cached", "more cached than sent", "cached is free", "per request", "huge"],
)
def test_what_a_call_costs(price: Price, usage: tuple[int, int, int], nano_usd: int) -> None:
    assert price.nano_usd(*usage) == nano_usd


def test_half_a_nano_dollar_goes_to_the_even_one() -> None:
    half = Price(Decimal("5e-10"), Decimal(0))
    assert [half.nano_usd(tokens, 0) for tokens in range(6)] == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize("amount", ["-1e-9", "NaN", "sNaN", "Infinity"])
def test_a_price_that_is_no_price_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="finite number of at least 0"):
        Price(Decimal(0), Decimal(amount))


def test_a_float_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a Decimal, not float: 0\.1"):
        Price(0.1, Decimal(0))  # type: ignore[arg-type]
