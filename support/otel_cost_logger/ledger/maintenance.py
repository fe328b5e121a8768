"""``python -m otel_cost_logger ledger backup``, ``restore``, ``check`` and ``prune``: care for the file."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from otel_cost_logger.ledger.backup import backup, copied_in_use, restore
from otel_cost_logger.ledger.check import check
from otel_cost_logger.ledger.file import LedgerError, identity, open_any_version, open_for_reading
from otel_cost_logger.ledger.reading import moment, usd
from otel_cost_logger.ledger.retention import calls_going, going, ids_going
from otel_cost_logger.ledger.writer import LedgerWriter
from otel_cost_logger.text_table import Column, add_json_option, print_json, show


def add_arguments(commands: Any, shared: argparse.ArgumentParser) -> None:
    """These commands, each with the arguments of ``shared``."""
    command = commands.add_parser("backup", parents=[shared], help="a copy in one file, also while the proxy runs")
    command.add_argument("copy", type=Path, help="a new file")
    command.set_defaults(run=_backup)

    command = commands.add_parser("restore", parents=[shared], help="put a copy in the ledger's place")
    command.add_argument("copy", type=Path, help="what `backup` has written")
    command.add_argument("--yes", action="store_true", help="also where there is a ledger: it gets another name")
    command.set_defaults(run=_restore)

    command = commands.add_parser("check", parents=[shared], help="is the ledger, or a copy of one, sound?")
    add_json_option(command)
    command.set_defaults(run=_check)

    command = commands.add_parser("prune", parents=[shared], help="delete old spans that are not to be sent any more")
    command.add_argument("--days", type=_days, required=True, help="keep those written in the last so many days")
    command.add_argument("--yes", action="store_true", help="delete them; otherwise they are only counted")
    add_json_option(command)
    command.set_defaults(run=_prune)


def _backup(path: Path, arguments: argparse.Namespace) -> int:
    spans = backup(path, arguments.copy)
    print(f"{spans:,} spans in {arguments.copy} ({arguments.copy.stat().st_size:,} bytes)")
    return 0


def _restore(path: Path, arguments: argparse.Namespace) -> int:
    if doubt := copied_in_use(arguments.copy):
        print(f"doubtful: {doubt}", file=sys.stderr)
    spans, aside = restore(arguments.copy, path, replace=arguments.yes)
    if aside is not None:
        print(f"what was there is now {aside}")
    print(f"{spans:,} spans in {path}")
    return 0


def _check(path: Path, arguments: argparse.Namespace) -> int:
    if doubt := copied_in_use(path):
        print(f"doubtful: {doubt}", file=sys.stderr)
    with closing(open_any_version(path)) as connection:
        found = check(connection)
    if arguments.json:
        print_json(asdict(found))
    elif found.wrong:
        print("\n".join(f"wrong: {words}" for words in found.wrong))
    else:
        print(f"sound: {path}, schema {found.schema}")
        print(f"{found.rows['spans']:,} spans, {usd(found.cost_nano_usd)} USD")
        if found.pruned_nano_usd:
            print(f"{usd(found.pruned_nano_usd)} USD were spent by records that are pruned")
    return 1 if found.wrong else 0


def _prune(path: Path, arguments: argparse.Namespace) -> int:
    limit, file, deleted = time.time_ns() - int(arguments.days * 86_400 * 1e9), identity(path), 0
    with closing(open_for_reading(path)) as connection:
        connection.execute("BEGIN")  # what is shown is what goes
        tenants = [asdict(tenant) for tenant in going(connection, limit)]
        calls = calls_going(connection, limit)
        if arguments.yes and file is not None:
            writer = LedgerWriter(path, exporting=False)
            for ids in ids_going(connection, limit):
                if not writer.delete(file, ids):
                    raise LedgerError(f"{path} cannot be written; {deleted:,} spans were pruned before")
                deleted += len(ids)
            writer.forget_processes(file, limit)
            writer.close()
    spans = sum(tenant["spans"] for tenant in tenants)
    if arguments.json:
        print_json({"spans": spans, "calls_without_record": calls, "deleted": arguments.yes, "tenants": tenants})
        return 0
    if tenants:
        show(tenants, _GOING, as_json=False)
    if calls:
        print(f"and {calls:,} calls without a record")
    print(f"{deleted:,} spans pruned" if arguments.yes else f"{spans:,} spans would go; --yes deletes them")
    return 0


_GOING = (
    Column("tenant", lambda row: str(row["tenant_id"]), wraps=True),
    Column("spans", lambda row: f"{row['spans']:,}"),
    Column("ended from", lambda row: moment(row["first_ns"])),
    Column("to", lambda row: moment(row["last_ns"])),
    Column("cost in USD", lambda row: usd(row["cost_nano_usd"])),
)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return days
