"""The price book's file: YAML that people write, read so that no number changes and no mistake passes.

::

    currency: USD            # prices are in US dollars, as the records are; no other currency is read
    prices:
      - model: mistral-7b                           # the name that callers ask for, or instead
        # served_model: mistral-7b                  # the name that the backend is asked for, without a provider
        input_usd_per_million_tokens: 0.20
        output_usd_per_million_tokens: 0.60         # reasoning tokens are output tokens
        cached_input_usd_per_million_tokens: 0.02   # input tokens from the prefix cache; without it as the others
        usd_per_request: 0                          # on top of the tokens, for a call that used any
        valid_from: 2026-11-01                      # UTC, from its first moment; without it from always
        valid_until: 2026-12-31                     # UTC, the last day, included; without it for ever
        source: contract 17 of October 2026         # where the price comes from, in words

``currency``, ``prices`` and per entry one name, ``input_...``, ``output_...`` and ``source`` are required. The text of
a number is its value: it never becomes a float. A model may stand there several times, for days that do not overlap. To
change a price, let the old entry end on one day and a new one begin on the next: a call is charged at the price of the
day on which it began, however late its record is written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import yaml

from otel_cost_logger.prices.book import Entry, PriceBook
from otel_cost_logger.prices.price import Price

MODEL, SERVED_MODEL = "model", "served_model"
INPUT = "input_usd_per_million_tokens"
OUTPUT = "output_usd_per_million_tokens"
CACHED_INPUT = "cached_input_usd_per_million_tokens"
PER_REQUEST = "usd_per_request"
VALID_FROM, VALID_UNTIL, SOURCE = "valid_from", "valid_until", "source"
FIELDS = (MODEL, SERVED_MODEL, INPUT, OUTPUT, CACHED_INPUT, PER_REQUEST, VALID_FROM, VALID_UNTIL, SOURCE)
CURRENCY, PRICES, USD = "currency", "prices", "USD"

DECIMALS = 12  # of a price in the file: a millionth of a millionth of a dollar
_MOST_USD = 1_000_000  # per million tokens and per request: whoever writes more has mistaken the unit
_MILLION_DIGITS = 6
_MOST_NAME = 256  # characters of a model's name in a record

_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = date(1970, 1, 1).toordinal()
_DAY_NS = 86_400 * 10**9
_TAG = "tag:yaml.org,2002:"

Fields = dict[str, yaml.Node]


class PriceBookError(ValueError):
    """A price book cannot be used. The message has a line for each mistake, with the file, its line and what to do."""


class _Mistake(Exception):
    """One mistake in the file, at a node."""

    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(what)
        self.line: int = node.start_mark.line + 1


def read_book(path: Path) -> PriceBook:
    """The price book in the file at ``path``. Raises `PriceBookError` with every mistake that is found in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PriceBookError(f"price book {path}: {error.strerror}; name a file that can be read") from error
    except UnicodeDecodeError as error:
        raise PriceBookError(f"price book {path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return parse_book(text, str(path))


def parse_book(text: str, name: str) -> PriceBook:
    """The price book that ``text`` holds; ``name`` is its file's, for the messages. Raises `PriceBookError`."""
    mistakes: list[_Mistake] = []
    entries: list[Entry] = []
    try:
        for node in _price_nodes(_composed(text, name), mistakes):
            try:
                entries.append(_entry(node, mistakes))
            except _Mistake as mistake:
                mistakes.append(mistake)
    except _Mistake as mistake:
        mistakes.append(mistake)
    lines = sorted([(mistake.line, str(mistake)) for mistake in mistakes] + list(_collisions(entries)))
    if lines:
        raise PriceBookError("\n".join(f"price book {name}, line {line}: {what}" for line, what in lines))
    return PriceBook(entries, version_of(entries))


def version_of(entries: list[Entry]) -> str:
    """A short fingerprint of what a price book says: comments, the order and 0.20 for 0.2 do not change it."""
    content = sorted(
        [
            entry.model or "",
            entry.served_model or "",
            *(_plain(amount) for amount in (entry.price.input, entry.price.output)),
            "" if entry.price.cached_input is None else _plain(entry.price.cached_input),
            _plain(entry.price.per_request),
            str(entry.from_ns),
            str(entry.until_ns),
            entry.source or "",
        ]
        for entry in entries
    )
    return "sha256:" + hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _plain(amount: Decimal) -> str:
    return format(amount.normalize(), "f") if amount else "0"


def _composed(text: str, name: str) -> yaml.Node:
    """The document as nodes: they know their lines, and their numbers are still text."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise PriceBookError(f"price book {name}{where}: not YAML: {error.problem}; correct it") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise PriceBookError(
            f"price book {name}, line {line}: not YAML: a character that may not stand there; delete it"
        ) from error
    except RecursionError as error:
        raise PriceBookError(f"price book {name}: nested too deeply to be a price book") from error
    if root is None:
        raise PriceBookError(f"price book {name}, line 1: empty; begin with '{CURRENCY}: {USD}' and '{PRICES}:'")
    return root


def _price_nodes(root: yaml.Node, mistakes: list[_Mistake]) -> list[yaml.Node]:
    """The entries' nodes. Notes what else is wrong at the top of the file."""
    if not isinstance(root, yaml.MappingNode):
        raise _Mistake(root, f"expected '{CURRENCY}: {USD}' and '{PRICES}:', not a {_kind(root)}")
    fields = _fields(root, (CURRENCY, PRICES), mistakes)
    if CURRENCY not in fields:
        mistakes.append(_Mistake(root, f"'{CURRENCY}' is missing; write '{CURRENCY}: {USD}'"))
    elif _text(fields[CURRENCY]) != USD:
        mistakes.append(
            _Mistake(
                fields[CURRENCY],
                f"the currency {_shown(fields[CURRENCY])} is not known; records are in {USD}: convert the prices",
            )
        )
    if PRICES not in fields:
        raise _Mistake(root, f"'{PRICES}' is missing: the list of prices")
    prices = fields[PRICES]
    if not isinstance(prices, yaml.SequenceNode):
        raise _Mistake(prices, f"'{PRICES}' must be a list, each entry beginning with '- ', not {_shown(prices)}")
    if not prices.value:
        raise _Mistake(prices, f"'{PRICES}' is empty; write at least one, or set no price book")
    return list(prices.value)


def _fields(node: yaml.MappingNode, known: tuple[str, ...], mistakes: list[_Mistake]) -> Fields:
    """The fields of a mapping by name. Notes those that are not known or stand there twice."""
    fields: Fields = {}
    for key, value in node.value:
        name = _text(key)
        if name not in known:
            mistakes.append(_Mistake(key, f"the field {_shown(key)} is not known; use {', '.join(known)}"))
        elif name in fields:
            first = fields[name].start_mark.line + 1
            mistakes.append(_Mistake(key, f"'{name}' stands in line {first} already; keep one of the two"))
        else:
            fields[name] = value
    return fields


def _entry(node: yaml.Node, mistakes: list[_Mistake]) -> Entry:
    if not isinstance(node, yaml.MappingNode):
        raise _Mistake(node, f"a price is a set of fields such as '{MODEL}: NAME', not {_shown(node)}")
    fields = _fields(node, FIELDS, mistakes)
    named = [name for name in (MODEL, SERVED_MODEL) if name in fields]
    if len(named) != 1:
        raise _Mistake(
            node, f"name either '{MODEL}', as callers ask for it, or '{SERVED_MODEL}', as the backend is asked"
        )
    name = _name(fields[named[0]], named[0])
    for required in (INPUT, OUTPUT, SOURCE):
        if required not in fields:
            hint = "say where the price comes from" if required == SOURCE else "write 0 if they cost nothing"
            raise _Mistake(node, f"'{required}' of {name!r} is missing; {hint}")
    first, last = (_day(fields.get(field), field) for field in (VALID_FROM, VALID_UNTIL))
    if first is not None and last is not None and last < first:
        raise _Mistake(fields[VALID_UNTIL], f"'{VALID_UNTIL}' of {name!r} is before its '{VALID_FROM}'")
    return Entry(
        model=name if named == [MODEL] else None,
        served_model=name if named == [SERVED_MODEL] else None,
        price=_price(fields),
        from_ns=None if first is None else first * _DAY_NS,
        until_ns=None if last is None else (last + 1) * _DAY_NS,
        source=_words(fields[SOURCE], SOURCE),
        line=node.start_mark.line + 1,
    )


def _price(fields: Fields) -> Price:
    input_, output = (_amount(fields[name], name).scaleb(-_MILLION_DIGITS) for name in (INPUT, OUTPUT))
    cached = None
    if CACHED_INPUT in fields:
        cached = _amount(fields[CACHED_INPUT], CACHED_INPUT).scaleb(-_MILLION_DIGITS)
        if cached > input_:
            raise _Mistake(fields[CACHED_INPUT], f"'{CACHED_INPUT}' is more than '{INPUT}'; is one of them mistaken?")
    per_request = _amount(fields[PER_REQUEST], PER_REQUEST) if PER_REQUEST in fields else Decimal(0)
    return Price(input_, output, cached, per_request)


def _amount(node: yaml.Node, field: str) -> Decimal:
    text = _text(node) or ""
    if not _NUMBER.fullmatch(text):
        raise _Mistake(node, f"'{field}' must be a number such as 0.25, not {_shown(node)}")
    amount = Decimal(text)
    if amount.is_signed() and amount:
        raise _Mistake(node, f"'{field}' is negative: {text}; a price is 0 or more")
    if amount > _MOST_USD:
        raise _Mistake(node, f"'{field}' is {text}, more than {_MOST_USD:,}; mind the unit")
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -DECIMALS:
        raise _Mistake(node, f"'{field}' is {text}, with more than {DECIMALS} decimals; round it")
    return abs(amount)


def _day(node: yaml.Node | None, field: str) -> int | None:
    """Days since the epoch."""
    if node is None:
        return None
    text = _text(node) or ""
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text).toordinal() - _EPOCH
    except ValueError as error:
        raise _Mistake(node, f"'{field}' must be a day such as 2026-11-01, in UTC, not {_shown(node)}") from error


def _name(node: yaml.Node, field: str) -> str:
    if _text(node) is not None and node.tag != f"{_TAG}str":
        raise _Mistake(node, f"'{field}' must be a name, not {_shown(node)}; a name that looks so goes in quotes")
    name = _words(node, field)
    if len(name) > _MOST_NAME or not name.isprintable():
        raise _Mistake(node, f"'{field}' can have {_MOST_NAME} printable characters at most; no call asks for this one")
    return name


def _words(node: yaml.Node, field: str) -> str:
    text = _text(node)
    if not text or not text.strip() or node.tag == f"{_TAG}null":
        raise _Mistake(node, f"'{field}' must be words, not {_shown(node)}")
    return text.strip()


def _text(node: yaml.Node) -> str | None:
    """A scalar as it stands in the file; None for a list or a mapping."""
    return node.value if isinstance(node, yaml.ScalarNode) else None


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "mapping"
    return "list" if isinstance(node, yaml.SequenceNode) else "single value"


def _shown(node: yaml.Node) -> str:
    text = _text(node)
    if text is None:
        return f"a {_kind(node)}"
    return repr(text if len(text) <= 40 else text[:40] + "...") if text else "nothing"


def _collisions(entries: list[Entry]) -> Iterator[tuple[int, str]]:
    """Entries for the same name and the same day, as (line, words)."""
    by_name: dict[tuple[str | None, str | None], list[Entry]] = {}
    for entry in entries:
        by_name.setdefault((entry.model, entry.served_model), []).append(entry)
    for same in by_name.values():
        for number, entry in enumerate(same):
            other = next((earlier for earlier in same[:number] if _overlap(entry, earlier)), None)
            if other is None:
                continue
            name = entry.model or entry.served_model
            if all(e.from_ns is None and e.until_ns is None for e in (entry, other)):
                yield entry.line, f"{name!r} has a price in line {other.line} already; keep one, or give both dates"
            else:
                yield (
                    entry.line,
                    f"{name!r} has a price for the same days in line {other.line}; let that one end ('{VALID_UNTIL}', "
                    f"the last day) before this one begins ('{VALID_FROM}')",
                )


def _overlap(one: Entry, other: Entry) -> bool:
    return _begins_before_end(one, other) and _begins_before_end(other, one)


def _begins_before_end(one: Entry, other: Entry) -> bool:
    return one.from_ns is None or other.until_ns is None or one.from_ns < other.until_ns
