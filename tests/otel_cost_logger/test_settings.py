"""The environment is read once, and a value that cannot be used is named."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from otel_cost_logger import OtelCostLogger, auth, logger
from otel_cost_logger.budgets.enforcement import Enforcement
from otel_cost_logger.keys.entries import hash_key
from otel_cost_logger.keys.file import add_key
from otel_cost_logger.settings import VARIABLES, Ledger, Settings, SettingsError
from workbook.paths import ROOT


def test_defaults_are_those_of_the_tutorial() -> None:
    assert Settings.from_environment({}) == Settings(("console",), "grpc", None, False, False)


def test_every_setting() -> None:
    environment = {
        "OTEL_TRACES_EXPORTER": "otlp, console,otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_COST_LOGGER_PROCESSOR": "batch",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http,gen_ai_latest_experimental",
        "OTEL_COST_LOGGER_ERROR_MESSAGES": "TRUE",
    }
    assert Settings.from_environment(environment) == Settings(("otlp", "console"), "http/protobuf", "batch", True, True)


@pytest.mark.parametrize(
    ("propagators", "told"), [("tracecontext", True), ("baggage, tracecontext", True), ("b3", False), ("none", False)]
)
def test_the_engine_is_told_the_trace_context_by_the_standard_variable(propagators: str, told: bool) -> None:
    assert Settings.from_environment({"OTEL_PROPAGATORS": propagators}).propagate == told


def test_none_exports_nowhere() -> None:
    assert Settings.from_environment({"OTEL_TRACES_EXPORTER": "none"}).exporters == ()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_COST_LOGGER_PROCESSOR", "durable-ish"),
        ("OTEL_COST_LOGGER_ERROR_MESSAGES", "maybe"),
    ],
)
def test_a_bad_value_names_the_variable_and_what_would_do(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"{variable}='{value}' is not supported; use one of: "):
        Settings.from_environment({variable: value})


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({}, None),
        ({"OTEL_METRICS_EXPORTER": "none"}, None),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, "grpc"),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http/protobuf"),
        (
            {
                "OTEL_METRICS_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
                "OTEL_METRIC_EXPORT_INTERVAL": "5000",
            },
            "grpc",
        ),
    ],
)
def test_metrics_are_sent_when_asked_for(environment: dict[str, str], protocol: str | None) -> None:
    assert Settings.from_environment(environment).metrics_protocol == protocol


@pytest.mark.parametrize("interval", ["0", "often", "inf"])
def test_an_interval_of_metrics_that_makes_no_sense_is_refused(interval: str) -> None:
    environment = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": interval}
    with pytest.raises(
        SettingsError, match=f"OTEL_METRIC_EXPORT_INTERVAL='{interval}' is not a number of milliseconds"
    ):
        Settings.from_environment(environment)


def test_the_price_book_is_named_by_a_variable_and_its_path_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environment({"OTEL_COST_LOGGER_PRICES_FILE": "p.yaml"}).prices_file == tmp_path / "p.yaml"
    assert Settings.from_environment({"OTEL_COST_LOGGER_PRICES_FILE": " "}).prices_file is None


PLUGIN = ROOT / "support" / "otel_cost_logger"
READ_THE_ENVIRONMENT = {
    "settings.py": "here it becomes settings",
    "provider.py": "OpenTelemetry's own variables, which its SDK reads too",
    "durable.py": "OpenTelemetry's own, as its batch processor reads them",
    "deployments.py": "LiteLLM's own address of vLLM",
    "doctor/checks.py": "it reports on the environment",
}


def test_nothing_reads_the_environment_behind_the_settings_it_is_given() -> None:
    """A command reads it for the files that it is not told."""
    reading = {
        str(path.relative_to(PLUGIN))
        for path in PLUGIN.rglob("*.py")
        if re.search(r"\b(environb?|getenv)\b", path.read_text(encoding="utf-8")) and path.name != "command.py"
    }
    assert reading == set(READ_THE_ENVIRONMENT)


def test_what_a_logger_is_given_holds_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_call: Any
) -> None:
    """The environment names other files, another key and another processor, all of which are somebody else's."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    others, ours = tmp_path / "others.json", tmp_path / "ours.json"
    of_others, of_ours = add_key(others, "tenant-other"), add_key(ours, "tenant-acme", budget_usd={"day": Decimal(1)})
    monkeypatch.setenv("OTEL_COST_LOGGER_KEYS_FILE", str(others))
    monkeypatch.setenv("OTEL_COST_LOGGER_PROCESSOR", "simple")
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-others")
    monkeypatch.setattr(logger, "behind_proxy", lambda: True)
    given = Settings(
        (), processor="durable", ledger=Ledger(tmp_path / "ledger.db"), keys_file=ours, master_key="sk-the-operators"
    )
    assert "sk-the-operators" not in repr(given)
    plugin = OtelCostLogger(given)

    def tenant(key: str) -> Any:
        identity: Any = asyncio.run(auth.user_api_key_auth(SimpleNamespace(), key))  # type: ignore[arg-type]
        return identity.team_id or identity.key_alias

    assert tenant(of_ours) == "tenant-acme"
    assert tenant("sk-the-operators") == "master"
    for key in (of_others, "sk-others"):
        with pytest.raises(auth.KeyRefused):
            tenant(key)
    enforcement = Enforcement.of(given, None)
    assert enforcement is not None
    assert enforcement.gate.budgets_of("tenant-acme", "tenant-acme", hash_key(of_ours))
    asyncio.run(plugin.async_log_success_event(make_call(), None, None, None))
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("SELECT count(*) FROM spans").fetchone() == (1,)
