"""Calls through the real proxy on a bad day, with the mock and receiver, as small as it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness.results import load_result
from benchmarks.processors import proxied
from workbook.paths import BUILD_VARIABLE

RUNS = [(processor, scenario) for scenario in ("kill", "503") for processor in ("batch", "durable")]


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_kill_and_an_outage_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch loses what it holds when it is killed; the file loses nothing that was written to it."""
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    monkeypatch.setattr(proxied.names, "PROXY_SCENARIOS", ("kill", "503"))
    monkeypatch.setattr(proxied.names, "PROCESSORS", ("batch", "durable"))
    never = {"batch": "600000"}  # however slow this machine is, a batch waits longer
    monkeypatch.setattr(proxied, "_DELAY_MS", proxied._DELAY_MS | never)
    monkeypatch.setattr(proxied, "AT_A_TIME", 4)
    monkeypatch.setattr(proxied, "_SETTLE_SECONDS", 1.0)
    words = ["run", "processors", "--phases", "proxy", "--calls", "24", "--outage-seconds", "3"]
    words += ["--out", str(tmp_path / "results")]
    assert command_line.main(words) == command_line.NOT_FOR_QUOTING
    (path,) = (tmp_path / "results").glob("*/*-processors.json")
    result = load_result(path)
    # Everything but the size and the company that the tests have is as it should be: it adds up.
    assert [reason for reason in result.validity.reasons if "busy machine" not in reason] == [
        "proxy: 24 calls are too few: it takes 1000",
        "proxy: an outage of 3 s is too short: 20 s",
    ]
    samples = {(sample["processor"], sample["scenario"]): sample for sample in result.samples}
    assert list(samples) == RUNS
    batch, durable = samples["batch", "kill"], samples["durable", "kill"]
    for killed in (batch, durable):
        assert list(killed["failed"]) == ["disconnected"]
        assert 1 <= killed["failed"]["disconnected"] <= 4
    assert batch["dropped"] >= 12, "all from before the kill"
    assert durable["noticed"] == durable["dropped"] < batch["dropped"]
    for processor in ("batch", "durable"):
        refused = samples[processor, "503"]
        assert (refused["produced"], refused["failed"], refused["exported"]) == (24, {}, 24)
        assert 1 <= len(refused["outage_ms"]) <= 12
    assert samples["batch", "503"]["pending_after_outage"] is None
    assert samples["durable", "503"]["pending_after_outage"] >= 1
    assert str(tmp_path) not in result.model_dump_json()
