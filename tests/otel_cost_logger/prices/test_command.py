"""``python -m otel_cost_logger prices``: as an operator types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_cost_logger.__main__ import main

BOOK = """\
currency: USD
prices:
  - model: mistral
    input_usd_per_million_tokens: 0.20
    output_usd_per_million_tokens: 0.60
    valid_from: 2026-11-01
    valid_until: 2026-11-30
    source: contract 17
  - served_model: mistral-7b
    input_usd_per_million_tokens: 1
    output_usd_per_million_tokens: 2
    cached_input_usd_per_million_tokens: 0.1
    usd_per_request: 0.001
    source: the engine itself
"""


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(BOOK)
    return path


def test_check_says_that_a_book_is_whole(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "check", str(book)]) == 0
    assert f"{book}: 2 prices of 2 models, version sha256:" in capsys.readouterr().out


def test_check_names_every_mistake(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book.write_text(BOOK.replace("0.60", "-0.60").replace("contract 17", ""))
    assert main(["prices", "check", str(book)]) == 2
    error = capsys.readouterr().err
    assert "line 5: 'output_usd_per_million_tokens' is negative: -0.60" in error or "line 8: 'source'" in error


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("2026-11-30T23:59:59", ["0.2 USD per million", "2026-11-01 until 2026-11-30, included", "contract 17"]),
        ("2026-11-01", ["cached input  as other input", "line 3"]),
    ],
)
def test_show_says_which_price_holds_then(
    book: Path, at: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prices", "show", "mistral", "--at", at, "--file", str(book)]) == 0
    shown = capsys.readouterr().out
    for word in words:
        assert word in shown


def test_show_says_that_a_model_has_none_then(
    book: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_COST_LOGGER_PRICES_FILE", str(book))
    assert main(["prices", "show", "mistral", "--at", "2026-12-01"]) == 1
    assert "no price then" in capsys.readouterr().out
    assert main(["prices", "show", "mistral-7b"]) == 0
    assert "from always for ever" in capsys.readouterr().out


def test_show_asks_for_a_book(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_COST_LOGGER_PRICES_FILE", raising=False)
    assert main(["prices", "show", "mistral"]) == 2
    assert "set OTEL_COST_LOGGER_PRICES_FILE" in capsys.readouterr().err


def test_it_works_with_a_broken_book_in_the_environment_and_the_plugin_does_not(book: Path) -> None:
    book.write_text(BOOK.replace("0.20", "cheap"))
    environment = os.environ | {"OTEL_COST_LOGGER_PRICES_FILE": str(book)}
    check = [sys.executable, "-m", "otel_cost_logger", "prices", "check", str(book)]
    checked = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
    assert checked.returncode == 2
    assert checked.stderr.startswith(
        f"error: price book {book}, line 4: 'input_usd_per_million_tokens' must be a number"
    )
    load = [sys.executable, "-c", "from otel_cost_logger import proxy_handler_instance"]
    loaded = subprocess.run(load, env=environment, capture_output=True, text=True, check=False)
    assert loaded.returncode != 0
    assert f"SettingsError: OTEL_COST_LOGGER_PRICES_FILE: price book {book}, line 4: 'input_usd" in loaded.stderr
