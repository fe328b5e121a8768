"""The real proxy with a ledger: killed, restarted, and with a ledger that cannot be written."""

from __future__ import annotations

import os
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from workbook.stacks import TENANTS, Stack, stack

pytestmark = pytest.mark.timeout(300)


def ask(running: Stack, tenant: str) -> int:
    body = {"model": "mistral-7b", "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]}
    return httpx.post(
        f"{running.proxy_url}/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {running.keys[tenant]}"},
        timeout=60,
        trust_env=False,
    ).status_code


def ask_often(running: Stack, count: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        tenants = [TENANTS[number % len(TENANTS)] for number in range(count)]
        assert set(pool.map(lambda tenant: ask(running, tenant), tenants)) == {200}


def rows(ledger: Path, sql: str) -> list[Any]:
    with sqlite3.connect(ledger) as connection:
        return connection.execute(sql).fetchall()


def put_fault(running: Stack, fault: dict[str, Any]) -> None:
    url = running._receiver.endpoint("http/protobuf")
    assert httpx.put(f"{url}/fault", json=fault, trust_env=False).status_code == 200


def test_a_killed_proxy_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any) -> None:
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    ledger = tmp_path / "ledger.db"
    env = {"OTEL_COST_LOGGER_PROCESSOR": "durable", "OTEL_COST_LOGGER_LEDGER_FILE": str(ledger)}
    with stack("durable-killed", env=env) as running:
        put_fault(running, {"status": 503})  # the collector is away, too
        ask_often(running, 40)
        eventually(lambda: rows(ledger, "SELECT count(*) FROM spans") == [(40,)], "every call is in the ledger")
        os.killpg(os.getpgid(running._proxy.child.pid), signal.SIGKILL)
        eventually(lambda: not running._proxy.child.running, "the proxy is gone")
        assert rows(ledger, "SELECT count(*) FROM outbox") == [(40,)]
        put_fault(running, {})
        running._proxy._stop()
        running._proxy.launch()
        running._proxy.wait()
        ask_often(running, 1)
        frame = running.wait_for_records(41, timeout=60)
        assert len(set(frame["span_id"])) == len(frame) == 41
        per_tenant = frame.groupby("tenant_id")["cost_nano_usd"].sum().to_dict()
        assert dict(rows(ledger, "SELECT tenant_id, sum(cost_nano_usd) FROM spans GROUP BY 1")) == per_tenant
        assert rows(ledger, "SELECT sum(calls_seen) FROM processes") == [(41,)]
        assert rows(ledger, "SELECT count(*) FROM calls_in_flight") == [(0,)]


def test_a_proxy_whose_ledger_cannot_be_written_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    (tmp_path / "file").write_text("not a folder")
    env = {
        "OTEL_COST_LOGGER_PROCESSOR": "durable",
        "OTEL_COST_LOGGER_LEDGER_FILE": str(tmp_path / "file" / "ledger.db"),
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
    }
    with stack("durable-broken", env=env) as running:
        ask_often(running, 20)
        assert len(set(running.wait_for_records(20, timeout=60)["span_id"])) == 20
        log = running._proxy.log.read_text()
    assert log.count("cannot be written") == 1
    assert "a call's cost record was lost" not in log
