"""The engine is made to count, and the caller gets the bytes that it would have got."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from otel_cost_logger.net.stream_options import Unasked, counting
from otel_cost_logger.net.usage import AnswerReader
from workbook.paths import BUILD_VARIABLE
from workbook.services import Mock

CHAT = {"model": "mistral-7b", "max_tokens": 6, "stream": True, "messages": [{"role": "user", "content": "hi there"}]}
TEXT = {"model": "mistral-7b", "max_tokens": 6, "stream": True, "prompt": "hi there"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BUILD_VARIABLE, str(tmp_path_factory.mktemp("engine")))
        with Mock("counting", args=["--enable-prompt-tokens-details"]) as mock:
            yield mock.url


def normalised(answer: bytes) -> bytes:
    return re.sub(rb'"id":"[^"]*"|"created":\d+', b"", answer)


@pytest.mark.parametrize("size", [1, 50, 100_000])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stream_options": {"include_usage": True}},
        {"stream_options": {"include_usage": False}},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"n": 2, "temperature": 0.5, "seed": 1, "stream_options": {"include_usage": True}},
    ],
)
@pytest.mark.parametrize(("address", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", TEXT)])
def test_the_callers_bytes_are_those_it_asked_for(
    engine: str, address: str, body: dict[str, Any], options: dict[str, Any], size: int
) -> None:
    asked = {**body, **options}
    httpx.post(f"{engine}{address}", json=asked, trust_env=False)  # fills the prefix cache, whose hits are told
    wanted = httpx.post(f"{engine}{address}", json=asked, trust_env=False).content
    counted = httpx.post(f"{engine}{address}", json=counting(asked, address), trust_env=False).content
    reader = AnswerReader(stream=True)
    unasked = Unasked(asked, reader)
    pieces = [counted[start : start + size] for start in range(0, len(counted), size)]
    got = b"".join(unasked.passed(piece, last=number == len(pieces)) for number, piece in enumerate(pieces, 1))
    assert normalised(got) == normalised(wanted)
    usage = reader.usage()
    assert usage is not None
    assert (usage.prompt > 0, usage.completion) == (True, 6 * asked.get("n", 1))


@pytest.mark.parametrize(
    ("body", "address"),
    [
        ({**CHAT, "stream": False}, "/v1/chat/completions"),
        (CHAT, "/v1/messages"),
        ({"input": "a", "stream": True}, "/v1/responses"),
        ({}, "/v1/chat/completions"),
    ],
)
def test_nobody_is_asked_who_would_not_understand(body: dict[str, Any], address: str) -> None:
    assert counting(body, address) is None


def test_somebody_elses_service_is_asked_for_its_last_word_only() -> None:
    asked = counting(CHAT, "https://api.example.com/v1/chat/completions")
    assert asked is not None
    assert asked["stream_options"] == {"include_usage": True}
