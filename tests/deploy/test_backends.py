"""The settings for each backend: they load, name what OpenTelemetry knows, and an exporter can be made of them."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.sdk import environment_variables

from otel_cost_logger import settings
from otel_cost_logger.attributes import SCHEMA
from otel_cost_logger.ledger.schema import TABLES
from otel_cost_logger.provider import span_exporter
from workbook.paths import DEPLOY

FILES = sorted((DEPLOY / "backends").iterdir())
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
PLACEHOLDER = {"HONEYCOMB_API_KEY": "not-a-key"}


def load(path: Path, given: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Load a file as its users do, in an otherwise empty environment, and print what is set then."""
    return subprocess.run(
        ["bash", "-c", f"set -a; . '{path}'; set +a; env -0"], env=given, capture_output=True, text=True
    )


def loaded(path: Path) -> dict[str, str]:
    done = load(path, PLACEHOLDER)
    assert done.returncode == 0, done.stderr
    pairs = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    return {name: value for name, value in pairs.items() if name.startswith("OTEL_")}


def comments(path: Path) -> str:
    """The text of a file's comments."""
    return "\n".join(line.removeprefix("#")[1:] for line in path.read_text().splitlines() if line.startswith("#"))


def documents(text: str) -> list[Any]:
    """The JSON objects that stand in a text."""
    found, position = [], 0
    while (start := text.find('{"', position)) >= 0:
        try:
            document, position = json.JSONDecoder().raw_decode(text, start)
            found.append(document)
        except json.JSONDecodeError:
            position = start + 1
    return found


def test_the_backends_are_here() -> None:
    assert [path.stem for path in FILES] == ["datadog", "honeycomb", "jaeger", "signoz", "tempo"]


@each_file
def test_each_line_is_a_comment_or_a_variable_that_is_known(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Z_]+=\S.*", line) for line in lines)
    for name in (line.partition("=")[0] for line in lines):
        known = {variable.name for variable in settings.VARIABLES}
        assert hasattr(environment_variables, name) or name in known, name


@each_file
def test_an_exporter_can_be_made_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in loaded(path).items():
        monkeypatch.setenv(name, value)
    chosen = settings.Settings.from_environment()
    assert chosen.exporters == ("otlp",)
    exporter: Any = span_exporter("otlp", chosen)
    try:
        hosts = {"honeycomb": "api.eu1.honeycomb.io:443"}
        assert exporter._endpoint == hosts.get(path.stem, "127.0.0.1:4317")
        assert exporter._compression == grpc.Compression.Gzip
        headers = {name: value for name, value in exporter._headers if name != "user-agent"}
        assert headers == ({"x-honeycomb-team": "not-a-key"} if path.stem == "honeycomb" else {})
    finally:
        exporter.shutdown()


def test_a_missing_key_is_named() -> None:
    done = load(DEPLOY / "backends" / "honeycomb.env", {})
    assert done.returncode != 0
    assert "HONEYCOMB_API_KEY: set HONEYCOMB_API_KEY to an ingest key" in done.stderr


@each_file
def test_it_says_whether_it_was_run_and_what_to_watch(path: Path) -> None:
    text = comments(path)
    (status,) = re.findall(r"^Status: (.+)$", text, re.MULTILINE)
    assert status.startswith(("verified", "written from documentation"))
    assert re.search(r"November 2026", status)
    assert "Duplicates" in text
    assert "Cost per tenant" in text
    assert "cost_nano_usd" in text
    leaves = path.stem in {"datadog", "honeycomb"}
    assert ("leave your network" in text.split("Watch")[0]) == leaves


@each_file
def test_its_query_asks_for_attributes_that_are_recorded(path: Path) -> None:
    names = {row.name for row in SCHEMA}
    asked = set(re.findall(r"\bllm\.[a-z_]+", comments(path)))
    assert asked <= names
    assert {"llm.tenant_id", "llm.cost_nano_usd"} <= asked


def test_the_bodies_for_datadog_and_honeycomb_are_json() -> None:
    (datadog,) = documents(comments(DEPLOY / "backends" / "datadog.env"))
    attributes = datadog["data"]["attributes"]
    assert attributes["group_by"][0]["facet"] == "@llm.tenant_id"
    assert attributes["compute"][0]["metric"] == "@llm.cost_nano_usd"
    (honeycomb,) = documents(comments(DEPLOY / "backends" / "honeycomb.env"))
    assert honeycomb["breakdowns"] == ["llm.tenant_id"]
    assert honeycomb["calculations"][0] == {"op": "SUM", "column": "llm.cost_nano_usd"}


def test_the_ledgers_query_fits_the_ledger() -> None:
    (sql,) = re.findall(r'"(SELECT tenant_id[^"]+)"', comments(DEPLOY / "backends" / "jaeger.env"))
    ledger = sqlite3.connect(":memory:")
    for statement in TABLES:
        ledger.execute(statement)
    ledger.executemany("INSERT INTO spans (tenant_id, cost_nano_usd) VALUES (?, ?)", [("a", 1), ("a", 2), ("b", 5)])
    assert sorted(ledger.execute(sql)) == [("a", 3e-9), ("b", 5e-9)]
    ledger.close()


def test_jaegers_traces_are_added_up_once_per_span() -> None:
    (code,) = re.findall(r"python3 -c '\n(.+?)'\n", comments(DEPLOY / "backends" / "jaeger.env") + "\n", re.DOTALL)

    def span(span_id: str, tenant: str | None, nano: int) -> dict[str, Any]:
        tags = [] if tenant is None else [{"key": "llm.tenant_id", "type": "string", "value": tenant}]
        return {"spanID": span_id, "tags": [*tags, {"key": "llm.cost_nano_usd", "type": "int64", "value": nano}]}

    traces = [[span("1", "tenant-acme", 3), span("2", None, 100)], [span("1", "tenant-acme", 3)]]
    traces.append([span("3", "tenant-acme", 4), span("4", "tenant-other", 50)])
    answer = json.dumps({"data": [{"spans": spans} for spans in traces]})
    done = subprocess.run([sys.executable, "-c", dedent(code)], input=answer, capture_output=True, text=True)
    assert done.stdout.strip() == "7e-09", done.stderr
