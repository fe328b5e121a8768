"""The doctor's findings, one kind at a time; the self-check has tests of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_cost_logger.__main__ import main
from otel_cost_logger.doctor import checks
from otel_cost_logger.doctor.checks import FAIL, OK, WARN, Finding
from otel_cost_logger.doctor.command import _lines
from otel_cost_logger.doctor.live_call import live_call
from otel_cost_logger.doctor.parts import settings_line
from otel_cost_logger.ledger.file import open_for_writing
from otel_cost_logger.settings import Ledger, Settings
from workbook.ports import free_port


def states(findings: list[Finding], check: str) -> list[str]:
    return [finding.state for finding in findings if finding.check == check]


def test_a_misspelt_setting_fails_with_its_name() -> None:
    read, found = checks.settings({"OTEL_COST_LOGGER_LEDGER": "x"})
    assert read is None
    assert [finding.state for finding in found] == [FAIL]
    assert "OTEL_COST_LOGGER_LEDGER_FILE" in found[0].found


def test_each_variable_that_is_set_is_shown() -> None:
    read, found = checks.settings({"OTEL_TRACES_EXPORTER": "none"})
    assert read is not None
    assert "OTEL_TRACES_EXPORTER=none" in [finding.found for finding in found]


def test_files_that_cannot_be_used_fail_and_no_file_is_made(tmp_path: Path) -> None:
    ledger, prices = tmp_path / "new" / "ledger.db", tmp_path / "prices.yaml"
    prices.write_text("nonsense")
    read = Settings(processor="durable", ledger=Ledger(ledger), prices_file=prices, keys_file=tmp_path / "none")
    found = list(checks.files(read))
    assert states(found, "prices") == states(found, "keys") == [FAIL]
    assert states(found, "ledger") == states(found, "budgets") == [OK]
    assert not ledger.parent.exists()


def test_a_ledger_of_a_newer_version_fails(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = open_for_writing(path, busy_seconds=1)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    found = list(checks.files(Settings(processor="durable", ledger=Ledger(path))))
    assert FAIL in states(found, "ledger")
    assert any("newer version" in finding.found for finding in found)


def test_without_a_ledger_there_is_a_warning() -> None:
    assert states(list(checks.files(Settings())), "ledger") == [OK, WARN]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_that_is_not_there_fails(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    found = list(checks.collector(Settings(exporters=("otlp",), protocol=protocol)))
    assert [finding.state for finding in found] == [FAIL]


def test_a_proxy_that_is_not_there_fails() -> None:
    port = free_port()
    assert [finding.state for finding in live_call(f"http://127.0.0.1:{port}", "sk-x", "m", None)] == [FAIL]


def test_a_call_without_a_key_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    assert main(["doctor", "--url", "http://127.0.0.1:1"]) == 2


def test_lines_fit_a_terminal() -> None:
    lines = _lines(Finding(FAIL, "collector", "word " * 60, "do " * 60))
    assert max(map(len, lines)) <= 80


def test_the_line_at_the_start_names_every_part() -> None:
    line = settings_line(Settings())
    assert [part.partition(":")[0].strip() for part in line.split(";")] == [
        "ledger",
        "exporter",
        "keys",
        "prices",
        "budgets",
    ]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_that_answers_is_well(protocol: str, collector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = collector.grpc_url if protocol == "grpc" else collector.traces_url.removesuffix("/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    found = list(checks.collector(Settings(exporters=("otlp",), protocol=protocol)))
    assert [finding.state for finding in found] == [OK], found
    assert collector.spans() == []
