"""The ledger as FOCUS: every row obeys the specification, and the sums are the ledger's, to the nano-dollar."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest

from otel_cost_logger.__main__ import main
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.focus import COLUMNS, VERSION

DAY = 86_400
FIRST = int(datetime(2026, 10, 31, tzinfo=UTC).timestamp())

# FOCUS 1.2, by the specification's own tables (its repository's tag v1.2): what every dataset must have, and of it
# what may be null. Apart from the code, so that the code cannot agree with itself alone.
MANDATORY = {
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
}
MAY_BE_NULL = {"BillingAccountName", "ChargeClass", "ChargeDescription", "PricingQuantity", "PricingUnit"}
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@pytest.fixture
def ledger(tmp_path: Path, make_spans: Any) -> Path:
    """Calls of two tenants on three days around the end of a month, with prices of every kind; rejected ones too."""
    path = tmp_path / "ledger.db"
    processor = DurableSpanProcessor(None, path, schedule_delay_millis=20)
    sources = [("price_book", "sha256:a"), ("price_book", "sha256:b"), ("cost_map", "litellm-1"), ("unpriced", None)]
    for number in range(60):
        source, version = sources[number % 4]
        tokens = {"llm.prompt_tokens": 10 + number, "llm.completion_tokens": 5, "llm.total_tokens": 15 + number}
        attributes = {
            "llm.tenant_id": ["acme", "zeta, inc."][number % 2],
            "llm.model": "mistral",
            "llm.cost_source": source,
            "llm.cost_nano_usd": 0 if source == "unpriced" else 333_333_333 + number,
            **tokens,
            **({"llm.price_version": version} if version else {}),
            **({"llm.cached_tokens": 3} if number % 4 == 0 else {}),
        }
        processor.on_end(make_spans(1, "call", **attributes)[0])
    rejected = {"llm.tenant_id": "unauthenticated", "llm.model": "x", "llm.cost_source": "not_charged"}
    zero = {"llm.prompt_tokens": 0, "llm.completion_tokens": 0, "llm.total_tokens": 0, "llm.cost_nano_usd": 0}
    processor.on_end(make_spans(1, "rejected", **rejected, **zero)[0])
    cached = {"llm.tenant_id": "acme", "llm.model": "mistral", "llm.cost_source": "not_charged"}
    processor.on_end(make_spans(1, "from the cache", **cached, **zero | tokens)[0])
    processor.on_end(make_spans(1, "timed out", **cached | {"llm.cost_source": "unknown"}, **zero)[0])
    processor.on_end(make_spans(1, "somebody else's span")[0])
    processor.on_end(make_spans(1, "a cost and no more", **{"llm.cost_nano_usd": 7})[0])
    processor.shutdown()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE spans SET end_ns = ({FIRST} + (id % 3) * {DAY} + id) * 1000000000")
    return path


def exported(ledger: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, str]]:
    assert main(["ledger", "focus", "--file", str(ledger), *more]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def total(ledger: Path, column: str) -> int:
    with closing(sqlite3.connect(ledger)) as connection:
        (value,) = connection.execute(f"SELECT sum({column}) FROM spans").fetchone()
    return int(value)


def test_the_table_of_columns_is_the_specifications() -> None:
    table = {column.name: column for column in COLUMNS}
    assert {name for name, column in table.items() if column.level == "Mandatory"} == MANDATORY
    assert {name for name in MANDATORY if table[name].nulls} == MAY_BE_NULL
    assert all(name.startswith("x_") == (column.level == "Custom") for name, column in table.items())
    assert VERSION == "1.2"


def test_every_row_obeys_the_specification(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = exported(ledger, capsys)
    assert len(rows) > 10
    for row in rows:
        assert list(row) == [column.name for column in COLUMNS]
        for column in COLUMNS:
            value = row[column.name]
            if value == "":
                assert column.nulls, column.name
            elif column.type == "Decimal":
                assert NUMBER.fullmatch(value), (column.name, value)
            elif column.type == "Date/Time":
                assert MOMENT.fullmatch(value), (column.name, value)
            elif column.type == "JSON":
                assert all(isinstance(of, str | None) for of in json.loads(value).values())
            else:
                assert value.strip(), column.name
            assert not column.allowed or value in (*column.allowed, *([""] if column.nulls else []))
        # What the specification says of one column by another.
        for unit, quantity in (("ConsumedUnit", "ConsumedQuantity"), ("PricingUnit", "PricingQuantity")):
            assert (row[unit], bool(row[quantity])) == ("Tokens", True)
        assert row["SkuId"]
        assert row["SkuPriceId"].startswith(row["SkuId"] + "@")
        assert row["SubAccountId"]
        assert row["SubAccountType"]
        assert re.fullmatch("[A-Z]{3}", row["BillingCurrency"])
        begin, end = (datetime.fromisoformat(row[f"ChargePeriod{which}"]) for which in ("Start", "End"))
        assert (end - begin).total_seconds() == DAY
        assert datetime.fromisoformat(row["BillingPeriodStart"]) <= begin < end
        assert end <= datetime.fromisoformat(row["BillingPeriodEnd"])
        assert datetime.fromisoformat(row["BillingPeriodStart"]).day == 1


@pytest.mark.parametrize("cost", ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost"])
def test_the_sums_are_the_ledgers_exactly(ledger: Path, capsys: pytest.CaptureFixture[str], cost: str) -> None:
    rows = exported(ledger, capsys)
    assert sum(Decimal(row[cost]) for row in rows) * 10**9 == total(ledger, "cost_nano_usd")
    assert sum(Decimal(row["ConsumedQuantity"]) for row in rows) == total(ledger, "total_tokens")
    for column, field in (
        ("x_InputTokens", "prompt_tokens"),
        ("x_OutputTokens", "completion_tokens"),
        ("x_CachedInputTokens", "cached_tokens"),
    ):
        assert sum(Decimal(row[column] or 0) for row in rows) == total(ledger, field)
    assert sum(int(row["x_Calls"]) for row in rows) == 63


def test_an_unpriced_charge_says_so_and_an_unknown_number_is_null(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = exported(ledger, capsys)
    unpriced = [row for row in rows if row["x_CostSource"] == "unpriced"]
    assert unpriced
    assert {(Decimal(row["EffectiveCost"]), row["x_PriceVersion"]) for row in unpriced} == {(Decimal(0), "")}
    assert all(row["ChargeDescription"].endswith("; nobody has a price") for row in unpriced)
    assert {row["x_CachedInputTokens"] for row in unpriced} == {""}


@pytest.mark.parametrize(
    ("source", "tokens", "words"),
    [("unknown", False, "; nobody has counted"), ("not_charged", True, "; from LiteLLM's cache")],
)
def test_counted_by_nobody_and_counted_before_are_rows_of_their_own(
    ledger: Path, capsys: pytest.CaptureFixture[str], source: str, tokens: bool, words: str
) -> None:
    (row,) = [
        row for row in exported(ledger, capsys) if row["x_CostSource"] == source and row["SubAccountId"] == "acme"
    ]
    assert (Decimal(row["EffectiveCost"]), Decimal(row["ConsumedQuantity"]) > 0) == (0, tokens)
    assert row["ChargeDescription"] == f"1 calls of mistral{words}"


def test_the_end_of_a_month_divides_billing_periods(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    periods = {(row["ChargePeriodStart"][:10], row["BillingPeriodStart"][:10]) for row in exported(ledger, capsys)}
    assert periods == {("2026-10-31", "2026-10-01"), ("2026-11-01", "2026-11-01"), ("2026-11-02", "2026-11-01")}
    november = exported(ledger, capsys, "--since", "2026-11-01", "--until", "2026-11-02")
    assert {row["ChargePeriodStart"] for row in november} == {"2026-11-01T00:00:00Z"}


def test_parquet_has_the_same_rows_with_decimals(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = exported(ledger, capsys)
    out = tmp_path / "focus.parquet"
    assert main(["ledger", "focus", "--file", str(ledger), "--format", "parquet", "--out", str(out)]) == 0
    assert f"{len(rows)} rows in " in capsys.readouterr().out
    table = pyarrow.parquet.read_table(out)
    assert table.column_names == [column.name for column in COLUMNS]
    assert [field.nullable for field in table.schema] == [column.nulls for column in COLUMNS]
    ((cost,),) = duckdb.sql(f"SELECT sum(EffectiveCost) FROM '{out}'").fetchall()
    assert cost == sum(Decimal(row["EffectiveCost"]) for row in rows)


def test_names_of_provider_and_account_are_the_operators(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = exported(ledger, capsys, "--provider", "Platform, team", "--billing-account", "4711")[0]
    names = ("ProviderName", "PublisherName", "InvoiceIssuerName", "BillingAccountId")
    assert [row[name] for name in names] == ["Platform, team"] * 3 + ["4711"]
    with pytest.raises(SystemExit):
        main(["ledger", "focus", "--file", str(ledger), "--provider", " "])


def test_parquet_wants_a_file_and_an_empty_ledger_gives_the_header(
    tmp_path: Path, ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "focus", "--file", str(ledger), "--format", "parquet"]) == 2
    assert "name a file with --out" in capsys.readouterr().err
    assert exported(ledger, capsys, "--until", "2020-01-01") == []
    out = tmp_path / "none.csv"
    assert main(["ledger", "focus", "--file", str(ledger), "--until", "2020-01-01", "--out", str(out)]) == 0
    assert out.read_text().startswith("BilledCost,BillingAccountId,")
