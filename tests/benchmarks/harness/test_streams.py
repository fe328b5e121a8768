"""The streaming client: what it times, what it counts, and what it does not take for an answer."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from benchmarks.harness.load import Request
from benchmarks.harness.streams import Answer, ask, streamed, varied_prompt
from workbook.services import Mock

TTFT_MS, TPOT_MS = 60.0, 4.0


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    args = ["--ttft-ms", f"{TTFT_MS}", "--tpot-ms", f"{TPOT_MS}", "--served-model-name", "mistral-7b"]
    with Mock("test_streams", args=args) as server:
        yield server


def asking(url: str, **extra: Any) -> Callable[[int, int], Request]:
    def make(number: int, max_tokens: int) -> Request:
        body = {
            "model": "mistral-7b",
            "messages": [{"role": "user", "content": varied_prompt(20, number)}],
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **extra,
        }
        return Request(f"{url}/v1/chat/completions", body, expected=b"")

    return make


def asked(url: str, expected: int, seconds: float = 30.0, **extra: Any) -> Answer | str:
    return asyncio.run(ask(asking(url, **extra)(0, expected), expected, seconds))


def test_times_are_the_servers(mock: Mock) -> None:
    answers = [answer for _ in range(3) if isinstance(answer := asked(mock.url, 20), Answer)]
    assert len(answers) == 3
    for answer in answers:
        assert answer.first_token >= TTFT_MS / 1000
        assert answer.last_token >= (TTFT_MS + 19 * TPOT_MS) / 1000
        assert answer.completion_tokens == 20
    # The quickest was hardly disturbed; a chunk taken for a token, or a token missed, would be 5 per cent off.
    assert min(answer.per_output_token for answer in answers) == pytest.approx(TPOT_MS / 1000, rel=0.2)


def test_a_request_is_a_stream_of_full_length_with_a_prompt_of_its_own() -> None:
    make = streamed("http://127.0.0.1:1", {"Authorization": "Bearer k"}, 5, seed=3)
    first, second = make(0, 8), make(1, 8)
    assert first.url == "http://127.0.0.1:1/v1/chat/completions"
    assert first.body["ignore_eos"] is first.body["stream"] is True
    assert first.body["max_tokens"] == 8
    assert first.body["messages"] != second.body["messages"]
    assert first.headers == {"Authorization": "Bearer k"}


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ({"model": "other"}, "HTTP 404"),
        ({"stream": False, "stream_options": None}, "not a stream"),
        ({"stream_options": None}, "ended without usage"),
        ({"max_tokens": 3}, "3 tokens instead of 8"),
    ],
)
def test_other_answers_are_errors(mock: Mock, extra: dict[str, Any], kind: str) -> None:
    assert asked(mock.url, 8, **extra) == kind


def test_an_error_within_a_stream_is_no_answer() -> None:
    event = json.dumps({"error": {"message": "EngineCore encountered an issue.", "code": 500}})
    with serving(f"data: {event}\n\ndata: [DONE]\n\n".encode()) as url:
        assert asked(url, 4) == "an error in the stream"


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    with serving(b'data: {"choices":[]}\n\n', whole=False) as url:
        assert asked(url, 4) == "disconnected"


def test_a_server_that_is_not_there() -> None:
    assert asked("http://127.0.0.1:9", 4) == "disconnected"


def test_a_server_that_never_answers() -> None:
    with serving(b"", delay=30.0) as url:
        assert asked(url, 4, seconds=0.2) == "timed out"


def test_prompts_differ_and_are_equally_long(mock: Mock) -> None:
    prompts = {varied_prompt(90, seed) for seed in range(50)}
    assert len(prompts) == 50
    assert len({tuple(sorted(prompt.split())) for prompt in prompts}) == 1
    lengths = {
        httpx.post(f"{mock.url}/tokenize", json={"model": "mistral-7b", "prompt": prompt}).json()["count"]
        for prompt in list(prompts)[:10]
    }
    assert len(lengths) == 1
    assert varied_prompt(90, 7) == varied_prompt(90, 7)


@contextmanager
def serving(body: bytes, *, whole: bool = True, delay: float = 0.0) -> Iterator[str]:
    """A server that answers every POST with one chunk, and breaks off after it unless ``whole``."""
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            ended.wait(delay)
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n" + (b"0\r\n\r\n" if whole else b""))
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
