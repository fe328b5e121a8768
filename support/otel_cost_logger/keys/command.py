"""``python -m otel_cost_logger keys``: make a key for a tenant, list keys, revoke one, limit one in time."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from pathlib import Path

from otel_cost_logger.keys.entries import (
    PERIODS,
    KeysFileError,
    TenantKey,
    checked_amount,
    checked_name,
    moment_text,
)
from otel_cost_logger.keys.file import KEYS_FILE_VARIABLE, add_key, expire_key, read_keys, revoke_key
from otel_cost_logger.moments import moment
from otel_cost_logger.text_table import Column, Row, add_json_option, plain, show

_SHOWN_HASH = 12  # digits: enough to name a key, not enough to look one up elsewhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that may follow ``keys``."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--file", type=Path, help=f"the keys file; default: ${KEYS_FILE_VARIABLE}")
    commands = parser.add_subparsers(dest="keys_command", required=True)

    command = commands.add_parser("add", parents=[shared], help="make a key for a tenant; it is printed once")
    command.add_argument("tenant", type=_name, help="who pays for the calls that are made with it")
    command.add_argument("--alias", type=_name, help="a name for the key itself; default: the tenant's")
    command.add_argument(
        "--model", type=_name, action="append", default=[], metavar="M", help="may ask for this model; repeat for more"
    )
    command.add_argument(
        "--expires", type=_future, metavar="T", help="opens nothing from then on, e.g. 2026-12-31 (UTC)"
    )
    for period in PERIODS:
        command.add_argument(f"--budget-{period}", type=_amount, metavar="USD", help=f"may spend so much a {period}")
    command.set_defaults(run=_add)

    command = commands.add_parser("list", parents=[shared], help="the keys' names, limits and states; no hash whole")
    add_json_option(command)
    command.set_defaults(run=_list)

    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("key", help="its alias, or the first digits of its hash")
    command = commands.add_parser("revoke", parents=[shared, named], help="a key opens nothing any more, for good")
    command.set_defaults(run=_revoke)
    command = commands.add_parser("expire", parents=[shared, named], help="a key opens nothing from some time on")
    command.add_argument("--at", type=moment, metavar="T", help="e.g. 2026-12-31T12:00 (UTC); default: now")
    command.set_defaults(run=_expire)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen command; 0. Raises `KeysFileError` with what to do."""
    path = arguments.file or os.environ.get(KEYS_FILE_VARIABLE)
    if not path:
        raise KeysFileError(f"which keys file? Name it with --file, or set {KEYS_FILE_VARIABLE}")
    code: int = arguments.run(Path(path), arguments)
    return code


def _add(path: Path, arguments: argparse.Namespace) -> int:
    given = {period: getattr(arguments, f"budget_{period}") for period in PERIODS}
    key = add_key(
        path,
        arguments.tenant,
        arguments.alias,
        models=arguments.model,
        expires=arguments.expires,
        budget_usd={period: amount for period, amount in given.items() if amount is not None},
    )
    print(key)  # alone, so that a script can take it
    print("This is the only time that the key is shown: the file has its hash.", file=sys.stderr)
    return 0


def _list(path: Path, arguments: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    show([_row(key, now) for key in read_keys(path).values()], _COLUMNS, as_json=arguments.json)
    return 0


def _row(key: TenantKey, now: datetime) -> Row:
    return {
        "tenant": key.tenant,
        "alias": key.alias,
        "sha256_begins": key.sha256[:_SHOWN_HASH],
        "state": key.state(now),
        "expires": moment_text(key.expires) if key.expires else None,
        "revoked": moment_text(key.revoked) if key.revoked else None,
        "models": list(key.models),
        "budget_usd": {period: float(amount) for period, amount in key.budget_usd.items()},
    }


def _state(row: Row) -> str:
    if row["state"] == "active" and row["expires"]:
        return f"until {row['expires'].removesuffix('T00:00:00Z')}"
    return str(row["state"])


def _budget(row: Row) -> str:
    return "\n".join(f"{plain(amount)} a {period}" for period, amount in row["budget_usd"].items()) or "-"


_COLUMNS = (
    Column("tenant", itemgetter("tenant"), wraps=True),
    Column("alias", itemgetter("alias"), wraps=True),
    Column("hash", itemgetter("sha256_begins")),
    Column("state", _state),
    Column("models", lambda row: "\n".join(row["models"]) or "all", wraps=True),
    Column("budget in USD", _budget, wraps=True),
)


def _revoke(path: Path, arguments: argparse.Namespace) -> int:
    key = revoke_key(path, arguments.key)
    print(f"revoked: {key.alias} of {key.tenant}")
    return 0


def _expire(path: Path, arguments: argparse.Namespace) -> int:
    at = arguments.at or datetime.now(UTC)
    key = expire_key(path, arguments.key, at)
    verb = "expires" if at > datetime.now(UTC) else "has expired since"
    print(f"{verb} {moment_text(at)}: {key.alias} of {key.tenant}")
    return 0


def _name(text: str) -> str:
    try:
        return checked_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def _future(text: str) -> datetime:
    when = moment(text)
    if when <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text!r} ({moment_text(when)}) is past: such a key would open nothing")
    return when


def _amount(text: str) -> Decimal:
    try:
        return checked_amount(Decimal(text))
    except InvalidOperation as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of US dollars") from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
