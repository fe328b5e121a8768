"""Replays the requests that a real vLLM 0.32.0 was sent, and compares the mock's answers with its own.

The recordings in `wire/` were made with `--served-model-name mistral-tiny --max-model-len 1024`, random
weights and a vocabulary of 2048: what the model says and how many tokens a text has must differ. Status,
content type, keys and their order, types, error texts, framing, finish reasons and token arithmetic must not,
save for what `meant_differences.toml` lists.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

WIRE = Path(__file__).parent / "wire"
RECORDINGS = sorted(path.stem for path in WIRE.glob("*.json"))
MEANT = tomllib.loads((Path(__file__).parent / "meant_differences.toml").read_text())["difference"]

RECORDED_SERVER = ("models/tiny-mistral", "--served-model-name", "mistral-tiny", "--max-model-len", "1024")
SWITCHES = {
    # A server with one place, which the test takes.
    "limits": ("--api-key", "the-key", "--max-num-queued-reqs", "1", "--ttft-ms", "600000"),
    "engine_crash": ("--enable-faults",),
}

# Values that belong to one answer, one vocabulary or one moment: only their type is compared.
OF_ONE_ANSWER = {
    "id", "created", "created_at", "content", "text", "token", "logprob", "bytes", "tokens", "token_ids",
    "prompt_token_ids", "prompt", "count", "prompt_tokens", "total_tokens", "input_tokens",
    "system_fingerprint",
}  # fmt: skip


def load(name: str) -> dict[str, Any]:
    loaded = json.loads((WIRE / f"{name}.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


def recorded_text(name: str) -> str:
    response = load(name)["response"]
    return str(response["body"] if "body" in response else response["body_text"])


def replay(name: str, shared: Callable[..., Any]) -> httpx.Response:
    """Send a recorded request to a mock that was started as the recorded server was."""
    kind = next((prefix for prefix in SWITCHES if name.startswith(prefix)), "")
    server = shared(*RECORDED_SERVER, *SWITCHES.get(kind, ()))
    request = load(name)["request"]
    headers = dict(request.get("headers") or {})
    content: str | None = request.get("raw_body")
    if request.get("body") is not None:
        content = json.dumps(request["body"])
        headers.setdefault("Content-Type", "application/json")
    if kind == "engine_crash":
        headers["x-mock-fault"] = f"die:{recorded_text(name).count('chat.completion.chunk')}"
    with ExitStack() as stack:
        if name == "limits_overload_nonstream":
            waiting = {**request["body"], "stream": True}
            url = f"{server.url}{request['path']}"
            stack.enter_context(httpx.stream("POST", url, json=waiting, headers=headers))
        return httpx.request(
            request["method"], f"{server.url}{request['path']}", content=content, headers=headers, timeout=20
        )


def differences(expected: Any, actual: Any, path: str) -> list[str]:
    """Places where two decoded answers differ in shape, or in a value that is not of one answer only."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        found = [f"{path}: keys"] if list(expected) != list(actual) else []
        for key in expected.keys() & actual.keys():
            found += differences(expected[key], actual[key], f"{path}.{key}")
        return sorted(found)
    name = path.rpartition(".")[2].partition("[")[0]
    if isinstance(expected, list) and isinstance(actual, list):
        found = []
        if bool(expected) != bool(actual) or (len(expected) != len(actual) and name not in OF_ONE_ANSWER):
            found.append(f"{path}: length")
        for index, (left, right) in enumerate(zip(expected, actual, strict=False)):
            found += differences(left, right, f"{path}[{index}]")
        return found
    if type(expected) is not type(actual):
        return [f"{path}: type"]
    return [] if expected == actual or name in OF_ONE_ANSWER else [f"{path}: value"]


def stream_differences(expected: list[Any], actual: list[Any]) -> list[str]:
    """The same for streams: choice by choice, as their chunks interleave differently, then what is around."""
    found = []
    for index in sorted({choice_of(event) for event in expected}):
        left = [event for event in expected if choice_of(event) == index]
        right = [event for event in actual if choice_of(event) == index]
        if len(left) != len(right):
            found.append(f"stream of choice {index}: length")
        for number, (one, other) in enumerate(zip(left, right, strict=False)):
            found += differences(one, other, f"choice {index} event {number}")
    return found


def choice_of(event: Any) -> int:
    """The choice that a chunk belongs to; -1 for what is not part of one: usage, errors, the end."""
    choices = event.get("choices") if isinstance(event, dict) else None
    return choices[0]["index"] if choices else -1


def all_differences(name: str, response: httpx.Response, sse: Callable[[str], list[Any]]) -> list[str]:
    recorded = load(name)["response"]
    found = [] if response.status_code == recorded["status"] else ["status"]
    if recorded.get("content_type") != response.headers.get("content-type") and "content_type" in recorded:
        found.append("content type")
    text = recorded_text(name)
    if not text.startswith("data: "):
        if not text or not response.text:
            return found + ([] if text == response.text else ["body"])
        return found + differences(json.loads(text), response.json(), "body")
    expected, actual = sse(text), sse(response.text)
    if name == "chat_stream_client_abort":
        # The recording ends where its client left.
        actual = actual[: len(expected)]
    return found + stream_differences(expected, actual)


@pytest.mark.parametrize("name", RECORDINGS)
def test_answers_as_recorded(name: str, shared: Callable[..., Any], sse: Callable[[str], list[Any]]) -> None:
    response = replay(name, shared)
    meant = {entry["at"] for entry in MEANT if entry["recording"] == name}
    assert set(all_differences(name, response, sse)) == meant, response.text


@pytest.mark.parametrize("entry", MEANT, ids=lambda entry: f"{entry['recording']}: {entry['at']}")
def test_every_meant_difference_has_a_recording_and_a_reason(entry: dict[str, str]) -> None:
    assert entry["recording"] in [*RECORDINGS, "metrics"]
    assert entry["reason"]


@pytest.mark.parametrize("name", [name for name in RECORDINGS if '"usage"' in recorded_text(name)])
def test_usage_adds_up(name: str, shared: Callable[..., Any], sse: Callable[[str], list[Any]]) -> None:
    response = replay(name, shared)
    streamed = response.text.startswith("data: ")
    usage = sse(response.text)[-2]["usage"] if streamed else response.json()["usage"]
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    assert usage.get("total_tokens", prompt + completion) == prompt + completion
    assert prompt > 0
    assert completion > 0


def test_echoes_the_request_id_as_recorded(shared: Callable[..., Any]) -> None:
    response = replay("chat_echo_request_id", shared)
    assert response.json()["id"] == json.loads(recorded_text("chat_echo_request_id"))["id"]
    assert "x-request-id" not in response.headers


@pytest.mark.parametrize("name", ["chat_basic", "completions_basic"])
def test_fingerprint_has_the_recorded_form(name: str, shared: Callable[..., Any]) -> None:
    for body in (json.loads(recorded_text(name)), replay(name, shared).json()):
        assert re.fullmatch(r"vllm-0\.32\.0-[0-9a-f]{8}", body["system_fingerprint"])


def metric_families(text: str) -> dict[str, Any]:
    """Per metric: type, help, and the label sets of its samples; of Python's own metrics the name alone."""
    return {
        family.name: None
        if family.name.startswith(("python_", "process_"))
        else (
            family.type,
            family.documentation,
            sorted((sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples),
        )
        for family in text_string_to_metric_families(text)
    }


def test_metrics_have_the_recorded_names_help_labels_and_buckets(shared: Callable[..., Any]) -> None:
    response = httpx.get(f"{shared(*RECORDED_SERVER).url}/metrics")
    expected, actual = metric_families((WIRE / "metrics.txt").read_text()), metric_families(response.text)
    assert [name for name in expected if name in actual] == list(actual)
    different = {name for name in expected if expected[name] != actual.get(name, "missing")}
    assert different == {entry["at"] for entry in MEANT if entry["recording"] == "metrics"}
    assert response.headers["content-type"].startswith("text/plain; version=")
