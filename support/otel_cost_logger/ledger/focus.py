"""The ledger as a FinOps FOCUS dataset: https://focus.finops.org, version 1.2, "Cost and Usage".

One row per UTC day (that on which the calls ended), tenant, model as asked for, whose price it was and which version
of it. A row's cost is the sum of its records' nano-dollars, exactly. The ledger holds one cost for each call, and it is
not split into input and output afterwards: prices may have changed since. So a row has one quantity, its tokens, and no
unit prices; how many tokens were input, cached or output is in columns of our own (``x_...``), null where no record
knows. Calls for which no engine worked are no charge and in no row, those that nobody counted are rows without tokens,
and tokens from LiteLLM's cache are rows without a cost. A day that is not over, or that ``--since``
or ``--until`` cuts, is a row of what it has so far: export whole days to add files up.

FOCUS has more conditional columns, for what a ledger of calls does not know: commitments, regions, invoices, resources.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TextIO

from otel_cost_logger.ledger.file import LedgerError
from otel_cost_logger.ledger.reading import Window

VERSION = "1.2"
STRING, DECIMAL, DATE_TIME, JSON = "String", "Decimal", "Date/Time", "JSON"
MANDATORY, RECOMMENDED, CONDITIONAL, CUSTOM = "Mandatory", "Recommended", "Conditional", "Custom"

Value = str | Decimal | datetime | None
Row = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the specification (or, with level Custom, of ours): its feature level, data type, whether it may be
    null, and the values it may have, where they are listed."""

    name: str
    level: Literal["Mandatory", "Recommended", "Conditional", "Custom"]
    type: Literal["String", "Decimal", "Date/Time", "JSON"]
    nulls: bool
    allowed: tuple[str, ...] = ()


_CHARGE_CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")
_FREQUENCIES = ("One-Time", "Recurring", "Usage-Based")
_PRICING_CATEGORIES = ("Standard", "Dynamic", "Committed", "Other")
_SERVICE_CATEGORIES = (
    "AI and Machine Learning",
    "Analytics",
    "Business Applications",
    "Compute",
    "Databases",
    "Developer Tools",
    "Multicloud",
    "Identity",
    "Integration",
    "Internet of Things",
    "Management and Governance",
    "Media",
    "Migration",
    "Mobile",
    "Networking",
    "Security",
    "Storage",
    "Web",
    "Other",
)
_AI_SUBCATEGORIES = (
    "AI Platforms",
    "Bots",
    "Generative AI",
    "Machine Learning",
    "Natural Language Processing",
    "Other (AI and Machine Learning)",
)

# All columns that FOCUS 1.2 demands of every dataset, and of the others those that a ledger can fill.
COLUMNS: tuple[Column, ...] = (
    Column("BilledCost", "Mandatory", "Decimal", False),
    Column("BillingAccountId", "Mandatory", "String", False),
    Column("BillingAccountName", "Mandatory", "String", True),
    Column("BillingCurrency", "Mandatory", "String", False),
    Column("BillingPeriodEnd", "Mandatory", "Date/Time", False),
    Column("BillingPeriodStart", "Mandatory", "Date/Time", False),
    Column("ChargeCategory", "Mandatory", "String", False, _CHARGE_CATEGORIES),
    Column("ChargeClass", "Mandatory", "String", True, ("Correction",)),
    Column("ChargeDescription", "Mandatory", "String", True),
    Column("ChargeFrequency", "Recommended", "String", False, _FREQUENCIES),
    Column("ChargePeriodEnd", "Mandatory", "Date/Time", False),
    Column("ChargePeriodStart", "Mandatory", "Date/Time", False),
    Column("ConsumedQuantity", "Conditional", "Decimal", True),
    Column("ConsumedUnit", "Conditional", "String", True),
    Column("ContractedCost", "Mandatory", "Decimal", False),
    Column("EffectiveCost", "Mandatory", "Decimal", False),
    Column("InvoiceIssuerName", "Mandatory", "String", False),
    Column("ListCost", "Mandatory", "Decimal", False),
    Column("PricingCategory", "Conditional", "String", True, _PRICING_CATEGORIES),
    Column("PricingQuantity", "Mandatory", "Decimal", True),
    Column("PricingUnit", "Mandatory", "String", True),
    Column("ProviderName", "Mandatory", "String", False),
    Column("PublisherName", "Mandatory", "String", False),
    Column("ServiceCategory", "Mandatory", "String", False, _SERVICE_CATEGORIES),
    Column("ServiceName", "Mandatory", "String", False),
    Column("ServiceSubcategory", "Recommended", "String", False, _AI_SUBCATEGORIES),
    Column("SkuId", "Conditional", "String", True),
    Column("SkuMeter", "Conditional", "String", True),
    Column("SkuPriceId", "Conditional", "String", True),
    Column("SubAccountId", "Conditional", "String", True),
    Column("SubAccountName", "Conditional", "String", True),
    Column("SubAccountType", "Conditional", "String", True),
    Column("Tags", "Conditional", "JSON", True),
    Column("x_Calls", "Custom", "Decimal", False),
    Column("x_InputTokens", "Custom", "Decimal", False),
    Column("x_CachedInputTokens", "Custom", "Decimal", True),
    Column("x_OutputTokens", "Custom", "Decimal", False),
    Column("x_ReasoningTokens", "Custom", "Decimal", True),
    Column("x_CostSource", "Custom", "String", False),
    Column("x_PriceVersion", "Custom", "String", True),
)

_DAY_NS = 86_400 * 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = 9  # a nano-dollar
_WITHOUT_COST = {  # by cost source
    "unpriced": "; nobody has a price",
    "unknown": "; nobody has counted",
    "not_charged": "; from LiteLLM's cache",
}
_TOKENS = "Tokens"  # as the specification's list of units spells it
_SELECT = (
    "SELECT s.end_ns / ? AS day, coalesce(s.tenant_id, 'unknown') AS tenant, coalesce(s.model, 'unknown') AS sku, "
    "coalesce(s.cost_source, 'unknown') AS source, s.price_version AS version, count(*), "
    "coalesce(sum(s.prompt_tokens), 0), sum(s.cached_tokens), coalesce(sum(s.completion_tokens), 0), "
    "sum(s.reasoning_tokens), coalesce(sum(s.cost_nano_usd), 0) FROM spans s WHERE {} "
    "AND (s.total_tokens != 0 OR s.cost_nano_usd != 0 OR s.cost_source = 'unknown') "
    "GROUP BY day, tenant, sku, source, version ORDER BY day, tenant, sku, source, version"
)


def rows(connection: sqlite3.Connection, window: Window, *, provider: str, billing_account: str) -> Iterator[Row]:
    """The rows of the calls that ended in ``window``, by day, tenant and model.

    ``provider`` is who runs the service, ``billing_account`` the account that all tenants belong to.
    """
    condition, values = window.condition()
    found = connection.execute(_SELECT.format(condition), [_DAY_NS, *values])
    for day, tenant, model, source, version, calls, prompt, cached, completion, reasoning, nano_usd in found:
        begin = _EPOCH + timedelta(days=day)
        month = begin.replace(day=1)
        cost, tokens = Decimal(nano_usd).scaleb(-_DIGITS), Decimal(prompt + completion)
        yield {
            "BilledCost": cost,
            "BillingAccountId": billing_account,
            "BillingAccountName": None,
            "BillingCurrency": "USD",
            "BillingPeriodEnd": (month + timedelta(days=31)).replace(day=1),
            "BillingPeriodStart": month,
            "ChargeCategory": "Usage",
            "ChargeClass": None,
            "ChargeDescription": f"{calls} calls of {model}{'' if nano_usd else _WITHOUT_COST.get(source, '')}",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodEnd": begin + timedelta(days=1),
            "ChargePeriodStart": begin,
            "ConsumedQuantity": tokens,
            "ConsumedUnit": _TOKENS,
            "ContractedCost": cost,
            "EffectiveCost": cost,
            "InvoiceIssuerName": provider,
            "ListCost": cost,
            "PricingCategory": "Standard",
            "PricingQuantity": tokens,
            "PricingUnit": _TOKENS,
            "ProviderName": provider,
            "PublisherName": provider,
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": "LLM inference",
            "ServiceSubcategory": "Generative AI",
            "SkuId": model,
            "SkuMeter": "Input and output tokens",
            "SkuPriceId": f"{model}@{version or source}",
            "SubAccountId": tenant,
            "SubAccountName": tenant,
            "SubAccountType": "Tenant",
            "Tags": json.dumps({"llm/cost_source": source, "llm/price_version": version}),
            "x_Calls": Decimal(calls),
            "x_InputTokens": Decimal(prompt),
            "x_CachedInputTokens": _number(cached),
            "x_OutputTokens": Decimal(completion),
            "x_ReasoningTokens": _number(reasoning),
            "x_CostSource": source,
            "x_PriceVersion": version,
        }


def write_csv(found: Iterator[Row], out: TextIO) -> int:
    """One line per row below a line of column names; null is an empty field. Returns the number of rows."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    written = 0
    for row in found:
        writer.writerow([_text(row[column.name]) for column in COLUMNS])
        written += 1
    return written


def write_parquet(found: Iterator[Row], path: Path) -> int:
    """A Parquet file whose amounts are decimals. Returns the number of rows. Raises `LedgerError` where pyarrow is not
    installed."""
    try:
        pyarrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise LedgerError("Parquet needs pyarrow, which is not installed: pip install pyarrow, or write CSV") from error
    types = {
        STRING: pyarrow.string(),
        JSON: pyarrow.string(),
        DECIMAL: pyarrow.decimal128(38, _DIGITS),
        DATE_TIME: pyarrow.timestamp("ms", tz="UTC"),
    }
    schema = pyarrow.schema(
        [pyarrow.field(column.name, types[column.type], nullable=column.nulls) for column in COLUMNS],
        metadata={"FOCUS_version": VERSION},
    )
    table = pyarrow.Table.from_pylist(list(found), schema=schema)
    parquet.write_table(table, path)
    return int(table.num_rows)


def _number(count: int | None) -> Decimal | None:
    return None if count is None else Decimal(count)


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{value:f}" if isinstance(value, Decimal) else value
