"""The price book: which price applies to which model, and when.

How its file looks and how it is read is said in `reading`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from otel_cost_logger.prices.price import Price


@dataclass(frozen=True, slots=True)
class Entry:
    """One price of one model, named either as callers ask for it (``model``) or as the backend is asked
    (``served_model``). It applies from ``from_ns`` on and before ``until_ns`` (nanoseconds since the epoch; None is
    open). ``source`` says where it comes from, ``line`` where it stands in the file."""

    model: str | None
    served_model: str | None
    price: Price
    from_ns: int | None
    until_ns: int | None
    source: str | None
    line: int

    def applies(self, at_ns: int) -> bool:
        """True when the price is in force at that time."""
        return (self.from_ns is None or self.from_ns <= at_ns) and (self.until_ns is None or at_ns < self.until_ns)


class PriceBook:
    """The entries of one price book, by model, and its ``version``, which is another as soon as anything is.

    No two entries for the same name may apply at the same time; `reading` refuses such a file.
    """

    def __init__(self, entries: Iterable[Entry], version: str) -> None:
        self.entries = tuple(entries)
        self.version = version
        self._by_model: dict[str | None, list[Entry]] = {}
        self._by_served_model: dict[str | None, list[Entry]] = {}
        for entry in self.entries:
            by_name = self._by_served_model if entry.model is None else self._by_model
            by_name.setdefault(entry.model or entry.served_model, []).append(entry)

    def find(self, model: str, served: str | None, at_ns: int) -> Entry | None:
        """The entry for a call that asked for ``model``, was served by ``served`` and began at ``at_ns``.

        An entry for the model as asked comes first: one engine may be sold under two names at two prices. Where none
        applies at that time, an entry for the model as served does; else None.
        """
        for entries in (self._by_model.get(model, ()), self._by_served_model.get(served, ())):
            for entry in entries:
                if entry.applies(at_ns):
                    return entry
        return None
