"""What the keys file may say, and what it means.

The file is JSON: ``{"version": 2, "keys": [{"sha256": HEX, "tenant": NAME, ...}, ...]}``. Beside those two an entry may
have ``alias`` (a name for the key; the tenant's by default), ``models`` (the only ones it may ask for), ``expires`` and
``revoked`` (points in time, UTC), and ``budget_usd`` (``{"day": X, "month": Y}``, what may be spent with this key).
Version 1 had the first three fields. Keys carry 192 random bits, so an unsalted SHA-256 cannot be reversed by guessing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from otel_cost_logger.keys.lines import Place, line_of
from otel_cost_logger.moments import parse_moment

VERSION = 2
FIELDS = ("sha256", "tenant", "alias", "models", "expires", "revoked", "budget_usd")
PERIODS = ("day", "month")
MAX_BUDGET_USD = Decimal(1_000_000_000)
MAX_NAME = 256  # characters; a record cuts names there, and two tenants must not become one

_DECIMAL_PLACES = (
    6  # with nine digits before the point a float still holds them exactly, so that files can be rewritten
)
_HEX = frozenset("0123456789abcdef")


class KeysFileError(ValueError):
    """The keys file cannot be used or changed so; the message names the file, the line and what to do."""


@dataclass(frozen=True, slots=True)
class TenantKey:
    """One entry of the keys file: the key's hash (never the key), its tenant, and a name for the key.

    ``models`` are the models that it may ask for, all when empty. From ``expires`` on, and once ``revoked`` is set, it
    opens nothing. ``budget_usd`` says by period (`PERIODS`) how many US dollars may be spent with it.
    """

    sha256: str
    tenant: str
    alias: str
    models: tuple[str, ...] = ()
    expires: datetime | None = None
    revoked: datetime | None = None
    budget_usd: Mapping[str, Decimal] = field(default_factory=lambda: MappingProxyType({}))

    def state(self, now: datetime) -> str:
        """``active``, ``expired`` or ``revoked`` at the time ``now``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


def hash_key(key: str) -> str:
    """The hexadecimal SHA-256 of ``key``, as it stands in the keys file."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def parse_keys(text: str, path: Path) -> dict[str, TenantKey]:
    """The entries of a keys file with the content ``text``, by hash.

    Raises `KeysFileError`, naming ``path`` and the line, for anything that is not what the file may say.
    """
    try:
        document = json.loads(text, parse_float=Decimal, parse_constant=_Constant, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        raise KeysFileError(
            f"keys file {path}, line {error.lineno}: not valid JSON: {error.msg} (column {error.colno}); correct it"
        ) from error
    except RecursionError:
        raise KeysFileError(f"keys file {path}: not a list of keys, but values nested without end") from None
    except ValueError as error:  # an integer of thousands of digits
        raise KeysFileError(f"keys file {path} cannot be read: {error}") from error
    try:
        return _keys(document)
    except _Wrong as wrong:
        line = line_of(text, wrong.place)
        where = f", line {line}" if line else f", at {'.'.join(map(str, wrong.place))}" if wrong.place else ""
        raise KeysFileError(f"keys file {path}{where}: {wrong}") from None


def moment_text(moment: datetime) -> str:
    """``moment`` as the keys file has it, to the second."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def checked_amount(value: object) -> Decimal:
    """A budget in US dollars. Raises ValueError, saying what is expected, for what is none."""
    amount = Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(amount, Decimal) or not amount.is_finite() or not 0 < amount <= MAX_BUDGET_USD:
        raise ValueError(f"a budget is a positive number of US dollars, at most {MAX_BUDGET_USD:,}")
    exponent = amount.normalize().as_tuple().exponent
    if not isinstance(exponent, int) or -exponent > _DECIMAL_PLACES:
        raise ValueError(f"a budget has at most {_DECIMAL_PLACES} decimal places")
    return amount


def checked_name(value: object) -> str:
    """The name of a tenant, a key or a model. Raises ValueError, saying what is expected, for what is none."""
    if not isinstance(value, str) or not value or value != value.strip() or len(value) > MAX_NAME:
        raise ValueError(f"must be a text of 1 to {MAX_NAME} characters, without spaces around it")
    if not value.isprintable():
        raise ValueError("must not hold control characters")
    return value


class _Object(dict[str, Any]):
    """A JSON object that remembers names it was given twice: JSON itself lets the last one win."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = None
        if len(self) < len(pairs):
            names = [name for name, _ in pairs]
            self.repeated = next(name for name in names if names.count(name) > 1)


class _Constant:
    """NaN or Infinity, which Python's JSON knows and JSON does not: wrong wherever it stands."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class _Wrong(Exception):
    """What is wrong, and where in the document: keys and indices from its top."""

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(problem)
        self.place = place


def _wrong(place: Place, problem: str) -> NoReturn:
    raise _Wrong(place, problem) from None


def _keys(document: object) -> dict[str, TenantKey]:
    if not isinstance(document, _Object):
        _wrong((), f'expected an object with a list under "keys", found {_kind(document)}')
    _known(document, (), ("version", "keys"))
    version = document.get("version", 1)
    if isinstance(version, bool) or version not in range(1, VERSION + 1):
        _wrong(
            ("version",), f'"version" is {version!r}; this plugin reads {VERSION} and earlier ones; install a newer one'
        )
    entries = document.get("keys")
    if not isinstance(entries, list):
        _wrong(("keys",) if "keys" in document else (), 'expected an object with a list under "keys"')
    keys: dict[str, TenantKey] = {}
    for index, entry in enumerate(entries):
        key = _entry(entry, ("keys", index))
        if key.sha256 in keys:
            _wrong(("keys", index, "sha256"), "the same key stands there twice; delete one of the entries")
        keys[key.sha256] = key
    return keys


def _entry(entry: object, place: Place) -> TenantKey:
    if not isinstance(entry, _Object):
        _wrong(place, f'expected an object with "sha256" and "tenant", found {_kind(entry)}')
    _known(entry, place, FIELDS)
    digest = entry.get("sha256")
    if not isinstance(digest, str) or len(digest) != 64 or set(digest) - _HEX:
        _wrong(
            (*place, "sha256") if "sha256" in entry else place,
            '"sha256" must be the 64 lower-case hexadecimal digits of the key\'s SHA-256',
        )
    tenant = _name(entry, place, "tenant")
    if tenant is None:
        _wrong(place, '"tenant" must be there: whose key is it?')
    return TenantKey(
        sha256=digest,
        tenant=tenant,
        alias=_name(entry, place, "alias") or tenant,
        models=_models(entry.get("models"), (*place, "models")),
        expires=_moment(entry, place, "expires"),
        revoked=_moment(entry, place, "revoked"),
        budget_usd=MappingProxyType(_budget(entry.get("budget_usd"), (*place, "budget_usd"))),
    )


def _known(found: _Object, place: Place, known: tuple[str, ...]) -> None:
    if found.repeated is not None:
        _wrong((*place, found.repeated), f'"{found.repeated}" stands there twice; delete one')
    for name in found:
        if name not in known:
            _wrong((*place, name), f'unknown field "{name}"; known are {", ".join(known)}')


def _name(entry: _Object, place: Place, field_: str) -> str | None:
    if (value := entry.get(field_)) is None:
        return None
    try:
        return checked_name(value)
    except ValueError as error:
        _wrong((*place, field_), f'"{field_}" {error}')


def _models(value: object, place: Place) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value:
        _wrong(place, '"models" must be a list of model names; leave it out where the key may ask for all')
    for index, model in enumerate(value):
        try:
            checked_name(model)
        except ValueError as error:
            _wrong((*place, index), f"a model's name {error}")
    return tuple(value)


def _moment(entry: _Object, place: Place, field_: str) -> datetime | None:
    if (value := entry.get(field_)) is None:
        return None
    try:
        if isinstance(value, str):
            return parse_moment(value)
    except (ValueError, OverflowError):
        pass
    _wrong((*place, field_), f'"{field_}" must be a time in UTC such as "2026-12-31T00:00:00Z", found {_kind(value)}')


def _budget(value: object, place: Place) -> dict[str, Decimal]:
    if value is None:
        return {}
    if not isinstance(value, _Object):
        _wrong(place, f'"budget_usd" must be an object such as {{"day": 5, "month": 100}}, found {_kind(value)}')
    if unknown := [period for period in value if period not in PERIODS]:
        _wrong((*place, unknown[0]), f'unknown period "{unknown[0]}"; known are {", ".join(PERIODS)}')
    _known(value, place, PERIODS)
    budget: dict[str, Decimal] = {}
    for period, amount in value.items():
        try:
            budget[period] = checked_amount(amount)
        except ValueError as error:
            _wrong((*place, period), f"{error}; found {_kind(amount)}")
    return budget


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = "null" if value is None else str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
