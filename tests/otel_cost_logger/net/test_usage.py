"""Tokens are found wherever an answer carries them, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_cost_logger.net.usage import AnswerReader, Usage, usage_in


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}, Usage(10, 5)),
        (
            {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}}},
            Usage(10, 5, 0),
        ),
        ({"usage": {"total_tokens": 42}}, Usage(42, 0)),
        ({"usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 2}}, Usage(3, 4, 2)),
        ({"usage": {"total_input_tokens": 6, "total_output_tokens": 55}}, Usage(6, 55)),
        ({"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}, Usage(3, 4)),
        ({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 0}}}, Usage(3, 0)),
        (
            {"usageMetadata": {"promptTokenCount": 6, "candidatesTokenCount": 8, "thoughtsTokenCount": 2}},
            Usage(6, 10, None, 2),
        ),
        ({"meta": {"billed_units": {"total_tokens": 42}, "tokens": {"input_tokens": 42}}}, Usage(42, 0)),
        ({"usage": {"type": "duration", "seconds": 10}}, None),
        ({"usage": None}, None),
        ({"choices": [{"usage": {"prompt_tokens": 1}}]}, None),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": True}}, None),
        (["usage"], None),
        (None, None),
    ],
)
def test_each_form_of_usage(document: Any, usage: Usage | None) -> None:
    assert usage_in(document) == usage


def events(*documents: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_stream_is_read_in_whatever_pieces_it_comes(size: int) -> None:
    stream = events(
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 0}}},
        {"delta": {"text": 'the word "usage": {"input_tokens": 900}'}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 4}},
    )
    reader = AnswerReader(stream=True)
    for start in range(0, len(stream), size):
        reader.feed(stream[start : start + size])
    assert reader.usage() == Usage(3, 4)
    assert not reader.failed


def test_a_stream_that_breaks_off_says_so_and_keeps_what_was_counted() -> None:
    reader = AnswerReader(stream=True)
    reader.feed(events({"choices": [{"delta": {}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}))
    reader.feed(events({"error": {"code": 500}}) + b"data: [DONE]\n\n")
    assert reader.failed
    assert reader.usage() == Usage(3, 1)


def test_an_answer_that_is_not_json_has_no_usage() -> None:
    for body in (b"", b"<html>", b'{"usage": {"prompt_tokens": 1}', b"\xff\xfe"):
        reader = AnswerReader(stream=False)
        reader.feed(body)
        assert reader.usage() is None


def test_without_a_count_the_pieces_of_an_answer_are_counted() -> None:
    for pieces in (
        [
            b'event: response.content_part.added\ndata: {"part":{"text":""}}',
            b'event: response.output_text.delta\r\ndata: {"delta":"a"}',
            b'event: response.output_text.done\ndata: {"text":"a"}',
        ],
        [
            b'event: content_block_start\ndata: {"content_block":{"type":"text","text":""}}',
            b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"a"}}',
            b'event: message_delta\ndata: {"delta":{"stop_reason":"end_turn"}}',
        ],
        [b'data: {"choices":[{"delta":{"content":"a"}}]}'],
        [b'data: {"choices":[{"text":"a"}]}'],
        [b'data: {"candidates":[{"content":{}}]}'],
    ):
        reader = AnswerReader(stream=True)
        reader.feed(b"".join(piece + b"\n\n" for piece in pieces) + b"data: [DONE]\n\n")
        assert (reader.deltas, reader.usage()) == (1, None)


def test_pieces_after_the_last_count_are_known_to_be_uncounted() -> None:
    reader = AnswerReader(stream=True)
    piece = b'data: {"delta": {"text": "a"}}\n\n'
    reader.feed(b'data: {"message": {"usage": {"input_tokens": 10, "output_tokens": 1}}}\n\n' + piece * 3)
    assert (reader.deltas, reader.uncounted) == (3, 3)
    reader.feed(b'data: {"delta": {}, "usage": {"output_tokens": 3}}\n\n')
    assert reader.uncounted == 0
