"""The files of support/deploy as the tests read them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from otel_cost_logger.budgets.gate import Gate
from otel_cost_logger.budgets.refusal import BudgetExceeded
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.writer import CallInFlight
from otel_cost_logger.logger import OtelCostLogger
from otel_cost_logger.metrics import publish_budgets, publish_calls, publish_ledger
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings
from workbook.environment import child_environment
from workbook.paths import DEPLOY, ROOT

Config = dict[str, Any]

# What the Collector 0.159.0 and Tempo 3.0.3 count themselves, from their sources: whether each is
# a counter, and its labels.
OTHERS: dict[str, tuple[bool, set[str]]] = {
    "otelcol_exporter_enqueue_failed_spans": (True, {"exporter"}),
    "otelcol_exporter_send_failed_spans": (True, {"exporter"}),
    "otelcol_exporter_queue_size": (False, {"exporter"}),
    "otelcol_exporter_queue_capacity": (False, {"exporter"}),
    "tempo_discarded_spans_total": (True, {"reason"}),
}


def _yaml(name: str) -> Config:
    document: Config = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="session")
def compose() -> Config:
    """compose.yaml, its variables not yet filled in."""
    return _yaml("compose.yaml")


@pytest.fixture(scope="session")
def services(compose: Config) -> Config:
    """Its services, by name."""
    found: Config = compose["services"]
    return found


@pytest.fixture(scope="session")
def collector() -> Config:
    """collector.yaml."""
    return _yaml("collector.yaml")


@pytest.fixture(scope="session")
def tempo() -> Config:
    """tempo.yaml."""
    return _yaml("tempo.yaml")


@pytest.fixture(scope="session")
def prometheus() -> Config:
    """prometheus.yaml."""
    return _yaml("prometheus.yaml")


@pytest.fixture(scope="session")
def datasources() -> list[Config]:
    """The data sources that Grafana is given."""
    found: list[Config] = _yaml("grafana/datasources.yaml")["datasources"]
    return found


@pytest.fixture(scope="session")
def dashboard() -> Config:
    """Grafana's dashboard."""
    found: Config = json.loads((DEPLOY / "grafana" / "dashboards" / "cost.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def known_metrics(tmp_path: Path) -> dict[str, tuple[bool, set[str]]]:
    """All metrics, the plugin's under the names that Prometheus gives them: whether it is a counter, and its labels.

    UnderscoreEscapingWithSuffixes: what is not a letter or digit becomes an underscore, a unit in braces leaves no
    suffix, a counter gets ``_total``. https://github.com/prometheus/otlptranslator
    """
    reader = InMemoryMetricReader()
    meter_provider = MeterProvider([reader])
    processor = DurableSpanProcessor(None, tmp_path / "ledger.db")
    publish_ledger(processor, meter_provider)
    logger = OtelCostLogger(Settings(), build_provider(Settings(exporters=())))
    publish_calls(logger, meter_provider)
    gate = Gate(lambda: None, lambda _: {"day": Decimal(0)})
    publish_budgets(gate, processor.writer, meter_provider)
    refused = CallInFlight("call", "acme", "mistral-7b", "acme-1", 1)
    with pytest.raises(BudgetExceeded):
        asyncio.run(gate.admit(processor.writer, refused, gate.budgets_of("acme", "acme-1", "0" * 64)))
    data = reader.get_metrics_data()
    processor.shutdown()
    meter_provider.shutdown()
    assert data is not None
    found = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        assert re.fullmatch(r"\{\w+\}", metric.unit or ""), metric.name
        counter = isinstance(metric.data, Sum) and metric.data.is_monotonic
        name = re.sub(r"\W", "_", metric.name) + ("_total" if counter else "")
        labels = {re.sub(r"\W", "_", key) for point in metric.data.data_points for key in point.attributes or {}}
        found[name] = (counter, labels)
    return OTHERS | found


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own tool; without it what it would check is skipped."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("there is no promtool here: apt-get install prometheus")
    return found


@pytest.fixture
def promtool_test(promtool: str, tmp_path: Path) -> Callable[..., None]:
    """``promtool_test({"series": values}, expressions)`` records series, one sample a minute, and compares what
    Prometheus answers; more such pairs may follow. ``rules`` are evaluated at each interval ``every``. See Prometheus'
    documentation of unit tests for the forms. Fails with what promtool says."""

    def check(*cases: tuple[dict[str, str], list[Config]], rules: tuple[Config, ...] = (), every: str = "1m") -> None:
        tests = [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": expressions,
            }
            for series, expressions in cases
        ]
        rule_file, file = tmp_path / "rules.yaml", tmp_path / "test.yaml"  # JSON is YAML
        rule_file.write_text(json.dumps({"groups": [{"name": "tested", "rules": rules}]}), encoding="utf-8")
        document = {"rule_files": [str(rule_file)], "evaluation_interval": every, "tests": tests}
        file.write_text(json.dumps(document), encoding="utf-8")
        done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    return check


@pytest.fixture(scope="session")
def dockerfile() -> str:
    """The Dockerfile, its continued lines joined."""
    return re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def proxy_environment(services: Config) -> dict[str, str]:
    """What compose puts into the proxy's environment; variables of .env stand there as ``${NAME...}``."""
    environment: dict[str, str] = {}
    for name in services["proxy"]["env_file"]:
        lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
        environment |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return environment | services["proxy"]["environment"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory, dockerfile: str) -> Path:
    """The wheel, built from a copy of what the Dockerfile copies, with the Dockerfile's command."""
    folder = tmp_path_factory.mktemp("wheel")
    stage = dockerfile.split(" AS wheel\n")[1].split("\nFROM ")[0]
    for line in re.findall(r"^COPY (.+)$", stage, re.MULTILINE):
        *sources, target = line.split()
        into = folder / "src" / target
        into.mkdir(parents=True, exist_ok=True)
        for source in sources:
            contents = f"{ROOT / source}/." if (ROOT / source).is_dir() else ROOT / source
            subprocess.run(["cp", "-r", contents, into], check=True)
    command = "pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ."
    assert command in stage
    pip(command.replace("/wheels", str(folder / "wheels")), folder / "src")
    (built,) = (folder / "wheels").glob("*.whl")
    return built


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory, dockerfile: str, wheel: Path) -> Path:
    """The folder on the image's PYTHONPATH, with the plugin alone: OpenTelemetry is this environment's."""
    folder = tmp_path_factory.mktemp("layer")
    command = "pip install --no-deps --target /opt/cost-logger /wheels/*.whl"
    assert command in dockerfile
    pip(command.replace("/opt/cost-logger", str(folder)).replace("/wheels/*.whl", str(wheel)), folder)
    (removal,) = re.findall(r"rm -r /opt/cost-logger[^&]+", dockerfile)
    subprocess.run(removal.replace("/opt/cost-logger", str(folder)).split(), check=True)
    return folder


def pip(command: str, folder: Path) -> None:
    """Run a pip command of the Dockerfile in ``folder`` with this environment's pip, without a network."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=folder,
        env=child_environment({"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
