"""What a command found: as a table for a terminal, or as JSON for a program."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from typing import Any

WIDTH = 80  # characters, of the narrowest usual terminal
_NARROWEST = 8  # a column of words
_BETWEEN = "  "
_DECIMALS = 9  # of what is shown: billionths of a US dollar

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: what stands in it of a row. One that ``wraps`` takes several lines where room is short."""

    heading: str
    text: Callable[[Row], str]
    wraps: bool = False


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json``, read by `show`."""
    parser.add_argument("--json", action="store_true", help="for programs: every field, whole")


def show(rows: Sequence[Row], columns: Sequence[Column], *, as_json: bool) -> None:
    """Print ``rows``: their ``columns`` in `WIDTH` characters, or all that is in them as a list of JSON objects."""
    if as_json:
        print_json(list(rows))
        return
    wraps = {number for number, column in enumerate(columns) if column.wraps}
    cells = [[column.text(row) for column in columns] for row in rows]
    for line in table_lines([column.heading for column in columns], cells, wraps):
        print(line)


def print_json(found: object) -> None:
    """Print ``found`` as JSON."""
    print(json.dumps(found, indent=1, ensure_ascii=False))


def table_lines(
    names: Sequence[str], rows: Sequence[Sequence[str]], wraps: set[int] | frozenset[int] = frozenset()
) -> Iterator[str]:
    """The lines of a table with the columns ``names``, each as wide as its widest cell.

    A cell may have several lines. The columns numbered in ``wraps`` are made narrower until the table has `WIDTH`
    characters; numbers are never cut.
    """
    cells = [[text.split("\n") for text in row] for row in (names, *rows)]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(names))]
    while sum(widths) + len(_BETWEEN) * (len(widths) - 1) > WIDTH:
        width, column = max(((widths[column], column) for column in wraps), default=(0, 0))
        if width <= _NARROWEST:
            break
        widths[column] -= 1
    for row in cells:
        wrapped = [
            [part for line in lines for part in (textwrap.wrap(line, width) if len(line) > width else [line])]
            for lines, width in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*wrapped, fillvalue=""):
            yield _BETWEEN.join(text.ljust(width) for text, width in zip(parts, widths, strict=True)).rstrip()


def plain(number: float, decimals: int | None = _DECIMALS) -> str:
    """``number`` without an exponent, and with no more than ``decimals`` decimals (None: with all that it has).

    One that would become 0 keeps its own digits.
    """
    exact = Decimal(repr(number))
    if not exact.is_finite():
        return str(number)
    text = f"{exact:f}" if decimals is None else f"{exact:.{decimals}f}"
    if exact and not Decimal(text):
        text = f"{exact:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
