"""A running process follows its price book, and a broken one changes nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from unittest import mock

import pytest

from otel_cost_logger.prices import watched
from otel_cost_logger.prices.reading import PriceBookError
from otel_cost_logger.prices.watched import WatchedBook

BOOK = """\
currency: USD
prices:
  - model: m
    input_usd_per_million_tokens: {price}
    output_usd_per_million_tokens: 0
    source: test
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(BOOK.format(price=1))
    return path


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is looked at whenever it is asked for."""
    monkeypatch.setattr(watched, "_LOOK_SECONDS", 0.0)


def replace(path: Path, text: str) -> None:
    """As an editor or a deployment does it: at one moment."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def nano_usd(book: WatchedBook) -> int:
    found = book.book().find("m", None, 0)
    assert found is not None
    return found.price.nano_usd(1_000_000, 0)


@pytest.mark.usefixtures("at_once")
def test_a_change_is_in_force_with_another_version(path: Path) -> None:
    book = WatchedBook(path)
    before = book.book().version
    assert nano_usd(book) == 10**9
    replace(path, BOOK.format(price=2))
    assert nano_usd(book) == 2 * 10**9
    assert book.book().version != before


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("broken", [BOOK.format(price=-2), "", None], ids=["negative", "empty", "gone"])
def test_a_broken_file_keeps_the_last_good_book_and_says_so_once(
    path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    book = WatchedBook(path)
    path.unlink() if broken is None else replace(path, broken)
    for _ in range(5):
        assert nano_usd(book) == 10**9
    (said,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert str(path) in said.getMessage()
    assert f"the price book read before ({book.book().version}) stays in force" in said.getMessage()
    replace(path, BOOK.format(price=3))
    assert nano_usd(book) == 3 * 10**9


def test_between_two_looks_the_file_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("otel_cost_logger.prices.watched.time.monotonic", lambda: clock[0])
    book = WatchedBook(path)
    with mock.patch.object(Path, "stat", autospec=True, side_effect=os.stat) as looks:
        for clock[0] in (1000.0, 1000.5, 1000.9, 1001.0, 1001.5, 1001.9, 1002.0):
            for _ in range(100):
                book.book()
    assert looks.call_count == 2


def test_a_broken_file_at_the_start_raises(path: Path) -> None:
    path.write_text(BOOK.format(price="free"))
    with pytest.raises(PriceBookError, match=r"prices\.yaml, line 4: .*'free'"):
        WatchedBook(path)
