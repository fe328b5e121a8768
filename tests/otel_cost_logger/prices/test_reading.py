"""The price book's file: every number as it was written, every mistake with its line."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cost_logger.prices.reading import PriceBookError, parse_book, read_book

GOOD = """\
currency: USD
prices:
  - model: mistral
    input_usd_per_million_tokens: 0.20
    output_usd_per_million_tokens: 6e-1
    cached_input_usd_per_million_tokens: .02
    usd_per_request: 0.001
    valid_until: 2026-11-30
    source: first contract
  - model: mistral
    input_usd_per_million_tokens: 0.30
    output_usd_per_million_tokens: 0.90
    valid_from: 2026-12-01
    source: second contract
  - served_model: mistral-7b
    input_usd_per_million_tokens: 1
    output_usd_per_million_tokens: 0
    source: whoever asks for it by another name
"""
LAST_OF_NOVEMBER = "2026-11-30T23:59:59.999999"
FIRST_OF_DECEMBER = "2026-12-01T00:00"


def ns(text: str) -> int:
    when = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return int(when.timestamp()) * 10**9 + when.microsecond * 1000


def entry(**fields: str) -> str:
    """A price book with one good entry, but for ``fields``; an empty one is left out."""
    written = {
        "model": "m",
        "input_usd_per_million_tokens": "1",
        "output_usd_per_million_tokens": "2",
        "source": "test",
        **fields,
    }
    lines = [f"{name}: {value}" for name, value in written.items() if value]
    return "currency: USD\nprices:\n  - " + "\n    ".join(lines) + "\n"


def test_numbers_are_exact_and_their_unit_is_in_the_name() -> None:
    first = parse_book(GOOD, "p").entries[0].price
    assert (first.input, first.output, first.cached_input) == (Decimal("2e-7"), Decimal("6e-7"), Decimal("2e-8"))
    assert first.per_request == Decimal("0.001")
    assert first.nano_usd(10, 5, 4) == 1_004_280


def test_the_model_as_asked_comes_before_the_model_as_served() -> None:
    book = parse_book(GOOD, "p")
    found = [book.find(model, "mistral-7b", ns(LAST_OF_NOVEMBER)) for model in ("mistral", "another")]
    assert [of.source if of else None for of in found] == ["first contract", "whoever asks for it by another name"]
    assert book.find("another", "a third", 0) is None
    assert book.find("mistral-7b", None, 0) is None  # it is the name of a backend's model, not of a product


def test_the_last_day_is_included_and_the_next_price_follows_it_without_a_gap() -> None:
    book = parse_book(GOOD, "p")
    found = [book.find("mistral", None, ns(at)) for at in (LAST_OF_NOVEMBER, FIRST_OF_DECEMBER)]
    assert [of.source if of else None for of in found] == ["first contract", "second contract"]


def test_before_and_after_its_days_a_price_is_none() -> None:
    book = parse_book(entry(valid_from="2026-11-01", valid_until="2026-11-30"), "p")
    assert book.find("m", None, ns("2026-10-31T23:59:59")) is None
    assert book.find("m", None, ns(FIRST_OF_DECEMBER)) is None


def test_the_version_is_of_what_it_says_not_of_how_it_is_written() -> None:
    version = parse_book(GOOD, "p").version
    first, second, third = GOOD.split("  - ")[1:]
    reordered = "prices:\n  - " + "  - ".join([third, second, first]) + "currency: USD # and a comment\n"
    assert parse_book(reordered.replace("0.20", "0.2000").replace(".02\n", "2e-2\n"), "q").version == version
    for change in (("0.20", "0.21"), ("11-30", "11-29"), ("first contract", "a contract"), ("0.001", "0.002")):
        assert parse_book(GOOD.replace(*change), "p").version != version


@given(st.decimals(0, 1_000_000, allow_nan=False, allow_infinity=False, places=12))
def test_every_decimal_survives(amount: Decimal) -> None:
    (read,) = parse_book(entry(input_usd_per_million_tokens=str(amount)), "p").entries
    assert read.price.input * 10**6 == amount
    assert read.price.nano_usd(10**15, 0) == int(amount * 10**18)


BAD = {
    "negative": (entry(input_usd_per_million_tokens="-0.2"), 4, "'input_usd_per_million_tokens' is negative: -0.2"),
    "negative request": (entry(usd_per_request="-1e-9"), 7, "negative"),
    "NaN": (entry(output_usd_per_million_tokens=".nan"), 5, "must be a number such as 0.25, not '.nan'"),
    "nan": (entry(output_usd_per_million_tokens="nan"), 5, "must be a number"),
    "infinite": (entry(output_usd_per_million_tokens=".inf"), 5, "must be a number"),
    "no number": (entry(output_usd_per_million_tokens="cheap"), 5, "must be a number such as 0.25, not 'cheap'"),
    "bool": (entry(output_usd_per_million_tokens="yes"), 5, "must be a number"),
    "null": (entry(output_usd_per_million_tokens="null"), 5, "must be a number"),
    "base 60": (entry(output_usd_per_million_tokens="1:30"), 5, "must be a number"),
    "octal": (entry(output_usd_per_million_tokens="017"), 5, "must be a number"),
    "a list": (entry(output_usd_per_million_tokens="[1]"), 5, "must be a number such as 0.25, not a list"),
    "comma": (entry(output_usd_per_million_tokens="0,20"), 5, "must be a number"),
    "dollars": (entry(output_usd_per_million_tokens="$0.20"), 5, "must be a number"),
    "huge": (entry(output_usd_per_million_tokens="1e999"), 5, "more than 1,000,000; mind the unit"),
    "tiny": (entry(output_usd_per_million_tokens="1e-13"), 5, "more than 12 decimals; round it"),
    "cached dearer": (entry(cached_input_usd_per_million_tokens="1.5"), 7, "is one of them mistaken?"),
    "currency": (entry().replace("USD", "EUR", 1), 1, "the currency 'EUR' is not known; records are in USD"),
    "no currency": (entry().replace("currency: USD\n", ""), 1, "'currency' is missing; write 'currency: USD'"),
    "unknown field": (entry(input_cost_per_token="1"), 7, "the field 'input_cost_per_token' is not known; use model, "),
    "unknown at top": (entry() + "version: 1\n", 7, "the field 'version' is not known; use currency, prices"),
    "same field twice": (entry() + "    source: again\n", 7, "'source' stands in line 6 already; keep one"),
    "prices twice": (entry() + "prices: []\n", 7, "'prices' stands in line 3 already"),
    "no name": (entry(model=""), 3, "name either 'model', as callers ask for it, or 'served_model'"),
    "two names": (entry(served_model="s"), 3, "name either"),
    "name is a number": (entry(model="7"), 3, "must be a name, not '7'; a name that looks so goes in quotes"),
    "name is empty": (entry(model='""'), 3, "'model' must be words, not nothing"),
    "name is a mapping": (entry(model="{a: b}"), 3, "'model' must be words, not a mapping"),
    "name too long": (entry(model="m" * 257), 3, "256 printable characters at most"),
    "no output price": (entry(output_usd_per_million_tokens=""), 3, "tokens' of 'm' is missing"),
    "no source": (entry(source=""), 3, "'source' of 'm' is missing; say where the price comes from"),
    "no date": (entry(valid_from="soon"), 7, "'valid_from' must be a day such as 2026-11-01, in UTC, not 'soon'"),
    "impossible date": (entry(valid_from="2026-02-30"), 7, "must be a day"),
    "a time": (entry(valid_until="2026-11-01T12:00:00Z"), 7, "must be a day"),
    "ends before it begins": (entry(valid_from="2026-11-02", valid_until="2026-11-01"), 8, "before its 'valid_from'"),
    "duplicate": (entry() + entry()[22:], 7, "'m' has a price in line 3 already; keep one, or give both dates"),
    "overlap": (
        entry(valid_until="2026-11-30") + entry(valid_from="2026-11-30")[22:],
        8,
        "has a price for the same days in line 3; let that one end",
    ),
    "an entry is no mapping": ("currency: USD\nprices:\n  - mistral\n", 3, "a price is a set of fields"),
    "prices is no list": ("currency: USD\nprices:\n  mistral: 1\n", 3, "'prices' must be a list"),
    "no prices": ("currency: USD\n", 1, "'prices' is missing"),
    "prices is empty": ("currency: USD\nprices: []\n", 2, "'prices' is empty"),
    "a list at top": ("- 1\n", 1, "expected 'currency: USD' and 'prices:', not a list"),
    "merge key": (entry(**{"<<": "{}"}), 7, "the field '<<' is not known"),
    "not YAML": ("currency: USD\nprices: [\n", 3, "not YAML"),
    "tab": ("currency: USD\nprices:\n\t- model: m\n", 3, "not YAML"),
    "control character": ("currency: USD\nprices: \x07\n", 2, "not YAML: a character that may not stand there"),
    "two documents": (entry() + "---\n" + entry(), 7, "not YAML"),
    "unknown alias": ("currency: USD\nprices: *these\n", 2, "not YAML"),
    "empty": ("", 1, "empty; begin with"),
    "only a comment": ("# later\n", 1, "empty"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), BAD.values(), ids=BAD)
def test_a_mistake_names_file_and_line_and_what_to_do(text: str, line: int, words: str) -> None:
    with pytest.raises(PriceBookError) as refused:
        parse_book(text, "prices.yaml")
    assert [of for of in str(refused.value).splitlines() if of.startswith(f"price book prices.yaml, line {line}: ")]
    assert words in str(refused.value)


def test_every_mistake_is_named_at_once_in_the_order_of_the_file() -> None:
    text = GOOD.replace("USD\n", "CHF\n", 1).replace("0.30", "-1").replace("source: whoever", "sauce: whoever")
    with pytest.raises(PriceBookError) as refused:
        parse_book(text, "p")
    lines = [int(line.split("line ")[1].split(":")[0]) for line in str(refused.value).splitlines()]
    assert lines == [1, 11, 15, 18]


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(PriceBookError, match=r"nested too deeply|not YAML"):
        parse_book("[" * 100_000, "p")


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(PriceBookError, match=r"absent\.yaml: No such file or directory; name a file that can be read"):
        read_book(tmp_path / "absent.yaml")
    with pytest.raises(PriceBookError, match="Is a directory"):
        read_book(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(entry(source="caf\xe9").encode("latin-1"))
    with pytest.raises(PriceBookError, match="not UTF-8 text"):
        read_book(latin)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_book(text, "p")
    except PriceBookError as error:
        refused = error
    else:
        return
    assert str(refused).startswith("price book p, line ")
