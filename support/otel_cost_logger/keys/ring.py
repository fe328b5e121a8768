"""The keys file in the memory of a process that serves calls: read again whenever it changes."""

from __future__ import annotations

import hmac
import threading
from pathlib import Path

from otel_cost_logger.keys.entries import KeysFileError, TenantKey, hash_key
from otel_cost_logger.keys.file import KEYS_FILE_VARIABLE, read_keys
from otel_cost_logger.last_good import LastGood


class KeyRing:
    """The keys of the file at ``path``, as it is now or was when it could last be read. Thread-safe.

    A first read that fails raises `KeysFileError`, because a proxy that knows no tenant should not serve.
    """

    def __init__(self, path: Path) -> None:
        self._keys = LastGood(path, read_keys, lambda keys: f"{len(keys)} keys")

    def find(self, key: str) -> TenantKey | None:
        """The entry of ``key``, whatever its state, or None when it is unknown. Compares hashes in constant time."""
        digest = hash_key(key)
        entry = self.of(digest)
        return entry if entry and hmac.compare_digest(entry.sha256, digest) else None

    def of(self, sha256: str) -> TenantKey | None:
        """The entry of the key with the hash ``sha256``, whatever its state, or None when it is unknown."""
        return self._keys.value.get(sha256)


_rings: dict[Path, KeyRing] = {}
_rings_lock = threading.Lock()


def key_ring(path: Path | None) -> KeyRing:
    """This process's ring of the file at ``path``, which is the settings' keys file.

    Raises `KeysFileError` when there is none, or the file cannot be read the first time.
    """
    if path is None:
        raise KeysFileError(f"{KEYS_FILE_VARIABLE} is not set: it names the file that maps keys to tenants")
    with _rings_lock:
        if path not in _rings:
            _rings[path] = KeyRing(path)
        return _rings[path]


def key_of(path: Path | None, sha256: str) -> TenantKey | None:
    """The entry of the key with the hash ``sha256`` in the file at ``path``.

    None when the file has no such key, and where there is no keys file (LiteLLM's own keys, library mode).
    """
    try:
        return key_ring(path).of(sha256)
    except KeysFileError:
        return None
