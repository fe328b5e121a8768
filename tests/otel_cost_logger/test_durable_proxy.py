"""The real proxy with a ledger: killed, restarted, and with a ledger that cannot be written."""

from __future__ import annotations

import re
import resource
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from workbook.ports import listener
from workbook.services import Proxy
from workbook.spans import read_ledger
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


def probe(running: Stack, of: str) -> tuple[int, Any]:
    answer = httpx.get(f"{running.proxy_url}/health/{of}", timeout=60, trust_env=False)
    return answer.status_code, answer.json()


def ask_often(running: Stack, count: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        tenants = [TENANTS[number % len(TENANTS)] for number in range(count)]
        assert set(pool.map(lambda tenant: ask(running, tenant), tenants)) == {200}


def rows(ledger: Path, sql: str) -> list[Any]:
    with sqlite3.connect(ledger) as connection:
        return connection.execute(sql).fetchall()


def whole_after_a_stop(running: Stack, folder: Path) -> int:
    """Tell the proxy to stop; how many records are in its ledger's main file alone."""
    ledger = running.durable_ledger
    running.proxy.stop()
    copy = shutil.copy(ledger, folder / "copy.db")
    return int(rows(Path(copy), "SELECT count(*) FROM spans")[0][0])


def test_a_killed_proxy_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any) -> None:
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    with stack("durable-killed", processor="durable") as running:
        ledger = running.durable_ledger
        running.collector.fail(status=503)  # the collector is away, too
        ask_often(running, 40)
        eventually(lambda: rows(ledger, "SELECT count(*) FROM spans") == [(40,)], "every call is in the ledger")
        running.proxy.kill()
        assert rows(ledger, "SELECT count(*) FROM outbox") == [(40,)]
        running.collector.recover()
        running.proxy.restart()  # and nobody calls it
        frame = running.wait_for_records(40, timeout=60)
        assert len(set(frame["span_id"])) == len(frame) == 40
        per_tenant = frame.groupby("tenant_id")["cost_nano_usd"].sum().to_dict()
        assert dict(rows(ledger, "SELECT tenant_id, sum(cost_nano_usd) FROM spans GROUP BY 1")) == per_tenant
        assert rows(ledger, "SELECT sum(calls_seen) FROM processes") == [(40,)]
        assert rows(ledger, "SELECT count(*) FROM calls_in_flight") == [(0,)]


def forget(ledger: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)


def break_header(ledger: Path) -> None:
    ledger.with_name(ledger.name + "-wal").unlink(missing_ok=True)  # it may hold a sound copy
    with ledger.open("r+b") as file:
        file.write(b"\xff" * 4096)


def arrived(running: Stack) -> int:
    """How many different spans: what was sent when its file vanished is sent again from the next one."""
    return len(read_ledger(running.ledger))


def test_a_proxy_goes_on_whatever_becomes_of_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """One after the other: the file is deleted, its header destroyed, its folder replaced by a file, and given back."""
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    folder = tmp_path / "kept"
    ledger = folder / "ledger.db"
    env = {
        "OTEL_COST_LOGGER_PROCESSOR": "durable",
        "OTEL_COST_LOGGER_LEDGER_FILE": str(ledger),
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5",
    }
    with stack("durable-broken", env=env) as running:
        log = running.proxy.log
        ask_often(running, 5)
        eventually(lambda: rows(ledger, "SELECT count(*) FROM spans") == [(5,)], "the records are in the file")

        forget(ledger)
        ask_often(running, 5)
        eventually(lambda: "was removed or replaced while in use" in log.read_text(), "it was noticed")
        eventually(lambda: arrived(running) == 10, "what was in the file, too, has arrived")

        running.proxy.kill()
        break_header(ledger)
        running.proxy.restart()
        ask_often(running, 5)
        eventually(lambda: list(folder.glob("ledger.db.corrupt-*")), "it was moved aside")
        eventually(lambda: arrived(running) == 15, "every record has arrived")

        folder.rename(tmp_path / "before")
        folder.write_text("not a folder")  # nothing can be written here, not even by root
        ask_often(running, 10)
        eventually(lambda: "cannot be written" in log.read_text(), "it was said")
        eventually(lambda: arrived(running) == 25, "every record has arrived")

        folder.unlink()
        ask_often(running, 5)
        eventually(lambda: arrived(running) == 30, "every record has arrived")
        eventually(lambda: "can be written again" in log.read_text(), "the end of it, too")
        text = log.read_text()
    assert "a call's cost record was lost" not in text
    assert "could not be kept" not in text


def test_a_proxy_on_a_full_disk_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any) -> None:
    """Files may not grow beyond a limit that is lifted later: what a full disk does, and an operator who makes room.

    Meanwhile the readiness probe fails, and says why; the proxy lives, and answers.
    """
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    with stack("durable-full", processor="durable") as running:
        ledger = running.durable_ledger
        ask_often(running, 5)
        eventually(lambda: rows(ledger, "SELECT count(*) FROM spans") == [(5,)], "the records are in the file")
        assert probe(running, "readiness")[0] == 200
        proxy = listener(urlsplit(running.proxy_url).port or 0)
        assert proxy is not None
        written = ledger.with_name("ledger.db-wal").stat().st_size
        log_size = running.proxy.log.stat().st_size
        little = max(written, log_size + 50_000), resource.RLIM_INFINITY
        limits = resource.prlimit(proxy, resource.RLIMIT_FSIZE, little)
        ask_often(running, 30)
        eventually(lambda: "cannot be written" in running.proxy.log.read_text(), "the disk is full")
        status, said = probe(running, "readiness")
        assert status == 503
        assert said["status"] == "unhealthy"
        assert re.search(rf"calls cannot be recorded: the ledger {ledger} cannot be written: .+", said["reason"])
        assert probe(running, "liveliness")[0] == 200
        resource.prlimit(proxy, resource.RLIMIT_FSIZE, limits)
        ask_often(running, 5)
        assert len(set(running.wait_for_records(40, timeout=60)["span_id"])) == 40
        eventually(lambda: rows(ledger, "SELECT count(*) FROM spans") == [(40,)], "nothing is missing in the file")
        assert probe(running, "readiness")[0] == 200
        assert whole_after_a_stop(running, tmp_path) == 40


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_two_workers_share_one_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any, server: str
) -> None:
    """uvicorn starts its workers anew; gunicorn forks them from a master that has loaded the plugin (``--preload``)."""
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    if server == "gunicorn":
        launch = Proxy._launch

        def launch_gunicorn(proxy: Proxy, command: list[str], *rest: Any) -> None:
            launch(proxy, [*command, "--run_gunicorn"], *rest)

        monkeypatch.setattr(Proxy, "_launch", launch_gunicorn)
    with stack(f"workers-{server}", processor="durable", workers=2) as running:
        ledger, workers, asked = running.durable_ledger, "SELECT count(DISTINCT process) FROM spans", 0
        while asked == 0 or (rows(ledger, workers) < [(2,)] and asked < 400):  # who answers is the kernel's choice
            ask_often(running, 20)
            asked += 20
            written = [(asked,)]
            eventually(lambda written=written: rows(ledger, "SELECT count(*) FROM spans") == written, "all are written")
        assert rows(ledger, workers) == [(2,)]
        arrived = running.wait_for_records(asked, timeout=60)
        assert len(set(arrived["call_id"])) == len(set(arrived["span_id"])) == len(arrived) == asked
        eventually(lambda: rows(ledger, "SELECT count(*) FROM outbox") == [(0,)], "all are confirmed")
        assert rows(ledger, "SELECT sum(calls_seen) FROM processes") == [(asked,)]
        assert rows(ledger, "SELECT count(*) FROM calls_in_flight") == [(0,)]
        assert whole_after_a_stop(running, tmp_path) == asked
