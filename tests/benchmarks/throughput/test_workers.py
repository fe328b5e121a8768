"""Several workers of one real proxy, all with the durable callback on one file: every call has its record."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness.results import load_result
from workbook.paths import BUILD_VARIABLE


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_two_workers_on_one_ledger_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    words = ["throughput", "--phases", "workers", "--counts", "2", "--rounds", "2", "--block-seconds", "0.3"]
    words += ["--out", str(tmp_path / "results")]
    assert command_line.main(words) == command_line.NOT_FOR_QUOTING
    (path,) = (tmp_path / "results").glob("*/*-throughput.json")
    result = load_result(path)
    # A machine that runs tests is a busy one, and two rounds are few; records and answers must agree all the same.
    assert all("busy machine" in reason or "rounds are too few" in reason for reason in result.validity.reasons)
    for sample in result.samples:
        assert sample["records"] == (sample["answered"] if sample["arm"] == "durable" else 0)
        assert sample["answered"]
