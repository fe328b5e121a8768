"""The environment is read once, and a value that cannot be used is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_cost_logger.settings import Settings, SettingsError


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
