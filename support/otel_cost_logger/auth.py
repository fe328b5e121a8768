"""The proxy's front door: which tenant does this API key belong to?

LiteLLM keeps virtual keys in Postgres. A small stack has none, so this module gives the proxy a file of
*hashed* keys instead. Name it in the proxy configuration::

    general_settings:
      custom_auth: otel_cost_logger.auth.user_api_key_auth

and point ``OTEL_COST_LOGGER_KEYS_FILE`` at the file. The tenant found here becomes the key's team, the one
field of a LiteLLM payload that a caller cannot write (`record.py` reads it back as the tenant).

The file is JSON: ``{"version": 1, "keys": [{"sha256": HEX, "tenant": NAME, "alias": NAME}, ...]}``. Keys
carry 192 random bits, so an unsalted SHA-256 cannot be reversed by guessing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth

if TYPE_CHECKING:
    from fastapi import Request

KEYS_FILE_VARIABLE = "OTEL_COST_LOGGER_KEYS_FILE"
MASTER_KEY_VARIABLE = "LITELLM_MASTER_KEY"

_log = logging.getLogger(__name__)


class KeysFileError(ValueError):
    """The keys file cannot be used; the message names the file, the entry and what is wrong."""


@dataclass(frozen=True, slots=True)
class TenantKey:
    """One entry of the keys file: the key's hash (never the key), its tenant, and a name for the key."""

    sha256: str
    tenant: str
    alias: str


def hash_key(key: str) -> str:
    """The hexadecimal SHA-256 of ``key``, as it stands in the keys file."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def read_keys(path: Path) -> dict[str, TenantKey]:
    """Read the keys file at ``path``; returns its entries by hash.

    Raises `KeysFileError` when the file is missing, is not JSON, or has an entry that is incomplete or
    stands there twice.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeysFileError(f"keys file {path}: {error.strerror}; create it or correct {KEYS_FILE_VARIABLE}") from error
    except ValueError as error:
        raise KeysFileError(f"keys file {path} is not valid JSON: {error}") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeysFileError(f'keys file {path}: expected an object with a list under "keys"')
    keys: dict[str, TenantKey] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"keys file {path}, entry {number}"
        fields = entry if isinstance(entry, dict) else {}
        digest, tenant = fields.get("sha256"), fields.get("tenant")
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise KeysFileError(f'{where}: "sha256" must be 64 lower-case hexadecimal digits')
        if not isinstance(tenant, str) or not tenant.strip():
            raise KeysFileError(f'{where}: "tenant" must be a non-empty string')
        if digest in keys:
            raise KeysFileError(f"{where}: the same key stands there twice")
        keys[digest] = TenantKey(digest, tenant, str(fields.get("alias") or tenant))
    return keys


def add_key(path: Path, tenant: str, alias: str | None = None) -> str:
    """Make a new key for ``tenant``, store its hash in the file at ``path`` and return the key itself.

    The key exists only in the return value. The file is created when missing, replaced atomically and
    readable by its owner alone. Raises `KeysFileError` when an existing file cannot be used.
    """
    keys = read_keys(path) if path.exists() else {}
    key = "sk-" + secrets.token_hex(24)
    entry = TenantKey(hash_key(key), tenant, alias or tenant)
    document = {"version": 1, "keys": [_as_json(known) for known in (*keys.values(), entry)]}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
    partial.replace(path)
    return key


def _as_json(entry: TenantKey) -> dict[str, str]:
    return {"sha256": entry.sha256, "tenant": entry.tenant, "alias": entry.alias}


class KeyRing:
    """The keys file in memory, read again whenever it changes.

    A change that cannot be read leaves the last good keys in force and is logged; a first read that fails
    raises, because a proxy that knows no tenant should not start quietly.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._version = self._stat()
        self._keys = read_keys(path)

    def find(self, key: str) -> TenantKey | None:
        """The entry of ``key``, or None when it is unknown. Compares hashes in constant time."""
        self._reload_if_changed()
        digest = hash_key(key)
        entry = self._keys.get(digest)
        return entry if entry and hmac.compare_digest(entry.sha256, digest) else None

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _reload_if_changed(self) -> None:
        version = self._stat()
        if version == self._version:
            return
        with self._lock:
            self._version = version
            try:
                self._keys = read_keys(self._path)
            except KeysFileError as error:
                _log.error("%s; the %d keys read before stay in force", error, len(self._keys))


_ring: KeyRing | None = None
_ring_lock = threading.Lock()


def _key_ring() -> KeyRing:
    global _ring
    with _ring_lock:
        if _ring is None:
            path = os.environ.get(KEYS_FILE_VARIABLE)
            if not path:
                raise KeysFileError(f"{KEYS_FILE_VARIABLE} is not set: it names the file that maps keys to tenants")
            _ring = KeyRing(Path(path))
        return _ring


async def user_api_key_auth(request: Request, api_key: str | None) -> UserAPIKeyAuth:
    """LiteLLM's ``custom_auth``: the caller's tenant for ``api_key``, as the key's team.

    The master key (``LITELLM_MASTER_KEY``) is the operator's own and has no tenant. Raises
    `ProxyException` with status 401, without a word of the key, for any other key that the file lacks.
    """
    del request  # the tenant depends on the key alone; headers and body belong to the caller
    if not api_key:
        raise _unauthorized()
    master_key = os.environ.get(MASTER_KEY_VARIABLE)
    if master_key and hmac.compare_digest(hash_key(api_key), hash_key(master_key)):
        return UserAPIKeyAuth(api_key=hash_key(api_key), key_alias="master", user_role=LitellmUserRoles.PROXY_ADMIN)
    entry = _key_ring().find(api_key)
    if entry is None:
        raise _unauthorized()
    return UserAPIKeyAuth(
        api_key=entry.sha256,
        key_alias=entry.alias,
        team_id=entry.tenant,
        team_alias=entry.tenant,
        user_role=LitellmUserRoles.INTERNAL_USER,
    )


def _unauthorized() -> Any:
    return ProxyException(
        message="Authentication Error: unknown or missing API key. Send the key that your operator gave you as "
        "'Authorization: Bearer <key>'.",
        type="auth_error",
        param="api_key",
        code=401,
    )
