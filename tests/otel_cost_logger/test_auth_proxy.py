"""The front door of a real proxy: who is let in, what the others are told, and what each leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_cost_logger.keys.file import add_key, expire_key, revoke_key
from workbook.stacks import Stack, stack

pytestmark = pytest.mark.timeout(240)


def ask(model: str = "mistral-7b", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "May I?"}], **more}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path_factory.mktemp("build")))
        with stack("front-door") as started:
            yield started


@pytest.fixture
def keys_file(running: Stack) -> Path:
    return running.run_dir / "keys.json"


class Door:
    """Knocks with a key; keeps the record of each knock."""

    def __init__(self, running: Stack) -> None:
        self.running = running

    def post(self, key: str | None, body: dict[str, Any], path: str = "/v1/chat/completions") -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{self.running.proxy_url}{path}", json=body, headers=headers, timeout=30, trust_env=False)

    def record(self, call_id: str) -> dict[str, Any]:
        record: dict[str, Any] = self.running.wait_for_call(call_id).to_dict()
        return record

    def newest(self, number: int) -> dict[str, Any]:
        record: dict[str, Any] = self.running.wait_for_records(number).to_dict("records")[-1]
        return record

    def seen(self) -> int:
        return self.running.ledger.read_bytes().count(b"\n")


@pytest.fixture
def door(running: Stack) -> Door:
    return Door(running)


def let_in(door: Door, key: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> dict[str, Any]:
    """The record of a request that must be answered."""
    answer = door.post(key, body, path)
    assert answer.status_code == 200, answer.text
    return door.record(answer.headers["x-litellm-call-id"])


def refused(door: Door, key: str | None, body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
    """The answer's status and error, and the record, of a request that must be refused."""
    before = door.seen()
    answer = door.post(key, body, path)
    assert answer.status_code >= 400, answer.text
    assert key is None or key not in answer.text
    return answer.status_code, answer.json()["error"], door.newest(before + 1)


@pytest.mark.parametrize("key", [None, "sk-nobody", "nobody", "sk-" + "0" * 48, "x" * 5000])
def test_a_key_that_nobody_knows(door: Door, key: str | None) -> None:
    status, error, record = refused(door, key, ask())
    assert (status, error["type"], error["param"], error["code"]) == (401, "auth_error", "api_key", "401")
    assert "unknown or missing API key" in error["message"]
    assert (record["tenant_id"], record["tenant_source"], record["outcome"]) == ("unauthenticated", "none", "failure")
    assert (record["error_status"], record["cost_nano_usd"], record["total_tokens"]) == (401, 0, 0)


def test_keys_change_while_the_proxy_runs(door: Door, keys_file: Path) -> None:
    key = add_key(keys_file, "tenant-new", "new")
    let_in(door, key, ask())
    expire_key(keys_file, "new", datetime(2026, 1, 1, tzinfo=UTC))
    status, error, record = refused(door, key, ask())
    assert (status, error["type"]) == (401, "auth_error")
    assert "has expired (since 2026-01-01T00:00:00Z)" in error["message"]
    assert (record["tenant_id"], record["tenant_source"], record["key_alias"]) == ("tenant-new", "team", "new")
    expire_key(keys_file, "new", datetime(2099, 1, 1, tzinfo=UTC))
    let_in(door, key, ask())
    revoke_key(keys_file, "new")
    status, error, record = refused(door, key, ask())
    assert (status, record["tenant_id"], record["cost_nano_usd"]) == (401, "tenant-new", 0)
    assert "is revoked" in error["message"]


def test_a_broken_file_changes_nothing_and_the_log_says_so_once(door: Door, running: Stack, keys_file: Path) -> None:
    good = keys_file.read_text()
    key = running.keys["tenant-acme"]
    for broken in ('{\n"keys": [{"sha256": 7}]}', None):
        keys_file.unlink()
        if broken is not None:
            keys_file.write_text(broken)
        for _ in range(3):
            let_in(door, key, ask())
    log = running.logs["litellm_proxy"].read_text()
    assert log.count('keys.json, line 2: "sha256" must be the 64 lower-case') == 1
    assert log.count("keys.json: No such file or directory") == 1
    keys_file.write_text(good)
    let_in(door, key, ask())
    assert refused(door, "sk-nobody", ask())[0] == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", ask("mistral-7b-unpriced")),
        ("/v1/chat/completions", ask("mistral-7b-unpriced", stream=True)),
        ("/v1/chat/completions", ask(fallbacks=["mistral-7b-unpriced"])),
        ("/v1/messages", ask("mistral-7b-unpriced")),
        ("/v1/completions", {"model": "mistral-7b-unpriced", "prompt": "May I?"}),
        ("/v1/responses", {"model": "mistral-7b-unpriced", "input": "May I?"}),
    ],
)
def test_a_model_that_the_key_may_not_ask_for(door: Door, keys_file: Path, path: str, body: dict[str, Any]) -> None:
    key = add_key(keys_file, "tenant-limited", models=["mistral-7b"])
    let_in(door, key, ask())
    status, error, record = refused(door, key, body, path)
    assert status == 403
    assert "mistral-7b-unpriced" in error["message"]
    assert (record["tenant_id"], record["tenant_source"]) == ("tenant-limited", "team")
    assert (record["outcome"], record["error_status"], record["cost_nano_usd"]) == ("failure", 403, 0)
    models = httpx.get(
        f"{door.running.proxy_url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
    )
    assert [model["id"] for model in models.json()["data"]] == ["mistral-7b"]


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/mistral-7b-unpriced/chat/completions",
        "/engines/mistral-7b-unpriced/chat/completions",
        "/v1/chat/completions?model=mistral-7b-unpriced",
    ],
)
def test_a_model_in_the_address_is_no_way_around(door: Door, keys_file: Path, path: str) -> None:
    """LiteLLM 1.106.2 checks the body's model, and serves the other one."""
    key = add_key(keys_file, "tenant-by-path", models=["mistral-7b"])
    status, _, record = refused(door, key, ask(), path)
    assert (status, record["tenant_id"], record["cost_nano_usd"]) == (403, "tenant-by-path", 0)
    free = add_key(keys_file, "tenant-free")
    assert let_in(door, free, ask(), path)["model"] == "mistral-7b-unpriced"


def test_a_tenants_key_opens_nothing_of_the_operators(door: Door, running: Stack) -> None:
    answer = door.post(running.keys["tenant-acme"], {"key_alias": "mine"}, "/key/generate")
    assert answer.status_code >= 400
