"""The keys file on disk: read whole, changed under a lock, replaced in one step.

Several processes may change it at once, and a proxy reads it at any moment. Whoever changes it holds the lock on the
file ``NAME.lock`` beside it; whoever reads sees the old content or the new one.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from otel_cost_logger.file_lock import locked
from otel_cost_logger.keys.entries import (
    VERSION,
    KeysFileError,
    TenantKey,
    checked_amount,
    checked_name,
    hash_key,
    moment_text,
    parse_keys,
)

KEYS_FILE_VARIABLE = "OTEL_COST_LOGGER_KEYS_FILE"
MIN_PREFIX = 6  # hexadecimal digits of a hash that name a key

_LOCKED_SECONDS = 10.0
_OWN_ERRORS = (KeysFileError, TimeoutError)


def read_keys(path: Path) -> dict[str, TenantKey]:
    """Read the keys file at ``path``; returns its entries by hash.

    Raises `KeysFileError` when the file is missing or says anything that it may not say.
    """
    return parse_keys(_text(path), path)


def add_key(
    path: Path,
    tenant: str,
    alias: str | None = None,
    *,
    models: Sequence[str] = (),
    expires: datetime | None = None,
    budget_usd: Mapping[str, Decimal] | None = None,
) -> str:
    """Make a new key for ``tenant``, store its hash in the file at ``path`` and return the key itself.

    The key exists only in the return value. The file is created when missing, and readable by its owner alone.
    ``alias`` defaults to the tenant's name, with a number where another key has that already. Raises `KeysFileError`
    for an alias that is in use, for what the file may not say, and when an existing file cannot be used.
    """
    key = "sk-" + secrets.token_hex(24)

    def add(document: dict[str, Any], keys: dict[str, TenantKey]) -> None:
        used = {known.alias for known in keys.values() if known.revoked is None}
        if alias is not None and alias in used:
            raise KeysFileError(
                f"keys file {path}: there is a key {alias!r} already; choose another alias, or revoke it"
            )
        entry: dict[str, Any] = {"sha256": hash_key(key), "tenant": tenant, "alias": alias or _free_name(tenant, used)}
        if models:
            entry["models"] = list(models)
        if expires is not None:
            entry["expires"] = moment_text(expires)
        if budget_usd:
            entry["budget_usd"] = {period: _number(amount) for period, amount in budget_usd.items()}
        document["keys"].append(entry)

    for name in (tenant, *([] if alias is None else [alias]), *models):
        _checked(checked_name, name)
    for amount in (budget_usd or {}).values():
        _checked(checked_amount, amount)
    _change(path, add, create=True)
    return key


def revoke_key(path: Path, name: str, now: datetime | None = None) -> TenantKey:
    """Revoke the key called ``name`` (alias, or the first digits of its hash) for good; returns its entry as it was.

    Raises `KeysFileError` when no key that is not revoked, or more than one, has that name.
    """
    return _set(path, name, "revoked", moment_text(now or datetime.now(UTC)))


def expire_key(path: Path, name: str, at: datetime | None = None) -> TenantKey:
    """Let the key called ``name`` open nothing from ``at`` on (default: now); returns its entry as it was.

    An earlier limit is replaced, so this also extends one. Raises as `revoke_key` does.
    """
    return _set(path, name, "expires", moment_text(at or datetime.now(UTC)))


def _set(path: Path, name: str, field: str, value: str) -> TenantKey:
    found: list[TenantKey] = []

    def change(document: dict[str, Any], keys: dict[str, TenantKey]) -> None:
        found.append(_named(path, keys, name))
        (entry,) = [entry for entry in document["keys"] if entry["sha256"] == found[0].sha256]
        entry[field] = value

    _change(path, change)
    return found[0]


def _named(path: Path, keys: Mapping[str, TenantKey], name: str) -> TenantKey:
    usable = [key for key in keys.values() if key.revoked is None]
    found = [key for key in usable if key.alias == name]
    if not found and len(name) >= MIN_PREFIX:
        found = [key for key in usable if key.sha256.startswith(name.lower())]
    if not found:
        raise KeysFileError(
            f"keys file {path}: no key that is not revoked has the alias {name!r}, or a hash that begins so "
            f"({MIN_PREFIX} digits or more); `keys list` shows them"
        )
    if len(found) > 1:
        hashes = ", ".join(key.sha256[:12] for key in found)
        raise KeysFileError(f"keys file {path}: {len(found)} keys are called {name!r}; name one by its hash: {hashes}")
    return found[0]


def _free_name(tenant: str, used: set[str]) -> str:
    name, number = tenant, 2
    while name in used:
        name, number = f"{tenant}-{number}", number + 1
    return name


def _number(amount: Decimal) -> int | float:
    """As JSON; `checked_amount` lets through only what a float holds exactly."""
    return int(amount) if amount == int(amount) else float(amount)


def _checked(check: Callable[[object], object], value: object) -> None:
    try:
        check(value)
    except ValueError as error:
        raise KeysFileError(f"{value!r}: {error}") from error


def _change(
    path: Path, change: Callable[[dict[str, Any], dict[str, TenantKey]], None], *, create: bool = False
) -> None:
    """Let ``change`` alter the document at ``path``, of which it also gets the entries by hash."""
    path = path.resolve()  # a link stays one, and what it points at is replaced
    with _writing(path):
        if create and not path.exists():
            document, keys = {"version": VERSION, "keys": []}, {}
        else:
            text = _text(path)
            keys = parse_keys(text, path)
            document = json.loads(text) | {"version": VERSION}
        change(document, keys)
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        parse_keys(text, path)  # nothing is written that could not be read again
        _replace(path, text)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        with locked(path.with_name(path.name + ".lock"), _LOCKED_SECONDS):
            yield
    except _OWN_ERRORS as error:
        raise KeysFileError(str(error)) from error
    except OSError as error:
        raise KeysFileError(f"keys file {path} cannot be written: {error.strerror or error}") from error


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)  # also when an earlier process was killed and left the file behind
        if path.exists():
            owner = path.stat()
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, owner.st_uid, owner.st_gid)  # the proxy's user, when root changes the file
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    partial.replace(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise KeysFileError(
            f"keys file {path}: {error.strerror}; make one with `python -m otel_cost_logger keys add`, or correct "
            f"{KEYS_FILE_VARIABLE}"
        ) from error
    except UnicodeDecodeError as error:
        raise KeysFileError(f"keys file {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
