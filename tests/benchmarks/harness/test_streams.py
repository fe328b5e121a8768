"""The streaming client: what it times, what it counts, and what it does not take for an answer."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from benchmarks.harness.load import Request
from benchmarks.harness.streams import Streams, closed_loop, varied_prompt
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


def test_times_are_the_servers(mock: Mock) -> None:
    seen = closed_loop(asking(mock.url), concurrency=1, requests=3, max_tokens=20)
    assert len(seen.kept) == 3
    assert not seen.errors
    for answer in seen.kept:
        assert answer.first_token >= TTFT_MS / 1000
        assert answer.last_token >= (TTFT_MS + 19 * TPOT_MS) / 1000
        assert answer.completion_tokens == 20
    # The quickest was hardly disturbed; a chunk taken for a token, or a token missed, would be 5 per cent off.
    assert min(answer.per_output_token for answer in seen.kept) == pytest.approx(TPOT_MS / 1000, rel=0.2)


def test_every_stream_has_its_share_and_the_sums_are_over_all(mock: Mock) -> None:
    before = _generated(mock.url)
    seen = closed_loop(asking(mock.url), concurrency=4, requests=6, max_tokens=8)
    assert len(seen.kept) == 8  # two each
    # One staggered answer per stream before them, and some beside the last ones.
    assert seen.answered >= 12
    assert seen.completion_tokens == _generated(mock.url) - before
    assert seen.completion_tokens >= 8 * 8 + (2 + 4 + 6 + 8)


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
    seen = closed_loop(asking(mock.url, **extra), concurrency=1, requests=1, max_tokens=8)
    assert seen.kept == []
    assert kind in seen.errors
    assert seen.answered == 0


def test_an_error_within_a_stream_is_no_answer() -> None:
    event = json.dumps({"error": {"message": "EngineCore encountered an issue.", "code": 500}})
    with serving(f"data: {event}\n\ndata: [DONE]\n\n".encode()) as url:
        seen = closed_loop(asking(url), concurrency=1, requests=1, max_tokens=4)
    assert dict(seen.errors) == {"an error in the stream": 2}


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    with serving(b'data: {"choices":[]}\n\n', whole=False) as url:
        seen = closed_loop(asking(url), concurrency=1, requests=1, max_tokens=4)
    assert dict(seen.errors) == {"disconnected": 2}


def test_a_server_that_is_not_there() -> None:
    seen = closed_loop(asking("http://127.0.0.1:9"), concurrency=2, requests=1, max_tokens=4)
    assert seen == Streams(errors=seen.errors, seconds=seen.seconds, cpu_seconds=seen.cpu_seconds)
    assert set(seen.errors) == {"disconnected"}


def test_a_server_that_never_answers() -> None:
    with serving(b"", delay=30.0) as url:
        seen = closed_loop(asking(url), concurrency=1, requests=1, max_tokens=4, timeout=0.2)
    assert dict(seen.errors) == {"timed out": 2}


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


def _generated(url: str) -> int:
    metrics = httpx.get(f"{url}/metrics").text
    return sum(
        round(float(line.rpartition(" ")[2]))
        for line in metrics.splitlines()
        if line.startswith("vllm:generation_tokens_total")
    )


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
