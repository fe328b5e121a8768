"""``python -m otel_cost_logger prices``: check a price book, ask it, derive one from a GPU-hour and a measurement."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

from otel_cost_logger.moments import moment_ns
from otel_cost_logger.new_file import new_file
from otel_cost_logger.prices.book import Entry
from otel_cost_logger.prices.derive import DeriveError, Terms, arithmetic, book_text, header, read_result
from otel_cost_logger.prices.reading import PriceBookError, parse_book, read_book
from otel_cost_logger.settings import PRICES_FILE
from otel_cost_logger.text_table import Row, add_json_option, print_json

_MILLION = 10**6
_SHOWN_UTILISATIONS = (Decimal("0.3"), Decimal("0.6"), Decimal(1))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that may follow ``prices``."""
    commands = parser.add_subparsers(dest="prices_command", required=True)

    command = commands.add_parser("check", help="is this price book whole? Every mistake is named with its line")
    command.add_argument("file", type=Path)
    add_json_option(command)
    command.set_defaults(run=_check)

    command = commands.add_parser("show", help="which price does a model have, and where does it come from?")
    command.add_argument("model", help="as callers ask for it, or as the backend is asked")
    command.add_argument("--at", type=moment_ns, help="when the call begins, e.g. 2026-11-01 (UTC); default: now")
    command.add_argument("--file", type=Path, help=f"the price book; default: ${PRICES_FILE}")
    add_json_option(command)
    command.set_defaults(run=_show)

    command = commands.add_parser(
        "derive", help="prices from what a GPU-hour costs and what the engine was measured at"
    )
    command.add_argument("--gpu-hour-usd", type=_above_0, required=True, help="what one GPU costs for an hour")
    command.add_argument("--gpus", type=_count, default=1, help="GPUs that the measured engine ran on; default: 1")
    command.add_argument("--results", type=Path, required=True, metavar="FILE", help="a result of benchmark throughput")
    command.add_argument(
        "--utilisation",
        type=_share,
        action="append",
        help="the share of the hour that is used; may be repeated, a price book is written for a single one",
    )
    command.add_argument(
        "--cached-share",
        type=_share_or_0,
        default=Decimal(1),
        help="what a cached input token costs of another; it is not measured; default: 1, no discount",
    )
    command.add_argument("--model", default="mistral-7b", help="the name that callers ask for; default: %(default)s")
    command.add_argument("--valid-from", type=_day, help="the first day, in UTC; default: from always")
    command.add_argument("--anyway", action="store_true", help="also from a result that is not for quoting")
    command.add_argument("--out", type=Path, help="a new price book")
    command.set_defaults(run=_derive)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen command; returns 0. Raises `PriceBookError` or `DeriveError` with what to do."""
    code: int = arguments.run(arguments)
    return code


def _check(arguments: argparse.Namespace) -> int:
    book = read_book(arguments.file)
    names = {(entry.model, entry.served_model) for entry in book.entries}
    found = {"file": str(arguments.file), "prices": len(book.entries), "models": len(names), "version": book.version}
    if arguments.json:
        print_json(found)
    else:
        print("{file}: {prices} prices of {models} models, version {version}".format_map(found))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    path = arguments.file or os.environ.get(PRICES_FILE)
    if not path:
        raise PriceBookError(f"which price book? Name its file with --file, or set {PRICES_FILE}")
    book = read_book(Path(path))
    at_ns = arguments.at if arguments.at is not None else time.time_ns()
    entry = book.find(arguments.model, arguments.model, at_ns)
    if entry is None and arguments.json:
        print_json(None)
        return 1
    if entry is None:
        names = sorted({str(of.model or of.served_model) for of in book.entries})
        print(f"{arguments.model}: no price then in {path}; LiteLLM's applies. Priced at some time: {', '.join(names)}")
        return 1
    row = _row(entry, f"{path}, line {entry.line}", book.version)
    if arguments.json:
        print_json(row)
    else:
        print("\n".join(_lines(row)))
    return 0


def _row(entry: Entry, where: str, version: str) -> Row:
    price, cached = entry.price, entry.price.cached_input
    return {
        "model": entry.model or entry.served_model,
        "as": "asked" if entry.model else "served",
        "input_usd_per_million_tokens": _per_million(price.input),
        "cached_input_usd_per_million_tokens": None if cached is None else _per_million(cached),
        "output_usd_per_million_tokens": _per_million(price.output),
        "usd_per_request": f"{price.per_request:f}",
        "valid_from": None if entry.from_ns is None else _date(entry.from_ns),
        "valid_until": None if entry.until_ns is None else _date(entry.until_ns - 1),
        "source": entry.source,
        "stands_in": where,
        "version": version,
    }


def _lines(row: Row) -> list[str]:
    each, cached = "USD per million tokens", row["cached_input_usd_per_million_tokens"]
    last = f"until {row['valid_until']}, included" if row["valid_until"] else "for ever"
    return [
        f"{row['model']} (as {row['as']})",
        f"  input         {row['input_usd_per_million_tokens']} {each}",
        f"  cached input  {f'{cached} {each}' if cached else 'as other input'}",
        f"  output        {row['output_usd_per_million_tokens']} {each}",
        f"  per request   {row['usd_per_request']} USD",
        f"  valid         from {row['valid_from'] or 'always'} {last} (UTC)",
        f"  source        {row['source']}",
        f"  stands in     {row['stands_in']}; version",
        f"    {row['version']}",
    ]


def _per_million(usd: Decimal) -> str:
    return f"{(usd * _MILLION).normalize():f}"


def _date(nanoseconds: int) -> str:
    return date.fromordinal(date(1970, 1, 1).toordinal() + nanoseconds // (86_400 * 10**9)).isoformat()


def _derive(arguments: argparse.Namespace) -> int:
    measured = read_result(arguments.results, anyway=arguments.anyway)
    shares = arguments.utilisation or _SHOWN_UTILISATIONS
    terms = [Terms(arguments.gpu_hour_usd, arguments.gpus, share, arguments.cached_share) for share in shares]
    if len(terms) > 1:
        if arguments.out is not None:
            raise DeriveError("a model has one price at a time: name a single --utilisation for --out")
        print("\n".join([*header(measured), *(line for of in terms for line in arithmetic(measured, of))]))
        return 0
    text = book_text(measured, terms[0], arguments.model, arguments.valid_from)
    parse_book(text, str(arguments.out or "derived"))  # what is written can be read
    if arguments.out is None:
        print(text, end="")
        return 0
    with new_file(arguments.out) as part:
        part.write_text(text, encoding="utf-8")
    print(f"{text}# written to {arguments.out}")
    return 0


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2026-11-01") from error


def _decimal(text: str) -> Decimal:
    with suppress(InvalidOperation):
        number = Decimal(text)
        # More digits than any amount of money has would only slow down the arithmetic.
        if number.is_finite() and len(text) <= 20 and abs(number.adjusted()) <= 9:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 3.20")


def _above_0(text: str) -> Decimal:
    number = _decimal(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return number


def _share(text: str) -> Decimal:
    number = _above_0(text)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 1: a share of an hour such as 0.6")
    return number


def _share_or_0(text: str) -> Decimal:
    return Decimal(0) if not _decimal(text) else _share(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GPUs")
    return int(text)
