"""Requests that somebody may send to the proxy, drawn at random: any road to an engine, and any shape of body."""

from __future__ import annotations

from dataclasses import dataclass, field
from reprlib import Repr
from typing import Any

from hypothesis import strategies as st

STAYS, LEAVES_IN_MID_STREAM = "stays", "leaves in mid-stream"


_SHORT = Repr(maxlevel=12, maxdict=40, maxlist=12, maxstring=60, maxother=60)


@dataclass(frozen=True)
class Request:
    """What is posted to ``path``: ``body`` as JSON, or as it is where it is bytes. ``caller`` says how long who asks
    waits for the answer."""

    path: str
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    caller: str = STAYS

    def __repr__(self) -> str:
        return f"Request({self.path!r}, {_SHORT.repr(self.body)}, {self.headers}, {self.caller!r})"


def _sometimes(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One of ``odd`` in sixteen."""
    return st.integers(0, 15).flatmap(lambda number: odd if number == 15 else usual)


_ODD = st.sampled_from([None, "", "x", 0, -1, 1.5, True, [], {}, [1], {"a": 1}, 2**70, "1"])
_TEXT = st.sampled_from(
    [
        *("Who pays for this?", "a", "And who for that?", "Tell me of a long day.") * 4,
        "",
        "ignore \u202e\u0000 that",
        "日本語のテキスト" * 20,
        "🦊" * 300,
        "word " * 1000,
        "word " * 9000,  # more than the engine's context
        "\ud800",
    ]
)
_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": _sometimes(st.sampled_from(["user", "assistant", "system"]), _ODD),
            "content": _sometimes(_TEXT, st.one_of(_ODD, st.just([{"type": "text", "text": "part"}]))),
        }
    ),
    min_size=1,
    max_size=3,
)
_PROMPTS = st.one_of(
    _TEXT, st.lists(_TEXT, max_size=3), st.just([1, 2, 3]), st.just([[1, 2], [3]]), st.just(["one", [1, 2]])
)
_TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
_USER = {"user_api_key_team_id": "tenant-other", "user_api_key_alias": "other", "tenant_id": "tenant-other"}
_NOTES = _sometimes(st.sampled_from([_USER, {"tags": ["a"]}, {}]), _ODD)
_SPOOFED: dict[str, st.SearchStrategy[Any]] = {
    "user": _sometimes(st.sampled_from(["tenant-other", "ü" * 300]), _ODD),
    "metadata": _NOTES,
    "litellm_metadata": _NOTES,
    "user_api_key_dict": st.just(_USER),
    "team_id": st.just("tenant-other"),
    "tags": _ODD,
    "litellm_call_id": st.sampled_from(["one-id-for-all", 5]),
    "proxy_server_request": st.just({"headers": {}, "body": {}}),
    "standard_logging_object": st.just({"prompt_tokens": 0}),
}
_SWITCHES: dict[str, st.SearchStrategy[Any]] = {
    "no-log": st.just(True),
    "cache": st.sampled_from([{"no-cache": True}, {"use-cache": True}, "x"]),
    "num_retries": st.sampled_from([0, 1, 2]),
    "max_retries": st.sampled_from([0, 1]),
    "fastest_response": st.just(True),
    "drop_params": st.just(True),
    "additional_drop_params": st.just(["stream_options"]),
    "allowed_openai_params": st.just(["stream_options"]),
    "custom_llm_provider": st.sampled_from(["openai", "nobody"]),
    "stream_timeout": st.sampled_from([0.001, 5]),
    "timeout": st.sampled_from([0.001, 5]),
    "mock_response": st.just("made up"),
    "mock_testing_fallbacks": st.just(True),
    "input_cost_per_token": st.just(0),
    "model_info": st.just({"id": "x", "input_cost_per_token": 0}),
    "background": _ODD,
    "store": st.just(True),
    "extra_body": st.sampled_from(
        [{"n": 2}, {"stream": True}, {"model": "other"}, {"max_tokens": 3}, {"stream_options": None}, "x", None]
    ),
    "extra_headers": st.sampled_from([{"x": "y"}, {"content-length": "1"}, "x"]),
}
_SAMPLING: dict[str, st.SearchStrategy[Any]] = {
    "n": _sometimes(st.sampled_from([1, 2, 3]), _ODD),
    "temperature": _sometimes(st.sampled_from([0, 0.7, 1.0]), _ODD),
    "stop": _sometimes(st.sampled_from(["e", ["e", "a"], []]), _ODD),
    "stream_options": _sometimes(
        st.sampled_from(
            [{"include_usage": True}, {"include_usage": False}, {"include_usage": True, "continuous_usage_stats": True}]
        ),
        _ODD,
    ),
    "logprobs": _sometimes(st.sampled_from([True, False, 1]), _ODD),
    "ignore_eos": st.booleans(),
    "min_tokens": st.sampled_from([0, 3, 50]),
    "seed": _ODD,
    "return_token_ids": st.just(True),
    "echo": st.booleans(),
    "best_of": st.sampled_from([1, 2]),
    "suffix": st.sampled_from(["", "end"]),
    "tools": _sometimes(st.just(_TOOLS), _ODD),
    "tool_choice": st.sampled_from(["auto", "none", {"type": "function", "function": {"name": "f"}}]),
    "response_format": st.sampled_from([{"type": "json_object"}, {"type": "text"}, "x"]),
    "thinking": st.just({"type": "enabled", "budget_tokens": 5}),
    "reasoning_effort": st.just("low"),
}
_FAULTS = st.sampled_from(["500", "503", "429", "401", "cut:0", "cut:1", "cut:4", "die:0", "die:2", "die:6"])
_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "x-litellm-call-id": st.just("one-id-for-all"),
        "x-litellm-timeout": st.sampled_from(["5", "x"]),
        "x-litellm-num-retries": st.just("1"),
        "x-litellm-tags": st.just("a,b"),
        "x-litellm-end-user-id": st.just("tenant-other"),
        "traceparent": st.sampled_from(["00-" + "1" * 32 + "-" + "2" * 16 + "-01", "x"]),
        "accept-encoding": st.sampled_from(["identity", "gzip", "br"]),
        "x-forwarded-for": st.just("10.0.0.1"),
    },
)
_MAX = _sometimes(st.sampled_from([1, 5, 20]), _ODD)

CHAT = (
    "/v1/chat/completions",
    "/chat/completions",
    "/openai/deployments/{}/chat/completions",
    "/cursor/chat/completions",
)
TEXT = ("/v1/completions", "/engines/{}/completions")
RAW_CHAT = ("/vllm/chat/completions", "/vllm/v1/chat/completions")
RAW_TEXT = ("/vllm/completions", "/vllm/v1/completions")
MESSAGES = ("/v1/messages", "/vllm/v1/messages")
RESPONSES = ("/v1/responses", "/openai/v1/responses", "/vllm/responses")
INTERACTIONS = ("/v1beta/interactions", "/interactions")
GOOGLE = ("/v1beta/models/{}:generateContent", "/models/{}:streamGenerateContent")


@st.composite
def _openai(draw: st.DrawFn, paths: tuple[str, ...], model: str, content: str, what: Any, limit: str) -> Request:
    """A request of one of the forms that have a ``model`` and a ``stream``."""
    path = draw(st.sampled_from(paths)).replace("{}", model)
    body: dict[str, Any] = {"model": model, content: draw(what), limit: draw(_MAX)}
    if draw(st.booleans()):
        body["stream"] = draw(_sometimes(st.sampled_from([True, True, False]), _ODD))
    for group in (_SAMPLING, _SPOOFED, _SWITCHES):
        names = draw(st.lists(st.sampled_from(sorted(group)), max_size=2 if group is _SAMPLING else 1, unique=True))
        body |= {name: draw(group[name]) for name in names}
    if draw(st.integers(0, 3)) == 3:
        body["mock_fault"] = draw(_FAULTS)
    if draw(st.integers(0, 15)) == 15:
        body["fallbacks"] = [model]
    if draw(st.integers(0, 15)) == 15:
        del body[draw(st.sampled_from([content, limit]))]
    caller = STAYS
    leaves = draw(st.integers(0, 15)) == 15
    # Who leaves one of these in mid-stream is not recorded right yet.
    if body.get("stream") is True and leaves and not path.endswith(("/responses", "/interactions")):
        caller, body["mock_fault"] = LEAVES_IN_MID_STREAM, draw(st.sampled_from(["hang:1", "hang:3", "hang:8"]))
    headers = draw(_HEADERS) if draw(st.booleans()) else {}
    if draw(st.integers(0, 24)) == 24:
        return Request(path, draw(st.sampled_from([b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"model": 1}'])))
    return Request(path, body, headers, caller)


@st.composite
def _google(draw: st.DrawFn, model: str) -> Request:
    part = {"parts": [{"text": draw(_sometimes(_TEXT, _ODD))}]}
    body: dict[str, Any] = {"contents": [{"role": "user", **part}], "generationConfig": {"maxOutputTokens": draw(_MAX)}}
    if draw(st.booleans()):
        body["systemInstruction"] = part
    if draw(st.integers(0, 3)) == 3:
        body["generationConfig"]["candidateCount"] = draw(st.sampled_from([1, 2, 0]))
    if draw(st.integers(0, 7)) == 7:
        body["mock_fault"] = draw(_FAULTS)
    path = draw(st.sampled_from(GOOGLE)).replace("{}", model)
    return Request(path, draw(_sometimes(st.just(body), st.sampled_from([b"", b"{", [], {"contents": 5}]))))


def generating(model: str) -> st.SearchStrategy[Request]:
    """Any request that names ``model``, on any road where the name chooses the engine."""
    return st.one_of(
        _openai(CHAT, model, "messages", _MESSAGES, "max_tokens"),
        _openai(TEXT, model, "prompt", _PROMPTS, "max_tokens"),
        _openai(RAW_CHAT, model, "messages", _MESSAGES, "max_tokens"),
        _openai(RAW_TEXT, model, "prompt", _PROMPTS, "max_tokens"),
        _openai(MESSAGES, model, "messages", _MESSAGES, "max_tokens"),
        _openai(RESPONSES, model, "input", st.one_of(_TEXT, _MESSAGES), "max_output_tokens"),
        _openai(INTERACTIONS, model, "input", st.one_of(_TEXT, _MESSAGES), "max_output_tokens"),
        _google(model),
    )


_MODELS = st.sampled_from(
    ["mistral-7b", "mistral-7b-unpriced", "embed", "rerank", "whisper", "no-such-model", "mistral-7b,embed", ""]
)


@st.composite
def _others(draw: st.DrawFn) -> Request:
    """What generates nothing, what is passed through to a fixed address, and closed roads."""
    texts = draw(st.one_of(_TEXT, st.lists(_TEXT, max_size=3), _ODD))
    chat = {"model": "mistral-7b", "max_tokens": 5, "messages": draw(_MESSAGES), "stream": draw(st.booleans())}
    pair = {"model": draw(_MODELS), "query": "q", "documents": draw(st.one_of(st.lists(_TEXT, max_size=2), _ODD))}
    return draw(
        st.sampled_from(
            [
                *(Request(path, chat) for path in ("/direct", "/below/chat/completions", "/azure/chat/completions")),
                *(Request(path, chat) for path in ("/azure_ai/chat/completions", "/bedrock/model/x/invoke")),
                *(Request(path, chat) for path in ("/v1/batches", "/v1/images/generations", "/anthropic/v1/messages")),
                *(Request(path, pair) for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/vllm/rerank")),
                Request("/vllm/score", {"model": "mistral-7b", "text_1": texts, "text_2": "b"}),
                Request("/v1/embeddings", {"model": "embed", "input": texts, "stream": True}),
                Request("/vllm/embeddings", {"model": "embed", "input": texts}),
                Request("/engines/embed/embeddings", {"input": texts}),
                Request("/v1/audio/speech", {"model": "whisper", "input": texts, "voice": "a"}),
            ]
        )
    )


def any_request() -> st.SearchStrategy[Request]:
    """Any request at all, of any model that this proxy knows or does not know."""
    return st.one_of(_others(), _MODELS.flatmap(generating))
