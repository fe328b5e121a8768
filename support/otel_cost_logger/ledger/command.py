"""``python -m otel_cost_logger ledger``: look at a ledger, ask it, export it, send it again, keep it."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from otel_cost_logger.ledger import focus, maintenance
from otel_cost_logger.ledger.file import LedgerError, identity, open_for_reading
from otel_cost_logger.ledger.formats import write_csv, write_json_lines, write_parquet
from otel_cost_logger.ledger.reading import Status, Window, count, moment, status, usd
from otel_cost_logger.ledger.replay import exporter_to, replay, warning_of_age
from otel_cost_logger.ledger.write_ahead_log import log_of, size
from otel_cost_logger.ledger.writer import LedgerWriter
from otel_cost_logger.moments import moment_ns
from otel_cost_logger.new_file import new_file
from otel_cost_logger.otlp.sending import sender_for
from otel_cost_logger.settings import GRPC, HTTP_PROTOBUF, LEDGER_FILE
from otel_cost_logger.text_table import add_json_option, plain, print_json, table_lines

_WRITERS: dict[str, Callable[[sqlite3.Connection, Window, TextIO], int]] = {
    "csv": write_csv,
    "jsonl": write_json_lines,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that may follow ``ledger``."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--file", type=Path, help=f"the ledger; default: ${LEDGER_FILE}")
    window = argparse.ArgumentParser(add_help=False)
    window.add_argument("--since", type=moment_ns, help="spans that ended from then on, e.g. 2026-11-01 (UTC)")
    window.add_argument("--until", type=moment_ns, help="spans that ended before, e.g. 2026-12-01T00:00:00+01:00")
    commands = parser.add_subparsers(dest="ledger_command", metavar="COMMAND", required=True)

    command = commands.add_parser("status", parents=[shared], help="what is pending, dead, missing; totals per tenant")
    add_json_option(command)
    command.set_defaults(run=_status)

    command = commands.add_parser("query", parents=[shared], help="ask in SQL; the ledger is opened read-only")
    command.add_argument("sql", help='for example "SELECT tenant_id, sum(cost_nano_usd) FROM spans GROUP BY 1"')
    command.add_argument("--format", choices=("table", "csv", "json"), default="table")
    command.add_argument("--json", action="store_const", const="json", dest="format", help="as --format json")
    command.set_defaults(run=_query)

    command = commands.add_parser("export", parents=[shared, window], help="write spans as CSV, OTLP JSON or Parquet")
    command.add_argument("--format", choices=(*_WRITERS, "parquet"), required=True)
    command.add_argument("--out", type=Path, help="a new file; default: standard output (not for Parquet)")
    command.set_defaults(run=_export)

    words = f"write what was used and charged as FinOps FOCUS {focus.VERSION}, by day, tenant and model"
    command = commands.add_parser("focus", parents=[shared, window], help=words)
    command.add_argument("--format", choices=("csv", "parquet"), default="csv")
    command.add_argument("--out", type=Path, help="a new file; default: standard output (not for Parquet)")
    command.add_argument(
        "--provider", type=_words, default="Self-hosted", help="who runs the service; default: %(default)s"
    )
    command.add_argument(
        "--billing-account",
        type=_words,
        default="self-hosted",
        metavar="NAME",
        help="the account of all tenants; default: %(default)s",
    )
    command.set_defaults(run=_focus)

    command = commands.add_parser("replay", parents=[shared, window], help="send spans again, with their ids")
    command.add_argument("--to", required=True, metavar="URL", help="the collector, e.g. http://127.0.0.1:4318")
    protocols, words = (GRPC, HTTP_PROTOBUF), f"{GRPC} or {HTTP_PROTOBUF}; default: %(default)s"
    command.add_argument("--protocol", choices=protocols, default=HTTP_PROTOBUF, metavar="P", help=words)
    command.add_argument("--dead", action="store_true", help="only dead letters; those accepted are dead no longer")
    command.set_defaults(run=_replay)

    maintenance.add_arguments(commands, shared)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen command; 0, or 1 when something was left undone. Raises `LedgerError` with what to do."""
    path = arguments.file or os.environ.get(LEDGER_FILE)
    if not path:
        raise LedgerError(f"which ledger? Name its file with --file, or set {LEDGER_FILE}")
    code: int = arguments.run(Path(path), arguments)
    return code


def _status(path: Path, arguments: argparse.Namespace) -> int:
    with closing(open_for_reading(path)) as connection:
        found = status(connection)
        file, log = size(path), size(log_of(path))
    if arguments.json:
        print_json({"file_bytes": file, "log_bytes": log, **asdict(found), "settled": found.settled})
    else:
        print(f"{path} ({file + log:,} bytes" + (f", {log:,} of them in its write-ahead log)" if log else ")"))
        print("\n".join(_status_lines(found)))
    return 0


def _status_lines(found: Status) -> Iterator[str]:
    yield f"spans        {found.spans:,}, ended {moment(found.first_ns)} to {moment(found.last_ns)}"
    yield f"pending      {found.pending:,}, the oldest since {moment(found.oldest_pending_ns)}"
    if failure := found.export_failure:
        yield f"failing      since {moment(failure.since_ns)}, {failure.attempts:,} attempts, last at " + (
            f"{moment(failure.last_ns)}: {failure.reason}"
        )
    yield f"dead         {found.dead:,}"
    for reason, number in found.refusals:
        yield f"               {number:,}: {reason}"
    yield f"settled      {found.settled:,}"
    yield f"calls noted  {found.calls_seen:,}, in flight {found.calls_in_flight:,}, lost {found.calls_lost:,}"
    yield f"unwritten    {found.spans_unwritten:,}"
    yield ""
    names = ("tenant", "calls", "prompt tokens", "completion tokens", "cost in USD")
    lines = [
        (
            str(tenant.tenant_id),
            f"{tenant.calls:,}",
            f"{tenant.prompt_tokens:,}",
            f"{tenant.completion_tokens:,}",
            usd(tenant.cost_nano_usd),
        )
        for tenant in found.tenants
    ]
    yield from table_lines(names, lines, {0})


def _query(path: Path, arguments: argparse.Namespace) -> int:
    with closing(open_for_reading(path)) as connection:
        connection.set_authorizer(_this_file_only)
        try:
            found = connection.execute(arguments.sql)
            names = [column[0] for column in found.description or ()]
            rows = found.fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise LedgerError(f"the query failed: {error}") from error
    if arguments.format == "json":
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1, default=bytes.hex))
        return 0
    shown = [["" if value is None else _shown(value) for value in row] for row in rows]
    if arguments.format == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows([names, *shown])
    else:
        print("\n".join(table_lines(names, shown)))
    return 0


def _shown(value: object) -> str:
    return plain(value) if isinstance(value, float) else str(value)


def _this_file_only(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


def _export(path: Path, arguments: argparse.Namespace) -> int:
    window = _window(arguments)
    with closing(open_for_reading(path)) as connection:
        if arguments.out is None:
            if arguments.format == "parquet":
                raise LedgerError("Parquet is not text: name a file with --out")
            _WRITERS[arguments.format](connection, window, sys.stdout)
            return 0
        with new_file(arguments.out) as part:
            if arguments.format == "parquet":
                written = write_parquet(connection, window, part)
            else:
                with part.open("w", encoding="utf-8", newline="") as out:
                    written = _WRITERS[arguments.format](connection, window, out)
    print(f"{written:,} spans in {arguments.out}")
    return 0


def _focus(path: Path, arguments: argparse.Namespace) -> int:
    names = {"provider": arguments.provider, "billing_account": arguments.billing_account}
    with closing(open_for_reading(path)) as connection:
        found = focus.rows(connection, _window(arguments), **names)
        if arguments.out is None:
            if arguments.format == "parquet":
                raise LedgerError("Parquet is not text: name a file with --out")
            focus.write_csv(found, sys.stdout)
            return 0
        with new_file(arguments.out) as part:
            if arguments.format == "parquet":
                written = focus.write_parquet(found, part)
            else:
                with part.open("w", encoding="utf-8", newline="") as out:
                    written = focus.write_csv(found, out)
    print(f"{written:,} rows in {arguments.out}")
    return 0


def _replay(path: Path, arguments: argparse.Namespace) -> int:
    window = _window(arguments)
    sender = sender_for(exporter_to(arguments.to, arguments.protocol))
    file = identity(path)
    with closing(open_for_reading(path)) as connection:
        chosen = count(connection, window, dead=arguments.dead)
        if warning := warning_of_age(connection, window):
            print(warning, file=sys.stderr)
        try:
            done = replay(connection, window, sender, dead=arguments.dead)
        finally:
            sender.shutdown()
    if arguments.dead and done.accepted and file is not None:
        writer = LedgerWriter(path, exporting=False)
        if not writer.revive(file, done.accepted):
            raise LedgerError(f"{path} cannot be written: {len(done.accepted)} letters were accepted, but stay dead")
        writer.close()
    print(f"{len(done.accepted):,} of {chosen:,} spans accepted by {arguments.to}")
    if done.refused:
        print(f"{done.refused:,} refused: {done.reason}", file=sys.stderr)
    return 0 if len(done.accepted) == chosen else 1


def _window(arguments: argparse.Namespace) -> Window:
    window = Window(arguments.since, arguments.until)
    if window.since_ns is not None and window.until_ns is not None and window.since_ns >= window.until_ns:
        raise LedgerError("--since must be before --until")
    if window.since_ns is not None and window.since_ns > time.time_ns():
        raise LedgerError("--since is in the future: no span has ended then")
    return window


def _words(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not a name")
    return text
