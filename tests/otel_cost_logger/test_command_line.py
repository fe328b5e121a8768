"""Every command in a terminal of 80 columns, in the hands of a program, and with an argument that it does not know."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_cost_logger import __main__ as command_line
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.spend import with_spend
from otel_cost_logger.text_table import WIDTH, table_lines

TENANTS = ["tenant-acme", "tenant-research-and-development-emea-production", "t" * 256]
MODEL = "meta-llama/Llama-3.3-70B-Instruct"
PRICES = f"""
currency: USD
prices:
  - model: {MODEL}
    input_usd_per_million_tokens: 0.20
    output_usd_per_million_tokens: 0.60
    source: contract 17
"""
SUM = "SELECT tenant_id, sum(cost_nano_usd) / 1e9 AS usd FROM spans WHERE tenant_id = 'tenant-acme' GROUP BY 1"


class _Stop(Exception):
    pass


def leaves() -> list[tuple[str, ...]]:
    """The words of every command."""

    def below(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not found:
            yield words
        for name, child in (pair for action in found for pair in action.choices.items()):
            yield from below(child, (*words, name))

    parsers: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: Any) -> None:
        parsers.append(parser)
        raise _Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(_Stop):
            command_line.main([])
    return list(below(parsers[0], ()))


LEAVES = leaves()
GROUPS = [(), *sorted({words[:-1] for words in LEAVES} - {()})]


def test_there_are_commands() -> None:
    assert {("ledger", "backup"), ("keys", "list"), ("budgets", "status"), ("prices", "show")} <= set(LEAVES)


@pytest.mark.parametrize("words", [*GROUPS, *LEAVES], ids=" ".join)
def test_help_fits(words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    with pytest.raises(SystemExit):
        command_line.main([*words, "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > WIDTH] == []


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_an_unknown_argument_brings_the_commands_own_usage(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    values = {
        ("keys", "add"): ["t"],
        ("keys", "revoke"): ["k"],
        ("keys", "expire"): ["k"],
        ("ledger", "query"): ["SELECT 1"],
        ("ledger", "export"): ["--format", "csv"],
        ("ledger", "replay"): ["--to", "http://127.0.0.1:1"],
        ("ledger", "prune"): ["--days", "1"],
        ("ledger", "backup"): ["copy.db"],
        ("ledger", "restore"): ["copy.db"],
        ("prices", "check"): ["prices.yaml"],
        ("prices", "show"): ["m"],
        ("prices", "derive"): ["--gpu-hour-usd", "1", "--results", "r.json"],
    }
    with pytest.raises(SystemExit) as ended:
        command_line.main([*words, *values.get(words, []), "--no-such"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: python -m otel_cost_logger {' '.join(words)} ")
    assert said.endswith("error: unrecognized arguments: --no-such\n")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_spans: Any) -> None:
    """A folder with all the files, and what is long in them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_COST_LOGGER_LEDGER_FILE", "ledger.db")
    monkeypatch.setenv("OTEL_COST_LOGGER_KEYS_FILE", "keys.json")
    monkeypatch.setenv("OTEL_COST_LOGGER_PRICES_FILE", "prices.yaml")
    monkeypatch.setenv("OTEL_COST_LOGGER_BUDGETS_FILE", "budgets.yaml")
    Path("prices.yaml").write_text(PRICES)
    limits = "{day: 100, month: 123456.789}"
    Path("budgets.yaml").write_text("tenants:\n" + "".join(f"  {tenant}: {limits}\n" for tenant in TENANTS))
    for tenant in TENANTS:
        options = ["--model", MODEL, "--model", "mistral-7b", "--expires", "2099-12-31T12:30", "--budget-day", "99.5"]
        assert command_line.main(["keys", "add", tenant, *options, "--budget-month", "2500"]) == 0
    processor = DurableSpanProcessor(None, "ledger.db")
    for tenant, cost in zip(TENANTS, (82_000, 12_345_678_901, 98_765_432_109_876), strict=True):
        attributes = {"llm.tenant_id": tenant, "llm.cost_nano_usd": cost, "llm.prompt_tokens": 1_234_567_890}
        processor.on_end(make_spans(1, "call", **attributes, **{"llm.completion_tokens": 987_654_321})[0])
    processor.writer.transact(lambda one: with_spend(one, lambda: one.execute("SELECT 1 FROM spend")))
    processor.shutdown()


@pytest.mark.parametrize(
    "words",
    [
        ["keys", "list"],
        ["budgets", "check"],
        ["budgets", "status"],
        ["prices", "show", MODEL],
        ["prices", "check", "prices.yaml"],
        ["ledger", "status"],
        ["ledger", "check"],
        ["ledger", "prune", "--days", "0"],
        ["ledger", "query", SUM],
    ],
    ids=lambda words: " ".join(words[:2]),
)
@pytest.mark.usefixtures("house")
def test_what_is_shown_fits_and_a_program_gets_it_whole(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert command_line.main(words) == 0
    shown = capsys.readouterr().out
    if words[1:] != ["check", "prices.yaml"]:  # a sentence with a hash in it
        assert [line for line in shown.splitlines() if len(line) > WIDTH] == []
    assert command_line.main([*words, "--json"]) == 0
    found = json.dumps(json.loads(capsys.readouterr().out))
    if "tenant" in shown and words[1] != "query":
        assert all(f'"{tenant}"' in found for tenant in TENANTS)
    assert "e-05" not in shown


def test_numbers_are_never_cut_and_names_stay_whole_on_several_lines() -> None:
    name = "a-name-of-a-tenant-that-is-long"
    lines = list(table_lines(["tenant", "cost"], [[name, "1" * 60], ["b", "2"]], {0}))
    assert [line.rstrip().rpartition("  ")[2] for line in lines if "1" in line] == ["1" * 60]
    assert max(map(len, lines)) <= WIDTH
    assert "".join(line[:18].strip() for line in lines[1:-1]) == name
