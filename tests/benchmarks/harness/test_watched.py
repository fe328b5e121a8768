"""Measuring from a notebook: what it prints is seen as it comes, and a failure is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.watched import MeasurementFailed, _run_in_terminal, measure


def test_a_progress_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print(sys.stderr.isatty()); sys.stderr.write('half\\rwhole\\n'); sys.exit(3)"
    assert _run_in_terminal(["python3", "-c", code]) == 3
    printed = capsys.readouterr().out
    assert "True" in printed
    assert "half\rwhole" in printed


def test_a_refusal_raises_and_its_reason_was_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MeasurementFailed, match="exit code 2"):
        measure("callback_overhead", ["--size", "huge"], tmp_path)
    assert "must be one of full, short, smoke" in capsys.readouterr().out
