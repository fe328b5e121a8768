"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def table_lines(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table with the columns ``names``, each as wide as its widest cell."""
    cells = [list(names), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    for row in cells:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
