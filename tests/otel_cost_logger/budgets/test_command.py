"""``python -m otel_cost_logger budgets``, and the settings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from otel_cost_logger.__main__ import main
from otel_cost_logger.budgets.book import read_budgets
from otel_cost_logger.budgets.enforcement import Enforcement
from otel_cost_logger.budgets.gate import Gate
from otel_cost_logger.ledger.writer import CallInFlight, LedgerWriter
from otel_cost_logger.settings import Ledger, Settings, SettingsError

BUDGETS = "tenants: {acme: {day: 5, month: 100}}\ndefault: {day: 1.5}\n"


@pytest.fixture
def budgets(tmp_path: Path) -> Path:
    path = tmp_path / "budgets.yaml"
    path.write_text(BUDGETS)
    return path


def test_check(budgets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budgets", "check", str(budgets)]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["acme", "5", "100"] in table
    assert ["(every", "other", "tenant)", "1.5", "unlimited"] in table
    budgets.write_text("tenants: {acme: {day: -5}}\n")
    assert main(["budgets", "check", str(budgets)]) == 2
    assert f"{budgets}, line 1: acme, day: '-5' is not an amount" in capsys.readouterr().err


def test_status(budgets: Path, writer: LedgerWriter, write_record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gate = Gate(lambda: read_budgets(budgets))
    write_record(writer, "acme", 10**9, alias="k")
    call = CallInFlight("x", "acme", "m", "k", 5)
    asyncio.run(gate.admit(writer, call, gate.budgets_of("acme", "k", None)))
    write_record(writer, "other", 10**9, alias="k", call_id="other")
    assert main(["budgets", "status", "--file", str(writer.path), "--budgets", str(budgets)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:2] == ["tenant", "acme"]
    assert lines[1][3:7] == ["5", "1", "0.000000005", "4"]
    assert [line[1] for line in lines[1:]] == ["acme", "acme", "other"]
    assert main(["budgets", "status", "--file", str(writer.path), "--budgets", str(budgets), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    assert (found["tenant_id"], found["reserved_nano_usd"], found["left_nano_usd"]) == ("acme", 5, 4 * 10**9)
    assert found["resets_at"].endswith("T00:00Z")


@pytest.mark.parametrize(
    "arguments", [["check"], ["status"], ["status", "--file", "ledger.db"], ["check", "none.yaml"]]
)
def test_what_is_missing_is_said(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["budgets", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_budgets_need_a_ledger(budgets: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="OTEL_COST_LOGGER_LEDGER_FILE is not"):
        Settings.from_environment({"OTEL_COST_LOGGER_BUDGETS_FILE": str(budgets)})
    keys = tmp_path / "keys.json"
    assert main(["keys", "add", "acme", "--budget-day", "5", "--file", str(keys)]) == 0
    with pytest.raises(SettingsError, match="the key acme has a budget"):
        Enforcement.of(Settings(keys_file=keys), None)


def test_a_broken_budgets_file_stops_the_start(budgets: Path, tmp_path: Path) -> None:
    budgets.write_text("tenants: {acme: {day: NaN}}\n")
    settings = Settings(processor="durable", ledger=Ledger(tmp_path / "ledger.db"), budgets_file=budgets)
    with pytest.raises(SettingsError, match=r"OTEL_COST_LOGGER_BUDGETS_FILE: budgets file .*, line 1: "):
        Enforcement.of(settings, None)


def test_without_budgets_and_keys_nothing_is_asked() -> None:
    assert Enforcement.of(Settings(), None) is None
