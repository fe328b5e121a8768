"""`make record`, tried on the mock: what it writes, and what it calls a change of shape."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import conformance
import pytest
from conformance import Answer, Recording

RECORD = Path(__file__).parent / "record.py"
REQUEST = {
    "method": "POST",
    "path": "/v1/chat/completions",
    "body": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "ignore_eos": True},
}


def run(wire: Path, url: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECORD), "--url", url, "--wire", str(wire), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def wire(tmp_path: Path, mock: Any) -> Path:
    """A folder with two recordings of the mock, one of them of a server with flags."""
    recording = Recording("chat", REQUEST, Answer(0, None, ""), (), whole=True)
    answered = replace(recording, answer=conformance.send(recording, mock.url))
    conformance.store(tmp_path / "chat.json", answered, "the mock")
    conformance.store(tmp_path / "flagged.json", replace(answered, name="flagged", server_args=("--x",)), "the mock")
    return tmp_path


def test_what_has_not_changed_is_no_drift(wire: Path, mock: Any) -> None:
    before = (wire / "flagged.json").read_text()
    result = run(wire, mock.url)
    assert (result.returncode, result.stdout) == (0, "0 changes of shape\n"), result.stderr
    assert json.loads((wire / "chat.json").read_text())["server"].startswith("real vLLM 0.32.0")
    assert (wire / "flagged.json").read_text() == before, "it needs other flags"


def test_a_change_of_shape_is_told_and_a_check_writes_nothing(wire: Path, mock: Any) -> None:
    stored = json.loads((wire / "chat.json").read_text())
    body = json.loads(stored["response"]["body"])
    body["choices"][0]["finish_reason"] = "stop"
    body["new_field"] = body.pop("metrics")
    stored["response"].update(status=201, body=json.dumps(body))
    (wire / "chat.json").write_text(json.dumps(stored))
    result = run(wire, mock.url, "--check")
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        "chat: status",
        "chat: body.choices[0].finish_reason: value",
        "chat: body: keys",
        "3 changes of shape",
    ]
    assert json.loads((wire / "chat.json").read_text()) == stored
    run(wire, mock.url)
    assert run(wire, mock.url).returncode == 0, "it is recorded now"


def test_a_server_that_is_not_there_is_said_to_be_none(wire: Path) -> None:
    result = run(wire, "http://127.0.0.1:9")
    assert result.returncode == 1
    assert "http://127.0.0.1:9 does not answer" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("expected", "actual", "found"),
    [
        ({"a": 1}, {"a": 2}, ["body.a: value"]),
        ({"a": 1}, {"a": 1.0}, ["body.a: type"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ["body: keys"]),
        ({"a": [1]}, {"a": [1, 2]}, ["body.a: length"]),
        ({"token_ids": [1]}, {"token_ids": [1, 2]}, []),
        ({"token_ids": [1]}, {"token_ids": []}, ["body.token_ids: length"]),
        ({"id": "x"}, {"id": "y"}, []),
        ({"id": "x"}, {"id": None}, ["body.id: type"]),
    ],
)
def test_what_differs(expected: Any, actual: Any, found: list[str]) -> None:
    assert conformance.value_differences(expected, actual, "body") == found


@pytest.mark.parametrize("text", ["data: {}", "data: {}\n\nid: 1\n\n", 'event: a\ndata: {"type": "b"}\n\n'])
def test_framing_that_is_not_vllms_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"blank line|no server-sent event|named after its type"):
        conformance.events(text)
