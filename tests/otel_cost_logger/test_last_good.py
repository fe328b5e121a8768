"""A running process follows the operator's files, and a broken one changes nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from unittest import mock

import pytest

from otel_cost_logger.budgets.book import BudgetsFileError, read_budgets
from otel_cost_logger.last_good import LastGood
from otel_cost_logger.prices.reading import PriceBookError, read_book


def number_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error


def watched(path: Path, look_seconds: float = 0.0) -> LastGood[int]:
    return LastGood(path, number_in, lambda number: f"number {number}", look_seconds=look_seconds)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def replace(path: Path, text: str) -> None:
    """As an editor or a deployment does it: at one moment."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def test_a_change_is_in_force_and_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = watched(path)
    assert file.value == 1
    replace(path, "2")
    with caplog.at_level(logging.INFO):
        assert (file.value, file.value) == (2, 2)
    assert caplog.messages == [f"{path} has changed; now in force: number 2"]


@pytest.mark.parametrize("broken", ["two", "", None], ids=["wrong", "empty", "gone"])
def test_a_broken_file_keeps_the_last_good_state_and_says_so_once(
    path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    file = watched(path)
    path.unlink() if broken is None else replace(path, broken)
    assert [file.value for _ in range(5)] == [1] * 5
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert said.endswith("; what was read before stays in force: number 1")
    replace(path, "3")
    assert file.value == 3


def test_between_two_looks_the_file_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("otel_cost_logger.last_good.time.monotonic", lambda: clock[0])
    file = watched(path, look_seconds=1.0)
    with mock.patch.object(Path, "stat", autospec=True, side_effect=os.stat) as looks:
        for clock[0] in (1000.0, 1000.5, 1000.9, 1001.0, 1001.5, 1001.9, 1002.0):
            for _ in range(100):
                assert file.value == 1
    assert looks.call_count == 2


def test_a_broken_file_at_the_start_raises(path: Path) -> None:
    path.write_text("free")
    with pytest.raises(ValueError, match="free"):
        watched(path)


def test_the_errors_of_the_readers_are_such_as_are_watched_for() -> None:
    """An error of another kind would reach a caller."""
    for read, error in ((read_budgets, BudgetsFileError), (read_book, PriceBookError)):
        assert issubclass(error, ValueError)
        with pytest.raises(error, match="No such file"):
            read(Path("nowhere"))
