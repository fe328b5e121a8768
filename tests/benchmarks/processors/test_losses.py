"""Spans lost for real, in miniature: killed, told to end, and too many at once; all of them by their ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness.results import load_result
from benchmarks.processors import losses
from benchmarks.processors.names import (
    BATCH,
    BATCH_FLUSHING,
    BURST,
    DURABLE,
    KILL,
    TERMINATE,
)
from workbook.paths import BUILD_VARIABLE

PLAN = {
    KILL: (BATCH, DURABLE),
    TERMINATE: (BATCH, BATCH_FLUSHING),
    BURST: (BATCH, DURABLE),
}


def test_more_spans_than_can_be_told_apart_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    for words in (["--flood", "65536"], ["--rate", "2000"]):
        assert command_line.main(["processors", "--phases", "losses", *words, "--out", str(tmp_path / "results")]) == 1
        assert "cannot be told apart" in capsys.readouterr().err


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_span_is_accounted_for(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    plan = PLAN if protocol == "http/protobuf" else {KILL: PLAN[KILL]}
    monkeypatch.setattr(losses, "LOSS_PLAN", plan)
    monkeypatch.setattr(losses, "_EARLIEST", 0.5)  # long before a batch is sent
    monkeypatch.setattr(losses, "_LATEST", 1.0)
    words = ["processors", "--phases", "losses", "--protocol", protocol, "--runs", "1"]
    words += ["--flood", "4000"]
    assert command_line.main([*words, "--out", str(tmp_path / "results")]) == command_line.NOT_FOR_QUOTING
    (path,) = (tmp_path / "results").glob("*/*-processors.json")
    result = load_result(path)
    # Everything but the size and the company that the tests have is as it should be: it adds up.
    assert [reason for reason in result.validity.reasons if "busy" not in reason] == [
        "losses: 1 runs are too few: it takes 4",
    ]
    samples: dict[tuple[str, str], Any] = {(s["scenario"], s["processor"]): s for s in result.samples}
    assert set(samples) == {(scenario, processor) for scenario in plan for processor in plan[scenario]}
    assert samples[KILL, BATCH]["dropped"] == samples[KILL, BATCH]["ended"] > 0
    for (_, processor), one in samples.items():
        if processor == DURABLE:
            assert (one["dropped"], one["pending"], one["delivered"]) == (0, 0, one["ended"])
    if protocol == "http/protobuf":
        assert samples[TERMINATE, BATCH]["dropped"] == samples[TERMINATE, BATCH]["ended"] > 0
        assert samples[TERMINATE, BATCH_FLUSHING]["dropped"] == 0
        assert samples[BURST, BATCH]["ended"] == samples[BURST, DURABLE]["delivered"] == 4000
    assert str(tmp_path) not in result.model_dump_json()
    assert list((tmp_path / "build").rglob("*.db*")) == []
