"""The proxy's front door: which key opens what, and that nothing of a refused one is said."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from litellm.proxy._types import LitellmUserRoles, ProxyException

from otel_cost_logger import auth
from otel_cost_logger.keys.entries import hash_key
from otel_cost_logger.keys.file import add_key, expire_key, revoke_key

MASTER_KEY = "sk-" + "f" * 48


@pytest.fixture
def keys_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.json"
    monkeypatch.setenv("OTEL_COST_LOGGER_KEYS_FILE", str(path))
    monkeypatch.setenv("LITELLM_MASTER_KEY", MASTER_KEY)
    return path


@pytest.fixture
def proxy_keys(keys_file: Path) -> str:
    return add_key(keys_file, "tenant-acme")


def authenticate(key: str | None) -> Any:
    return asyncio.run(auth.user_api_key_auth(None, key))  # type: ignore[arg-type]


def refusal(key: str | None) -> auth.KeyRefused:
    with pytest.raises(auth.KeyRefused) as raised:
        authenticate(key)
    return raised.value


def test_the_key_decides_the_team(proxy_keys: str) -> None:
    identity = authenticate(proxy_keys)
    assert (identity.team_id, identity.key_alias) == ("tenant-acme", "tenant-acme")
    assert identity.api_key == hash_key(proxy_keys)
    assert proxy_keys not in identity.model_dump_json()


def test_the_master_key_is_the_operators_and_has_no_tenant(proxy_keys: str) -> None:
    identity = authenticate(MASTER_KEY)
    assert (identity.team_id, identity.user_role) == (None, LitellmUserRoles.PROXY_ADMIN)


@pytest.mark.parametrize("key", [None, "", "sk-wrong", "Bearer x", "\ud800", "x" * 100_000])
def test_any_other_key_is_refused_without_being_quoted(proxy_keys: str, key: str | None) -> None:
    refused = refusal(key)
    assert refused.code == "401"
    assert refused.to_dict().keys() == {"message", "type", "param", "code"}
    assert not key or key not in json.dumps(refused.to_dict())


def test_a_hash_is_no_key(proxy_keys: str) -> None:
    """Whoever reads the file can open nothing with it."""
    assert refusal(hash_key(proxy_keys)).code == "401"


def test_a_key_that_is_revoked_or_has_expired_is_refused_and_its_tenant_known(
    keys_file: Path, proxy_keys: str, caplog: pytest.LogCaptureFixture
) -> None:
    limited = add_key(keys_file, "tenant-globex", expires=datetime.now(UTC) + timedelta(hours=1))
    assert authenticate(limited).team_id == "tenant-globex"
    expire_key(keys_file, "tenant-globex", datetime(2026, 1, 1, tzinfo=UTC))
    revoke_key(keys_file, "tenant-acme")
    for key, words, tenant in (
        (limited, "has expired (since 2026-01-01T00:00:00Z)", "tenant-globex"),
        (proxy_keys, "is revoked", "tenant-acme"),
    ):
        refused = refusal(key)
        assert (refused.code, refused.type, refused.param) == ("401", "auth_error", "api_key")
        assert words in refused.message
        assert refused.refused_key is not None
        assert refused.refused_key.tenant == tenant
        assert key not in refused.message + caplog.text


def test_without_a_usable_keys_file_only_the_master_key_opens(
    keys_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = refusal("sk-anything")
    assert (refused.code, refused.type) == ("500", "server_error")
    assert str(keys_file) not in refused.message  # which is for callers
    assert f"keys file {keys_file}: No such file" in caplog.text
    monkeypatch.delenv("OTEL_COST_LOGGER_KEYS_FILE")
    refusal("sk-anything")
    assert "OTEL_COST_LOGGER_KEYS_FILE is not set" in caplog.text
    assert authenticate(MASTER_KEY).key_alias == "master"


def test_a_key_that_the_file_does_not_know_goes_on_to_litellm_where_it_has_a_database(
    keys_file: Path, proxy_keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back as text, LiteLLM's ``enterprise_custom_auth`` step has LiteLLM's own check look at it."""
    server, checks = ModuleType("litellm.proxy.proxy_server"), ModuleType("litellm.proxy.auth.user_api_key_auth")
    monkeypatch.setitem(sys.modules, server.__name__, server)
    monkeypatch.setitem(sys.modules, checks.__name__, checks)
    monkeypatch.setattr(checks, "enterprise_custom_auth", object(), raising=False)
    monkeypatch.setattr(server, "prisma_client", None, raising=False)
    assert refusal("sk-virtual").code == "401"
    monkeypatch.setattr(server, "prisma_client", SimpleNamespace())
    assert authenticate("sk-virtual") == "sk-virtual"
    assert authenticate(proxy_keys).team_id == "tenant-acme"
    revoke_key(keys_file, "tenant-acme")
    assert refusal(proxy_keys).code == "401"  # the file has decided
    monkeypatch.setattr(checks, "enterprise_custom_auth", None)
    assert refusal("sk-virtual").code == "401"  # LiteLLM would not check it, but quote it in an error


def test_a_refusal_is_one_of_litellms_own_errors() -> None:
    assert issubclass(auth.KeyRefused, ProxyException)
