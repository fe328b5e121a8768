"""A span over which a collector fails, and a collector that fails over every span: the one is set aside, the other
waited for."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

from otel_cost_logger.ledger import drain, suspects
from otel_cost_logger.ledger.suspects import Suspects
from otel_cost_logger.otlp.answers import Accepted, Unavailable
from otel_cost_logger.otlp.decoding import Payload
from otel_cost_logger.otlp.sending import sift


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes become moments; the order of events stays."""
    monkeypatch.setattr(drain, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(drain, "_LONGEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(suspects, "_FAILING_SECONDS", 0.1)
    monkeypatch.setattr(suspects, "_TRIAL_PAUSE_SECONDS", 0.01)


def dead(ledger: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(ledger) as connection:
        return connection.execute("SELECT s.name, d.reason FROM dead_letters d JOIN spans s USING (id)").fetchall()


def test_one_span_that_always_gets_500_holds_up_no_other(
    ledger: Path, durable: Any, make_spans: Any, otlp_server: Any, eventually: Any
) -> None:
    otlp_server.judge = lambda names: 500 if "bad" in names else 200
    processor = durable(HttpExporter(f"{otlp_server.url}/v1/traces"))
    for span in [*make_spans(20, "good"), *make_spans(1, "bad"), *make_spans(20, "good")]:
        processor.on_end(span)
    eventually(lambda: len(otlp_server.taken) == 40, "the others have passed it")
    eventually(lambda: otlp_server.requests.count(["bad"]) == 1, "it was found")
    assert dead(ledger) == []
    eventually(lambda: processor.pending == 1, "the others are confirmed")
    for trial in range(2, 5):  # each comes after another span was taken
        processor.on_end(make_spans(1, "later")[0])
        eventually(lambda trial=trial: otlp_server.requests.count(["bad"]) == trial, "it was tried again, alone")
    assert dead(ledger) == []
    processor.on_end(make_spans(1, "later")[0])
    eventually(lambda: processor.counts.dead == 1, "it is a dead letter")
    assert dead(ledger) == [("bad", "HTTP 500 (alone, 4 times, while others were taken)")]
    assert otlp_server.taken.count("good") == 40
    eventually(lambda: processor.pending == 0, "all are settled")


def test_a_collector_that_answers_500_to_everything_is_waited_for(
    ledger: Path, durable: Any, make_spans: Any, otlp_server: Any, eventually: Any
) -> None:
    otlp_server.judge = lambda _: 500
    processor = durable(HttpExporter(f"{otlp_server.url}/v1/traces"))
    for span in make_spans(8):
        processor.on_end(span)
    eventually(lambda: [len(names) for names in otlp_server.requests].count(1) > 16, "each was tried alone, twice")
    assert len(processor._drain._suspects) == processor.counts.dead == 0
    otlp_server.judge = lambda _: 200
    assert processor.force_flush()
    assert len(otlp_server.taken) == 8
    assert dead(ledger) == []


def test_a_span_that_is_taken_in_the_end_was_no_culprit(
    ledger: Path, durable: Any, make_spans: Any, otlp_server: Any, eventually: Any
) -> None:
    otlp_server.judge = lambda names: 500 if "bad" in names else 200
    processor = durable(HttpExporter(f"{otlp_server.url}/v1/traces"))
    for span in [*make_spans(1, "bad"), *make_spans(9, "good")]:
        processor.on_end(span)
    eventually(lambda: ["bad"] in otlp_server.requests, "it was found")
    otlp_server.judge = lambda _: 200
    processor.on_end(make_spans(1, "later")[0])
    eventually(lambda: "bad" in otlp_server.taken, "it was taken")
    assert processor.force_flush()
    assert dead(ledger) == []
    assert len(processor._drain._suspects) == 0


def test_answers_that_ask_to_wait_make_no_suspects() -> None:
    found = Suspects()
    for _ in range(30):
        found.batch_failed(doubtful=True)
    found.batch_failed(doubtful=False)  # 503, a refused connection
    assert not found.sifting


def test_a_short_trouble_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "_FAILING_SECONDS", 3600.0)
    found = Suspects()
    for _ in range(30):
        found.batch_failed(doubtful=True)
    assert not found.sifting


class Scripted:
    """A sender whose answer depends on how many requests came before."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sizes: list[int] = []

    def send(self, request: Any) -> Any:
        self.sizes.append(sum(len(scope.spans) for of in request.resource_spans for scope in of.scope_spans))
        return self.answers.pop(0)


def test_sifting_ends_when_the_collector_goes_away() -> None:
    payloads = [Payload(number, 1, b"\x12\x00", b"") for number in range(8)]
    failed, away = Unavailable("HTTP 500", doubtful=True), Unavailable("HTTP 503")
    sender: Any = Scripted(Accepted(), failed, Accepted(), away)
    told = [(len(part), answer) for part, answer in sift(sender, payloads)]
    assert told == [(4, Accepted()), (4, failed), (2, Accepted()), (2, away)]
    assert sender.sizes == [4, 4, 2, 2]


def test_a_suspect_between_others_is_not_confirmed_with_them(
    ledger: Path, durable: Any, make_spans: Any, otlp_server: Any, eventually: Any
) -> None:
    otlp_server.judge = lambda _: 503
    processor = durable(HttpExporter(f"{otlp_server.url}/v1/traces"))
    for name in ("before", "suspect", "after"):
        processor.on_end(make_spans(1, name)[0])
    eventually(lambda: otlp_server.requests, "the file has been read")
    processor._drain._suspects.accuse(Payload(2, 0, b"", b""), "HTTP 500", exported=10**9)  # its turn never comes
    otlp_server.judge = lambda _: 200
    eventually(lambda: len(otlp_server.taken) == 2, "the others have passed it")
    assert not processor.force_flush(100)
    assert otlp_server.taken == ["before", "after"]
    with sqlite3.connect(ledger) as connection:
        assert connection.execute("SELECT id FROM outbox").fetchall() == [(2,)]
