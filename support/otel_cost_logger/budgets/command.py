"""``python -m otel_cost_logger budgets``: check a budgets file, and show how the budgets stand."""

from __future__ import annotations

import argparse
import os
import sqlite3
import time
from contextlib import closing
from operator import itemgetter
from pathlib import Path

from otel_cost_logger.budgets.book import BudgetBook, BudgetsFileError, read_budgets
from otel_cost_logger.budgets.budget import PERIODS, Budget, Standing, read_standings
from otel_cost_logger.keys.file import KEYS_FILE_VARIABLE, read_keys
from otel_cost_logger.ledger.file import open_for_reading
from otel_cost_logger.ledger.reading import usd
from otel_cost_logger.ledger.spend import has_spend
from otel_cost_logger.settings import BUDGETS_FILE, LEDGER_FILE
from otel_cost_logger.text_table import Column, Row, add_json_option, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that may follow ``budgets``."""
    commands = parser.add_subparsers(dest="budgets_command", required=True)

    command = commands.add_parser("check", help="is this file a budgets file, and what does it say?")
    command.add_argument("file", type=Path, nargs="?", help=f"default: ${BUDGETS_FILE}")
    add_json_option(command)
    command.set_defaults(run=_check)

    command = commands.add_parser("status", help="limit, spent, reserved and left of each budget")
    command.add_argument("--file", type=Path, help=f"the ledger; default: ${LEDGER_FILE}")
    command.add_argument("--budgets", type=Path, help=f"the budgets file; default: ${BUDGETS_FILE}")
    command.add_argument("--keys", type=Path, help=f"keys with budgets of their own; default: ${KEYS_FILE_VARIABLE}")
    add_json_option(command)
    command.set_defaults(run=_status)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen command; 0. Raises `BudgetsFileError`, `KeysFileError` or `LedgerError` with what to do."""
    code: int = arguments.run(arguments)
    return code


def _check(arguments: argparse.Namespace) -> int:
    path = _named(arguments.file, BUDGETS_FILE)
    if path is None:
        raise BudgetsFileError(f"which budgets file? Name it, or set {BUDGETS_FILE}")
    book = read_budgets(path)
    limits = [*book.tenants.items(), (None, book.default)]
    rows = [
        {"tenant_id": tenant, **{f"{period}_nano_usd": of.get(period) for period in PERIODS}} for tenant, of in limits
    ]
    tenants = Column("tenant", lambda row: row["tenant_id"] or "(every other tenant)", wraps=True)
    show(
        rows,
        (tenants, *(_amount(f"{period}_nano_usd", f"USD a {period}") for period in PERIODS)),
        as_json=arguments.json,
    )
    return 0


def _status(arguments: argparse.Namespace) -> int:
    ledger = _named(arguments.file, LEDGER_FILE)
    if ledger is None:
        raise BudgetsFileError(f"which ledger? Name its file with --file, or set {LEDGER_FILE}")
    budgets_file, keys_file = _named(arguments.budgets, BUDGETS_FILE), _named(arguments.keys, KEYS_FILE_VARIABLE)
    if budgets_file is None and keys_file is None:
        raise BudgetsFileError(f"which budgets? Name their file with --budgets, or set {BUDGETS_FILE}")
    book = read_budgets(budgets_file) if budgets_file else BudgetBook({}, {})
    with closing(open_for_reading(ledger)) as connection:
        connection.execute("BEGIN")  # one view of it for all questions
        if not has_spend(connection):
            words = "No call has been held to a budget yet: the proxy prepares the ledger for it with the first one."
            print("[]" if arguments.json else words)
            return 0
        tenants = [*book.tenants, *(tenant for tenant in _tenants(connection) if tenant not in book.tenants)]
        budgets = [budget for tenant in tenants for budget in book.of_tenant(tenant)]
        budgets += _of_keys(keys_file) if keys_file else []
        found = read_standings(connection, budgets, time.time_ns())
    show([_row(standing) for standing in found], _COLUMNS, as_json=arguments.json)
    return 0


def _row(standing: Standing) -> Row:
    return {
        "budget": standing.budget.whose,
        "tenant_id": standing.budget.tenant_id,
        "key_alias": standing.budget.key_alias,
        "period": standing.period,
        "limit_nano_usd": standing.budget.nano_usd,
        "spent_nano_usd": standing.spent,
        "reserved_nano_usd": standing.reserved.nano_usd,
        "left_nano_usd": standing.left,
        "resets_at": f"{standing.resets_at:%Y-%m-%dT%H:%MZ}",
    }


def _amount(field: str, heading: str) -> Column:
    return Column(heading, lambda row: "unlimited" if row[field] is None else _short(row[field]))


def _short(nano_usd: int) -> str:
    return usd(nano_usd).rstrip("0").rstrip(".")


_COLUMNS = (
    Column("budget in USD", itemgetter("budget"), wraps=True),
    Column("period", itemgetter("period")),
    *(_amount(f"{what}_nano_usd", what) for what in ("limit", "spent", "reserved", "left")),
)


def _tenants(connection: sqlite3.Connection) -> list[str]:
    """Those with a record: the default is for them, too."""
    return [tenant for (tenant,) in connection.execute("SELECT DISTINCT tenant_id FROM spend ORDER BY 1")]


def _of_keys(keys_file: Path) -> list[Budget]:
    return [
        Budget(key.tenant, period, int(limit * 10**9), key.alias)
        for key in read_keys(keys_file).values()
        for period, limit in key.budget_usd.items()
    ]


def _named(given: Path | None, variable: str) -> Path | None:
    name = os.environ.get(variable)
    return given or (Path(name) if name else None)
