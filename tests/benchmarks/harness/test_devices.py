"""GPUs as nvidia-smi tells about them: what it knows, what it does not, and machines without one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.harness import provenance
from benchmarks.harness.devices import device_states, devices, parse
from benchmarks.harness.results import Device

TELLS = "NVIDIA H200, 575.57.08, 143771, 9.0, 1980, 700.00"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, first on the path; write what it does."""
    program = tmp_path / "nvidia-smi"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return program


def test_a_device_fits_a_result(nvidia_smi: Path) -> None:
    nvidia_smi.write_text(f"#!/bin/sh\necho '{TELLS}'\n")
    (found,) = devices()
    assert Device.model_validate(found) == Device(
        name="NVIDIA H200",
        driver="575.57.08",
        memory_mib=143771,
        compute_capability="9.0",
        max_sm_clock_mhz=1980,
        power_limit_watts=700.0,
    )


def test_the_machine_is_named_after_its_devices(nvidia_smi: Path) -> None:
    nvidia_smi.write_text(f"#!/bin/sh\necho '{TELLS}'\necho '{TELLS}'\n")
    assert provenance.machine_label() == "2-gpu-nvidia-h200"
    assert len(provenance.machine()["devices"]) == 2


def test_only_questions_are_asked(nvidia_smi: Path, tmp_path: Path) -> None:
    nvidia_smi.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    devices()
    device_states()
    for line in (tmp_path / "asked").read_text().splitlines():
        query, form = line.split()
        assert query.startswith("--query-gpu=")
        assert form == "--format=csv,noheader,nounits"


def test_what_it_does_not_know_is_none() -> None:
    (state,) = parse("512, [N/A], 345, [Not Supported], 41, 0x0000000000000001", [*"abcd", "e", "slowdown_reasons"])
    assert state == {"a": 512, "b": None, "c": 345, "d": None, "e": 41, "slowdown_reasons": "0x0000000000000001"}


def test_a_row_with_another_number_of_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        parse("1, 2, 3", ["a", "b"])


@pytest.mark.parametrize("script", ["#!/bin/sh\necho 'No devices were found'\nexit 6\n", "no program"])
def test_no_device(nvidia_smi: Path, script: str) -> None:
    nvidia_smi.write_text(script)
    assert devices() == device_states() == []
