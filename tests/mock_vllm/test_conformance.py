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

import conformance
import httpx
import pytest
from conformance import Answer
from prometheus_client.parser import text_string_to_metric_families

WIRE = Path(__file__).parent / "wire"
RECORDINGS = {path.stem: conformance.load(path) for path in sorted(WIRE.glob("*.json")) if path.stem[:4] != "otlp"}
MEANT = tomllib.loads((Path(__file__).parent / "meant_differences.toml").read_text())["difference"]

RECORDED_SERVER = ("models/tiny-mistral", "--served-model-name", "mistral-tiny", "--max-model-len", "1024")
SWITCHES = {
    # A server with one place, which the test takes.
    "limits": ("--api-key", "the-key", "--max-num-queued-reqs", "1", "--ttft-ms", "600000"),
    "engine_crash": ("--enable-faults",),
}


def replay(name: str, shared: Callable[..., Any]) -> Answer:
    """Send a recorded request to a mock that was started as the recorded server was."""
    recording = RECORDINGS[name]
    kind = next((prefix for prefix in SWITCHES if name.startswith(prefix)), "")
    server = shared(*RECORDED_SERVER, *recording.server_args, *SWITCHES.get(kind, ()))
    headers = {}
    if kind == "engine_crash":
        headers["x-mock-fault"] = f"die:{recording.answer.text.count('chat.completion.chunk')}"
    with ExitStack() as stack:
        if name == "limits_overload_nonstream":
            request = recording.request
            waiting = {**request["body"], "stream": True}
            url = f"{server.url}{recording.path}"
            stack.enter_context(httpx.stream("POST", url, json=waiting, headers=request["headers"]))
        return conformance.send(recording, server.url, headers)


@pytest.mark.parametrize("name", RECORDINGS)
def test_answers_as_recorded(name: str, shared: Callable[..., Any]) -> None:
    answer = replay(name, shared)
    meant = {entry["at"] for entry in MEANT if entry["recording"] == name}
    assert set(conformance.differences(RECORDINGS[name], answer)) == meant, answer.text


@pytest.mark.parametrize("entry", MEANT, ids=lambda entry: f"{entry['recording']}: {entry['at']}")
def test_every_meant_difference_has_a_recording_and_a_reason(entry: dict[str, str]) -> None:
    assert entry["recording"] in [*RECORDINGS, "metrics"]
    assert entry["reason"]


def usages(text: str) -> list[dict[str, int]]:
    """Every `usage` in an answer, wherever its API puts it."""
    found: list[dict[str, int]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("usage"), dict):
                found.append(value["usage"])
            for inner in value.values():
                walk(inner)

    for value in conformance.events(text) if conformance.is_stream(text) else [json.loads(text)]:
        walk(value)
    return found


@pytest.mark.parametrize(
    "name", [name for name, recording in RECORDINGS.items() if '"usage":{' in recording.answer.text]
)
def test_usage_adds_up(name: str, shared: Callable[..., Any]) -> None:
    usage = usages(replay(name, shared).text)[-1]
    prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    completion = usage.get("completion_tokens", usage.get("output_tokens", 0))
    assert usage.get("total_tokens", prompt + completion) == prompt + completion
    assert prompt > 0
    assert completion > 0


def test_echoes_the_request_id_as_recorded(shared: Callable[..., Any]) -> None:
    answer = replay("chat_echo_request_id", shared)
    assert json.loads(answer.text)["id"] == json.loads(RECORDINGS["chat_echo_request_id"].answer.text)["id"]


@pytest.mark.parametrize("name", ["chat_basic", "completions_basic"])
def test_fingerprint_has_the_recorded_form(name: str, shared: Callable[..., Any]) -> None:
    for answer in (RECORDINGS[name].answer, replay(name, shared)):
        assert re.fullmatch(r"vllm-0\.32\.0-[0-9a-f]{8}", json.loads(answer.text)["system_fingerprint"])


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
