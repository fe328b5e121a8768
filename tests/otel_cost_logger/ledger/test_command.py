"""``python -m otel_cost_logger ledger``: every command, and every way to ask for what cannot be done."""

from __future__ import annotations

import csv
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pandas
import pyarrow.parquet
import pytest
import yaml
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger.__main__ import main
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger import formats
from otel_cost_logger.ledger.schema import COLUMNS, VERSION
from workbook.paths import DEPLOY

NS = 10**9


class Unreachable(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.FAILURE


@pytest.fixture
def ledger(tmp_path: Path, make_spans: Any) -> Path:
    """Two tenants; three spans sent, one pending, one dead; one call in flight, one lost."""
    path = tmp_path / "ledger.db"
    first = DurableSpanProcessor(InMemorySpanExporter(), path, schedule_delay_millis=20)
    for tenant, cost in [("acme", 333_333_333), ("acme", 1), ("zeta", 2_000_000_000)]:
        attributes = {"llm.tenant_id": tenant, "llm.cost_nano_usd": cost, "llm.prompt_tokens": 10}
        first.on_end(make_spans(1, "call", **attributes, **{"llm.completion_tokens": 5, "llm.success": True})[0])
    assert first.force_flush()
    first.expect_call("lost", "acme", "mistral")
    first.shutdown()
    second = DurableSpanProcessor(Unreachable(), path, schedule_delay_millis=3_600_000)
    second.on_end(make_spans(1, "pending", **{"llm.tenant_id": "zeta"})[0])
    second.on_end(make_spans(1, "dead", **{"llm.tenant_id": "zeta"})[0])
    second.expect_call("in flight", "zeta", "mistral")
    second._writer._disconnect()  # as if it still ran
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM outbox WHERE id = 5")
        connection.execute("INSERT INTO dead_letters VALUES (5, 'HTTP 400 no', 1)")
        # A day apart: 2026-01-01 to 2026-01-05.
        connection.execute("UPDATE spans SET end_ns = (1767225600 + (id - 1) * 86400) * 1000000000")
    return path


def say(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> SimpleNamespace:
    assert main(["ledger", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    return SimpleNamespace(out=out, err=err)


def test_status_tells_what_is_pending_dead_and_missing(ledger: Path, capsys: Any) -> None:
    text = say(capsys, "status", "--file", ledger).out
    assert "spans        5, ended 2026-01-01T00:00:00Z to 2026-01-05T00:00:00Z\n" in text
    assert "pending      1, the oldest since 20" in text
    assert "dead         1\n               1: HTTP 400 no\n" in text
    assert "settled      3\n" in text
    assert "calls noted  2, in flight 1, lost 1\n" in text
    assert [line.split() for line in text.splitlines()[-2:]] == [
        ["acme", "2", "20", "10", "0.333333334"],
        ["zeta", "3", "10", "5", "2.000000000"],
    ]


def test_status_tells_why_nothing_can_be_exported_and_since_when(
    tmp_path: Path, capsys: Any, make_spans: Any, otlp_server: Any
) -> None:
    path = tmp_path / "ledger.db"
    url = f"{otlp_server.url}/v1/traces"
    otlp_server.judge = lambda _: 401
    for _ in range(2):  # a restart does not change since when
        processor = DurableSpanProcessor(HttpExporter(url), path, schedule_delay_millis=20)
        processor.on_end(make_spans(1)[0])
        assert not processor.force_flush(200)
        processor.shutdown()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE export_failure SET since_ns = 1767225600000000000, attempts = 41")
    text = say(capsys, "status", "--file", path).out
    assert "failing      since 2026-01-01T00:00:00Z, 41 attempts, last at 20" in text
    assert "Z: HTTP 401\n" in text
    failure = json.loads(say(capsys, "status", "--json", "--file", path).out)["export_failure"]
    assert failure["reason"] == "HTTP 401"
    assert failure["last_ns"] > failure["since_ns"] == 1767225600 * NS
    otlp_server.judge = lambda _: 200
    processor = DurableSpanProcessor(HttpExporter(url), path, schedule_delay_millis=20)
    assert processor.force_flush()
    processor.shutdown()
    assert "failing" not in say(capsys, "status", "--file", path).out


def test_status_for_programs(ledger: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_COST_LOGGER_LEDGER_FILE", str(ledger))
    found = json.loads(say(capsys, "status", "--json").out)
    assert (found["spans"], found["pending"], found["dead"], found["settled"]) == (5, 1, 1, 3)
    assert found["tenants"][0]["cost_nano_usd"] == 333_333_334


def test_calls_of_an_hour_ago_are_lost_even_if_their_process_lives(ledger: Path, capsys: Any) -> None:
    with sqlite3.connect(ledger) as connection:
        connection.execute("UPDATE calls_in_flight SET began_ns = began_ns - 3601000000000")
    assert "in flight 0, lost 2" in say(capsys, "status", "--file", ledger).out


def test_a_query_answers_in_three_forms(ledger: Path, capsys: Any) -> None:
    sql = "SELECT tenant_id, sum(cost_nano_usd) AS nano FROM spans GROUP BY 1 ORDER BY 1"
    assert (
        say(capsys, "query", sql, "--file", ledger).out
        == "tenant_id  nano\nacme       333333334\nzeta       2000000000\n"
    )
    assert say(capsys, "query", sql, "--file", ledger, "--format", "csv").out.splitlines()[1] == "acme,333333334"
    assert json.loads(say(capsys, "query", sql, "--file", ledger, "--format", "json").out)[1] == {
        "tenant_id": "zeta",
        "nano": 2_000_000_000,
    }


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DELETE FROM spans", "readonly"),
        ("ATTACH DATABASE '{folder}/other.db' AS other", "not authorized"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELEC", "syntax error"),
        ("SELECT no_such FROM spans", "no such column"),
    ],
)
def test_a_query_can_only_read(ledger: Path, capsys: Any, sql: str, words: str) -> None:
    said = say(capsys, "query", sql.format(folder=ledger.parent), "--file", ledger, code=2)
    assert said.err.startswith("error: the query failed: ")
    assert words in said.err
    assert "spans        5," in say(capsys, "status", "--file", ledger).out
    assert not (ledger.parent / "other.db").exists()


def test_export_as_csv(ledger: Path, capsys: Any, tmp_path: Path) -> None:
    out = tmp_path / "calls.csv"
    assert "5 spans in" in say(capsys, "export", "--format", "csv", "--out", out, "--file", ledger).out
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", *COLUMNS]
    assert [row["cost_nano_usd"] for row in rows] == ["333333333", "1", "2000000000", "", ""]
    assert say(capsys, "export", "--format", "csv", "--file", ledger).out == out.read_text()


def test_export_as_otlp_json_lines_is_what_the_receiver_writes(
    ledger: Path, capsys: Any, collector: Any, tmp_path: Path
) -> None:
    out = tmp_path / "calls.jsonl"
    say(capsys, "export", "--format", "jsonl", "--out", out, "--file", ledger)
    say(capsys, "replay", "--to", collector.traces_url.removesuffix("/v1/traces"), "--file", ledger)
    ours = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for line in ours] == collector.spans()


def test_a_window_is_half_open(ledger: Path, capsys: Any) -> None:
    window = ("--since", "2026-01-02", "--until", "2026-01-04T01:00:00+01:00")
    lines = say(capsys, "export", "--format", "csv", "--file", ledger, *window).out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", "2", "3"]


def test_sqlite_pandas_and_duckdb_give_one_answer(ledger: Path, capsys: Any, tmp_path: Path) -> None:
    out = tmp_path / "calls.parquet"
    assert "5 spans" in say(capsys, "export", "--format", "parquet", "--out", out, "--file", ledger).out
    question = "SELECT tenant_id, sum(cost_nano_usd), count(*) FROM {} GROUP BY 1 ORDER BY 1"
    with closing(sqlite3.connect(ledger)) as connection:
        expected = connection.execute(question.format("spans")).fetchall()
        frame = pandas.read_sql("SELECT * FROM spans", connection)
    assert duckdb.sql(question.format(f"'{out}'")).fetchall() == expected
    grouped = frame.groupby("tenant_id").agg(cost=("cost_nano_usd", "sum"), calls=("id", "count"))
    assert list(grouped.itertuples(name=None)) == expected
    assert expected
    assert all(isinstance(cost, int) for _, cost, _ in expected)


def test_parquet_keeps_integers_integers(ledger: Path, capsys: Any, tmp_path: Path) -> None:
    """One unknown value must not turn a column of nano-dollars into floats."""
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("UPDATE spans SET cost_nano_usd = NULL WHERE id = 1")
    out = tmp_path / "calls.parquet"
    say(capsys, "export", "--format", "parquet", "--out", out, "--file", ledger)
    schema = pyarrow.parquet.read_schema(out)
    assert schema.names == ["id", *COLUMNS]
    types = {name: str(schema.field(name).type) for name in ("id", "cost_nano_usd", "cost_usd", "success", "tenant_id")}
    assert types.pop("tenant_id") in ("string", "large_string")
    assert types == {"id": "int64", "cost_nano_usd": "int64", "cost_usd": "double", "success": "bool"}


def test_parquet_without_its_packages_says_what_to_install(
    ledger: Path, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(formats, "import_module", missing)
    said = say(capsys, "export", "--format", "parquet", "--out", tmp_path / "x", "--file", ledger, code=2)
    assert "pandas is not installed: pip install pandas pyarrow, or export CSV" in said.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_replay_sends_a_window_with_the_same_ids(ledger: Path, capsys: Any, collector: Any, protocol: str) -> None:
    url = collector.grpc_url if protocol == "grpc" else collector.traces_url
    window = ("--since", "2026-01-02", "--until", "2026-01-04")
    said = say(capsys, "replay", "--to", url, "--protocol", protocol, "--file", ledger, *window)
    assert said.out.startswith("2 of 2 spans accepted by ")
    with sqlite3.connect(ledger) as connection:
        expected = connection.execute("SELECT span_id, trace_id FROM spans WHERE id IN (2, 3)").fetchall()
        assert connection.execute("SELECT id FROM outbox").fetchall() == [(4,)]
    assert [(span["spanId"], span["traceId"]) for span in collector.spans()] == expected


def test_replay_says_when_spans_are_older_than_a_backend_looks_back(ledger: Path, capsys: Any, collector: Any) -> None:
    def warning(age_days: float) -> str:
        with sqlite3.connect(ledger) as connection:
            connection.execute("UPDATE spans SET end_ns = ?", (time.time_ns() - int(age_days * 86_400e9),))
        return str(say(capsys, "replay", "--to", collector.traces_url, "--file", ledger).err)

    assert warning(13.9) == ""
    assert warning(14.1).startswith("warning: the oldest span is 14 days old.")
    with (DEPLOY / "tempo.yaml").open(encoding="utf-8") as file:
        kept = yaml.safe_load(file)["overrides"]["defaults"]["compaction"]["block_retention"]
    assert f"older than {int(kept.removesuffix('h')) // 24} days" in warning(14.1)


def test_dead_letters_that_are_accepted_are_dead_no_longer(ledger: Path, capsys: Any, collector: Any) -> None:
    collector.fault({"poison": "dead"})
    said = say(capsys, "replay", "--dead", "--to", collector.traces_url, "--file", ledger, code=1)
    assert "0 of 1 spans accepted" in said.out
    assert "1 refused: HTTP 400" in said.err
    collector.fault({})
    assert "1 of 1" in say(capsys, "replay", "--dead", "--to", collector.traces_url, "--file", ledger).out
    assert [span["name"] for span in collector.spans()] == ["dead"]
    assert "dead         0\n" in say(capsys, "status", "--file", ledger).out


def test_a_replay_waits_for_a_busy_collector_and_gives_up_on_a_wrong_one(
    ledger: Path, capsys: Any, collector: Any
) -> None:
    collector.fault({"status": 503, "retry_after": 0, "requests": 2})
    assert "5 of 5" in say(capsys, "replay", "--to", collector.traces_url, "--file", ledger).out
    collector.fault({"status": 401})
    said = say(capsys, "replay", "--to", collector.traces_url, "--file", ledger, code=2)
    assert "error: HTTP 401" in said.err
    assert "0 spans were sent before" in said.err


def test_prune_says_what_would_go_and_leaves_what_is_pending(ledger: Path, capsys: Any) -> None:
    assert say(capsys, "prune", "--days", 1, "--yes", "--file", ledger).out == "0 spans pruned\n"
    table = say(capsys, "prune", "--days", 0, "--file", ledger).out.splitlines()
    assert [line.split() for line in table[1:3]] == [
        ["acme", "2", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "0.333333334"],
        ["zeta", "2", "2026-01-03T00:00:00Z", "2026-01-05T00:00:00Z", "2.000000000"],
    ]
    assert table[3:] == ["4 spans would go; --yes deletes them"]
    found = json.loads(say(capsys, "prune", "--days", 0, "--json", "--file", ledger).out)
    assert (found["spans"], found["deleted"], found["tenants"][0]["cost_nano_usd"]) == (4, 0, 333_333_334)
    assert "spans        5," in say(capsys, "status", "--file", ledger).out
    assert say(capsys, "prune", "--days", 0, "--yes", "--file", ledger).out.endswith("\n4 spans pruned\n")
    with sqlite3.connect(ledger) as connection:
        assert connection.execute("SELECT name FROM spans").fetchall() == [("pending",)]


def test_money_has_no_exponent(ledger: Path, capsys: Any) -> None:
    numbers = "SELECT 82000 / 1e9 AS usd, 0.1 + 0.2, 1e15, 1e-12, 5.0, NULL, -2e-05, 7"
    shown = ["0.000082", "0.3", "1000000000000000", "0.000000000001", "5", "", "-0.00002", "7"]
    table = say(capsys, "query", numbers, "--file", ledger).out.splitlines()
    assert table[1].split() == [text for text in shown if text]
    lines = say(capsys, "query", numbers, "--file", ledger, "--format", "csv").out.splitlines()
    assert lines[1].split(",") == shown
    assert json.loads(say(capsys, "query", numbers, "--file", ledger, "--json").out)[0]["usd"] == 0.000082
    with sqlite3.connect(ledger) as connection:
        connection.execute("UPDATE spans SET cost_usd = 8.2e-05 WHERE id = 1")
    exported = csv.DictReader(say(capsys, "export", "--format", "csv", "--file", ledger).out.splitlines())
    assert next(exported)["cost_usd"] == "0.000082"


def test_status_counts_the_write_ahead_log(ledger: Path, capsys: Any) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("UPDATE spans SET name = 'other'")
        connection.commit()
        file, log = ledger.stat().st_size, ledger.with_name("ledger.db-wal").stat().st_size
        said = say(capsys, "status", "--file", ledger).out.splitlines()[0]
        assert said == f"{ledger} ({file + log:,} bytes, {log:,} of them in its write-ahead log)"
        found = json.loads(say(capsys, "status", "--json", "--file", ledger).out)
        assert (found["file_bytes"], found["log_bytes"]) == (file, log)


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["query", "SELECT 1"],
        ["export", "--format", "csv"],
        ["focus"],
        ["replay", "--to", "http://127.0.0.1:1"],
        ["check"],
        ["prune", "--days", "0", "--yes"],
    ],
)
def test_a_ledger_of_a_newer_version_is_neither_read_nor_changed(ledger: Path, capsys: Any, command: list[str]) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA user_version = 99")
    said = say(capsys, *command, "--file", ledger, code=2).err
    assert said == (
        f"error: {ledger} was written by a newer version of this plugin (schema 99, here {VERSION}); "
        "install that version, or name another file\n"
    )
    with closing(sqlite3.connect(ledger)) as connection:
        assert connection.execute("SELECT count(*) FROM spans").fetchone() == (5,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status"], "which ledger? Name its file with --file, or set OTEL_COST_LOGGER_LEDGER_FILE"),
        (["status", "--file", "{folder}/none.db"], "there is no ledger at "),
        (["status", "--file", "{folder}/text.txt"], "cannot be read: file is not a database"),
        (["status", "--file", "{folder}/other.db"], "is an SQLite database, but not a ledger"),
        (["export", "--format", "csv", "--out", "{folder}/text.txt", "--file", "{ledger}"], "exists; name a new file"),
        (["export", "--format", "csv", "--out", "{folder}/no/x", "--file", "{ledger}"], "does not exist"),
        (["export", "--format", "parquet", "--file", "{ledger}"], "Parquet is not text: name a file with --out"),
        (
            ["export", "--format", "csv", "--file", "{ledger}", "--since", "2026-01-02", "--until", "2026-01-02"],
            "--since must be before --until",
        ),
        (["export", "--format", "csv", "--since", "2100-01-01", "--file", "{ledger}"], "--since is in the future"),
        (["replay", "--to", "collector:4318", "--file", "{ledger}"], "is not the URL of a collector"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(
    ledger: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.delenv("OTEL_COST_LOGGER_LEDGER_FILE", raising=False)
    (ledger.parent / "text.txt").write_text("text" * 1000)
    with sqlite3.connect(ledger.parent / "other.db") as connection:
        connection.execute("CREATE TABLE bills (id)")
    said = say(capsys, *[text.format(folder=ledger.parent, ledger=ledger) for text in arguments], code=2)
    assert said.err.startswith("error: ")
    assert words in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "--format", "xml"], "invalid choice: 'xml'"),
        (["export", "--format", "csv", "--since", "yesterday"], "'yesterday' is not a date or time such as"),
        (["prune", "--days", "-1"], "'-1' is not a number of days"),
        ([], "the following arguments are required"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_else(capsys: Any, arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ledger", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_reading_a_ledger_loads_no_litellm(ledger: Path) -> None:
    """It takes seconds, and would fetch its price map from the internet."""
    script = "import sys; from otel_cost_logger.__main__ import main; main(); print('litellm' in sys.modules)"
    command = [sys.executable, "-c", script, "ledger", "status", "--file", str(ledger)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_reader_of_a_pipe_may_leave(ledger: Path) -> None:
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT i FROM n"
    command = f"{sys.executable} -m otel_cost_logger ledger query '{sql}' --file {ledger} | head -n 2"
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "i\n1\n", "")
