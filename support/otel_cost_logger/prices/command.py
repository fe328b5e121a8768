"""``python -m otel_cost_logger prices``: check a price book, ask it, derive one from a GPU-hour and a measurement."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from otel_cost_logger.prices.book import Entry
from otel_cost_logger.prices.derive import DeriveError, Terms, arithmetic, book_text, header, read_result
from otel_cost_logger.prices.reading import PriceBookError, parse_book, read_book
from otel_cost_logger.settings import PRICES_FILE

_MILLION = 10**6
_SHOWN_UTILISATIONS = (Decimal("0.3"), Decimal("0.6"), Decimal(1))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that may follow ``prices``."""
    commands = parser.add_subparsers(dest="prices_command", required=True)

    command = commands.add_parser("check", help="is this price book whole? Every mistake is named with its line")
    command.add_argument("file", type=Path)
    command.set_defaults(run=_check)

    command = commands.add_parser("show", help="which price does a model have, and where does it come from?")
    command.add_argument("model", help="as callers ask for it, or as the backend is asked")
    command.add_argument("--at", type=_moment, help="when the call begins, e.g. 2026-11-01 (UTC); default: now")
    command.add_argument("--file", type=Path, help=f"the price book; default: ${PRICES_FILE}")
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
    print(f"{arguments.file}: {len(book.entries)} prices of {len(names)} models, version {book.version}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    path = arguments.file or os.environ.get(PRICES_FILE)
    if not path:
        raise PriceBookError(f"which price book? Name its file with --file, or set {PRICES_FILE}")
    book = read_book(Path(path))
    at_ns = arguments.at if arguments.at is not None else int(datetime.now(UTC).timestamp()) * 10**9
    entry = book.find(arguments.model, arguments.model, at_ns)
    if entry is None:
        names = sorted({str(of.model or of.served_model) for of in book.entries})
        print(f"{arguments.model}: no price then in {path}; LiteLLM's applies. Priced at some time: {', '.join(names)}")
        return 1
    print("\n".join(_lines(entry, f"{path}, line {entry.line}", book.version)))
    return 0


def _lines(entry: Entry, where: str, version: str) -> list[str]:
    price = entry.price
    cached = (
        "as other input" if price.cached_input is None else f"{_per_million(price.cached_input)} USD per million tokens"
    )
    first = "always" if entry.from_ns is None else _date(entry.from_ns)
    last = "for ever" if entry.until_ns is None else f"until {_date(entry.until_ns - 1)}, included"
    return [
        f"{entry.model or entry.served_model} ({'as asked' if entry.model else 'as served'})",
        f"  input         {_per_million(price.input)} USD per million tokens",
        f"  cached input  {cached}",
        f"  output        {_per_million(price.output)} USD per million tokens",
        f"  per request   {price.per_request:f} USD",
        f"  valid         from {first} {last} (UTC)",
        f"  source        {entry.source}",
        f"  stands in     {where}; version {version}",
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
    _write_new(arguments.out, text)
    print(f"{text}# written to {arguments.out}")
    return 0


def _write_new(path: Path, text: str) -> None:
    """Whole or not at all, and never over another file."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.link(part, path)  # where a rename would replace a file, a link fails
    except FileExistsError as error:
        raise DeriveError(f"{path} exists; name a new file") from error
    finally:
        part.unlink(missing_ok=True)


def _moment(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return int(when.timestamp()) * 10**9
    except (ValueError, OverflowError, OSError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date or time such as 2026-11-01T12:00") from error


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
