"""Does a server answer as a real vLLM did? Recordings of requests and answers, and how to compare.

A recording is one JSON file: the request, the answer, and in `server_args` the flags of `vllm serve` that the
server was started with beside `--served-model-name mistral-tiny --max-model-len 1024`. What a model says and how
many tokens a text has belong to the model. Compared are status, content type, keys and their order, types, error
texts, framing, finish reasons and token arithmetic.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

# Values that belong to one answer, one vocabulary or one moment: only their type is compared.
OF_ONE_ANSWER = frozenset(
    {
        "id", "created", "created_at", "content", "text", "token", "logprob", "bytes", "tokens", "token_ids",
        "token_strs", "prompt_token_ids", "prompt", "prompt_text", "count", "prompt_tokens", "total_tokens",
        "input_tokens", "original_input_tokens", "cached_tokens", "created_cache_tokens", "system_fingerprint",
        "item_id", "rank", "decoded_token", "text_offset", "token_logprobs", "time_to_first_token_ms",
        "generation_time_ms", "queue_time_ms", "mean_itl_ms", "tokens_per_second", "cache_creation_input_tokens",
        "cache_read_input_tokens", "server_load", "root",
    }
)  # fmt: skip

# Objects whose keys are tokens, and lists with an element per token.
_BY_TOKEN = frozenset({"top_logprobs", "prompt_logprobs"})


@dataclass(frozen=True)
class Answer:
    """`content_type` None means that the recording does not say."""

    status: int
    content_type: str | None
    text: str


@dataclass(frozen=True)
class Recording:
    name: str
    request: dict[str, Any]
    answer: Answer
    server_args: tuple[str, ...]
    whole: bool

    @property
    def path(self) -> str:
        return str(self.request["path"])


def load(path: Path) -> Recording:
    """One file. Raises `KeyError` for one that is no recording."""
    stored = json.loads(path.read_text())
    response = stored["response"]
    text = response["body"] if "body" in response else response["body_text"]
    answer = Answer(response["status"], response.get("content_type"), text)
    return Recording(
        path.stem,
        stored["request"],
        answer,
        tuple(stored.get("server_args", ())),
        # One that ends where its client left.
        whole=path.stem != "chat_stream_client_abort",
    )


def store(path: Path, recording: Recording, server: str) -> None:
    """Write one file; `server` says in words what answered."""
    answer = recording.answer
    stored = {
        "name": recording.name,
        "server": server,
        **({"server_args": list(recording.server_args)} if recording.server_args else {}),
        "request": recording.request,
        "response": {"status": answer.status, "content_type": answer.content_type, "body": answer.text},
    }
    path.write_text(json.dumps(stored, indent=1) + "\n")


def send(recording: Recording, url: str, headers: dict[str, str] | None = None, timeout: float = 60.0) -> Answer:
    """Make the recorded request of the server at `url`, with more headers if any are given."""
    request = recording.request
    sent = {**(request.get("headers") or {}), **(headers or {})}
    content: str | None = request.get("raw_body")
    if request.get("body") is not None:
        content = json.dumps(request["body"])
        sent.setdefault("Content-Type", "application/json")
    response = _client().request(
        request["method"], f"{url}{recording.path}", content=content, headers=sent, timeout=timeout
    )
    return Answer(response.status_code, response.headers.get("content-type"), response.text)


@functools.cache
def _client() -> httpx.Client:
    """One for the process, as making one takes longer than a request; each request has a connection of its own."""
    return httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))


def differences(recording: Recording, actual: Answer) -> list[str]:
    """Where an answer differs in what all servers should share; nothing if it conforms."""
    expected = recording.answer
    found = [] if expected.status == actual.status else ["status"]
    if expected.content_type is not None and expected.content_type != actual.content_type:
        found.append("content type")
    if is_stream(expected.text) != is_stream(actual.text):
        return [*found, "body"]
    if is_stream(expected.text):
        left, right = events(expected.text), events(actual.text)
        return found + _stream_differences(left, right if recording.whole else right[: len(left)])
    if not expected.text or not actual.text:
        return found + ([] if expected.text == actual.text else ["body"])
    return found + value_differences(json.loads(expected.text), json.loads(actual.text), "body")


def is_stream(text: str) -> bool:
    return text.startswith(("data: ", "event: "))


def events(text: str) -> list[Any]:
    """The data of server-sent events, decoded, each framed as vLLM does; `[DONE]` stays a string.

    Raises `ValueError` for other framing.
    """
    if not text.endswith("\n\n"):
        raise ValueError(f"a stream ends with a blank line, not with {text[-40:]!r}")
    decoded = []
    for event in text[:-2].split("\n\n"):
        name, _, data = event.rpartition("\n")
        if not data.startswith("data: ") or "\n" in name or (name and not name.startswith("event: ")):
            raise ValueError(f"no server-sent event of vLLM's: {event!r}")
        value: Any = data[6:] if data == "data: [DONE]" else json.loads(data[6:])
        if name and value.get("type") != name[7:]:
            raise ValueError(f"an event is named after its type, and this is not: {event!r}")
        decoded.append(value)
    return decoded


def value_differences(expected: Any, actual: Any, path: str) -> list[str]:
    """Places where two decoded answers differ in shape, or in a value that is not of one answer only."""
    name = path.rpartition(".")[2].partition("[")[0]
    if isinstance(expected, dict) and isinstance(actual, dict):
        if name in _BY_TOKEN and "token" not in expected:
            return [] if bool(expected) == bool(actual) else [f"{path}: length"]
        found = [f"{path}: keys"] if list(expected) != list(actual) else []
        for key in expected.keys() & actual.keys():
            found += value_differences(expected[key], actual[key], f"{path}.{key}")
        return sorted(found)
    if isinstance(expected, list) and isinstance(actual, list):
        found = []
        free = name in OF_ONE_ANSWER or name in _BY_TOKEN
        if bool(expected) != bool(actual) or (len(expected) != len(actual) and not free):
            found.append(f"{path}: length")
        for index, (left, right) in enumerate(zip(expected, actual, strict=False)):
            found += value_differences(left, right, f"{path}[{index}]")
        return found
    if type(expected) is not type(actual):
        return [f"{path}: type"]
    return [] if expected == actual or name in OF_ONE_ANSWER else [f"{path}: value"]


def _stream_differences(expected: list[Any], actual: list[Any]) -> list[str]:
    """The same for streams: choice by choice, as their chunks interleave differently, then what is around."""
    found = []
    for index in sorted({_choice_of(event) for event in expected}):
        left = _of_choice(expected, index)
        right = _of_choice(actual, index)
        if len(left) != len(right):
            # The ends belong together, whatever is between them.
            found.append(f"stream of choice {index}: length")
            shared = min(len(left), len(right)) - 1
            left, right = [*left[:shared], left[-1]], [*right[:shared], right[-1]]
        for number, (one, other) in enumerate(zip(left, right, strict=False)):
            found += value_differences(one, other, f"choice {index} event {number}")
    return found


def _of_choice(all_events: list[Any], index: int) -> list[Any]:
    """The events of a choice; of deltas of text in a row, which may share an event or have one each, the first."""
    kept: list[Any] = []
    for event in all_events:
        if _choice_of(event) != index:
            continue
        if kept and _is_text(event) and _is_text(kept[-1]):
            continue
        kept.append(event)
    for number, event in enumerate(kept):
        if isinstance(event, dict) and "sequence_number" in event:
            kept[number] = (
                {**event, "sequence_number": number, "delta": ""}
                if "delta" in event
                else {
                    **event,
                    "sequence_number": number,
                }
            )
    return kept


def _is_text(event: Any) -> bool:
    return isinstance(event, dict) and event.get("type") in ("content_block_delta", "response.output_text.delta")


def _choice_of(event: Any) -> int:
    """The choice that a chunk belongs to; -1 for what is not part of one: usage, errors, the end."""
    choices = event.get("choices") if isinstance(event, dict) else None
    return choices[0]["index"] if choices else -1
