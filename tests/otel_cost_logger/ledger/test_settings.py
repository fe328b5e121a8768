"""The variables of the ledger, and what the provider makes of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.otlp.sending import GrpcSender, HttpSender
from otel_cost_logger.provider import CostTracerProvider, build_provider
from otel_cost_logger.settings import Ledger, Settings, SettingsError
from otel_cost_logger.termination import FlushOnTermination

FILE = "OTEL_COST_LOGGER_LEDGER_FILE"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def test_a_ledger_file_chooses_the_durable_processor(tmp_path: Path) -> None:
    settings = Settings.from_environment({FILE: str(tmp_path / "ledger.db"), "OTEL_TRACES_EXPORTER": "otlp"})
    assert settings.processor == "durable"
    assert settings.ledger == Ledger(tmp_path / "ledger.db", "normal", 183)


def test_every_setting_of_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {
        FILE: "here.db",
        "OTEL_COST_LOGGER_PROCESSOR": "durable",
        "OTEL_COST_LOGGER_LEDGER_SYNC": "full",
        "OTEL_COST_LOGGER_LEDGER_DAYS": "3650.5",
    }
    assert Settings.from_environment(environment).ledger == Ledger(tmp_path / "here.db", "full", 3650.5)


def test_without_a_ledger_file_nothing_changes() -> None:
    settings = Settings.from_environment({})
    assert (settings.processor, settings.ledger) == (None, None)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OTEL_COST_LOGGER_PROCESSOR": "durable"}, f"OTEL_COST_LOGGER_PROCESSOR='durable' needs {FILE}"),
        ({FILE: "x.db", "OTEL_COST_LOGGER_PROCESSOR": "batch"}, "OTEL_COST_LOGGER_PROCESSOR='batch' writes no ledger"),
        ({FILE: "x.db", "OTEL_COST_LOGGER_LEDGER_SYNC": "often"}, "LEDGER_SYNC='often' is not supported; use one of"),
        ({FILE: "x.db", "OTEL_COST_LOGGER_LEDGER_DAYS": "some"}, "LEDGER_DAYS='some' is not a number of days above 0"),
        ({FILE: "x.db", "OTEL_COST_LOGGER_LEDGER_DAYS": "0"}, "LEDGER_DAYS='0' is not a number of days above 0"),
        ({FILE: "x.db", "OTEL_COST_LOGGER_LEDGER_DAYS": "inf"}, "LEDGER_DAYS='inf' is not a number of days above 0"),
        ({"OTEL_COST_LOGGER_LEDGER_DAYS": "7"}, f"OTEL_COST_LOGGER_LEDGER_DAYS is set, but {FILE} is not"),
        ({FILE: "/"}, f"{FILE}='/' is a folder; name a file in it"),
    ],
)
def test_a_bad_value_names_the_variable(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(environment)
    assert words in str(raised.value)


def test_settings_made_by_hand_are_checked_too() -> None:
    with pytest.raises(SettingsError, match="belong together"):
        Settings(processor="durable")


def processors(provider: CostTracerProvider) -> list[Any]:
    return list(provider._active_span_processor._span_processors)


@pytest.mark.parametrize(("protocol", "sender"), [("grpc", GrpcSender), ("http/protobuf", HttpSender)])
def test_otlp_goes_through_the_ledger_and_a_terminal_beside_it(tmp_path: Path, protocol: str, sender: type) -> None:
    ledger = Ledger(tmp_path / "ledger.db", keep_days=7)
    provider = build_provider(
        Settings(exporters=("console", "otlp"), protocol=protocol, processor="durable", ledger=ledger)
    )
    ours, console = processors(provider)
    assert isinstance(ours, FlushOnTermination)
    assert isinstance(provider.durable, DurableSpanProcessor)
    assert ours._inner is provider.durable
    assert provider.durable.path == ledger.path
    assert type(provider.durable._drain._sender) is sender
    assert isinstance(console, SimpleSpanProcessor)
    assert isinstance(console.span_exporter, ConsoleSpanExporter)
    provider.shutdown()


def test_with_no_exporter_the_ledger_stands_alone(tmp_path: Path) -> None:
    settings = Settings.from_environment({FILE: str(tmp_path / "ledger.db"), "OTEL_TRACES_EXPORTER": "none"})
    provider = build_provider(settings)
    provider.get_tracer("t").start_span("s").end()
    assert provider.durable is not None
    assert (provider.durable.counts.written, provider.durable.pending) == (1, 0)
    assert provider.force_flush()
    provider.shutdown()


def test_without_a_ledger_there_is_no_durable_processor() -> None:
    assert build_provider(Settings(exporters=())).durable is None
