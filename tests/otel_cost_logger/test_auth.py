"""The keys file: hashes only, read again when it changes, the last good state kept."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from litellm.proxy._types import LitellmUserRoles, ProxyException

from otel_cost_logger import auth
from otel_cost_logger.auth import KeyRing, KeysFileError, add_key, read_keys


def bump(path: Path) -> None:
    """Give the file a new modification time, whatever the clock's resolution."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def test_a_new_key_is_found_and_its_text_is_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    acme, globex = add_key(path, "tenant-acme"), add_key(path, "tenant-globex", "ci")
    assert acme.startswith("sk-")
    assert len(acme) == len("sk-") + 48
    assert acme not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    ring = KeyRing(path)
    found, other = ring.find(acme), ring.find(globex)
    assert found is not None
    assert other is not None
    assert (found.tenant, found.alias) == ("tenant-acme", "tenant-acme")
    assert (other.tenant, other.alias) == ("tenant-globex", "ci")
    assert ring.find("sk-" + "0" * 48) is None
    assert ring.find("") is None
    assert ring.find("\ud800") is None


def test_a_change_is_seen_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first = add_key(path, "tenant-acme")
    ring = KeyRing(path)
    second = add_key(path, "tenant-globex")
    bump(path)
    assert ring.find(second) is not None
    path.write_text(json.dumps({"version": 1, "keys": []}))
    bump(path)
    assert ring.find(first) is None


def test_a_broken_file_keeps_the_last_good_one_in_force(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    key = add_key(path, "tenant-acme")
    ring = KeyRing(path)
    path.write_text("{")
    bump(path)
    assert ring.find(key) is not None
    assert "keys.json is not valid JSON" in caplog.text
    assert "stay in force" in caplog.text
    path.unlink()
    assert ring.find(key) is not None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "expected an object"),
        ('{"keys": {}}', "expected an object"),
        ('{"keys": [1]}', 'entry 1: "sha256"'),
        ('{"keys": [{"sha256": "abc", "tenant": "t"}]}', 'entry 1: "sha256"'),
        ('{"keys": [{"sha256": "%s", "tenant": " "}]}' % ("a" * 64), 'entry 1: "tenant"'),
        ('{"keys": [%s, %s]}' % ((f'{{"sha256": "{"a" * 64}", "tenant": "t"}}',) * 2), "entry 2: the same key"),
    ],
)
def test_a_malformed_file_says_what_and_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(KeysFileError, match=complaint) as raised:
        read_keys(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_an_error_at_the_first_read(tmp_path: Path) -> None:
    with pytest.raises(KeysFileError, match="No such file"):
        KeyRing(tmp_path / "keys.json")


@pytest.fixture
def proxy_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "keys.json"
    key = add_key(path, "tenant-acme")
    monkeypatch.setenv("OTEL_COST_LOGGER_KEYS_FILE", str(path))
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-" + "f" * 48)
    monkeypatch.setattr(auth, "_ring", None)
    return key


def authenticate(key: str | None) -> Any:
    return asyncio.run(auth.user_api_key_auth(None, key))  # type: ignore[arg-type]


def test_the_key_decides_the_team(proxy_keys: str) -> None:
    identity = authenticate(proxy_keys)
    assert (identity.team_id, identity.key_alias) == ("tenant-acme", "tenant-acme")
    assert proxy_keys not in identity.model_dump_json()


def test_the_master_key_is_the_operators_and_has_no_tenant(proxy_keys: str) -> None:
    identity = authenticate("sk-" + "f" * 48)
    assert (identity.team_id, identity.user_role) == (None, LitellmUserRoles.PROXY_ADMIN)


@pytest.mark.parametrize("key", [None, "", "sk-wrong", "Bearer x", "\ud800", "x" * 100_000])
def test_any_other_key_is_refused_without_being_quoted(proxy_keys: str, key: str | None) -> None:
    with pytest.raises(ProxyException) as raised:
        authenticate(key)
    assert raised.value.code == "401"
    assert not key or key not in raised.value.message


def test_without_a_keys_file_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_COST_LOGGER_KEYS_FILE", raising=False)
    monkeypatch.setattr(auth, "_ring", None)
    with pytest.raises(KeysFileError, match="OTEL_COST_LOGGER_KEYS_FILE is not set"):
        authenticate("sk-anything")
