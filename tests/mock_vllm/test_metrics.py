"""The engine's counters against what the clients were told: they must agree to the token."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

MESSAGES = [{"role": "user", "content": "How do the books balance?"}]
LONG: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 5000, "ignore_eos": True}


def test_counters_equal_usage_after_a_mixed_load(
    start: Callable[..., Any],
    eventually: Callable[[Callable[[], bool]], None],
    sse: Callable[[str], list[Any]],
) -> None:
    server = start("--tpot-ms", "1", "--enable-faults", "--max-num-seqs", "8")

    def plain(number: int) -> dict[str, int]:
        response = server.chat(messages=MESSAGES, max_tokens=10 + number, seed=number)
        return dict(response.json()["usage"], choices=1)

    def choices(number: int) -> dict[str, int]:
        response = server.chat(messages=MESSAGES, max_tokens=10, n=2, seed=number)
        return dict(response.json()["usage"], choices=2)

    def stream(number: int) -> dict[str, int]:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        response = server.chat(messages=MESSAGES, max_tokens=10 + number, seed=number, **options)
        return dict(sse(response.text)[-2]["usage"], choices=1)

    def refused(number: int) -> dict[str, int]:
        assert server.chat(messages=MESSAGES, max_tokens=-1).status_code == 400
        assert server.chat(messages=MESSAGES, model="other").status_code == 404
        assert server.chat(messages=MESSAGES, mock_fault="500").status_code == 500
        return {"prompt_tokens": 0, "completion_tokens": 0, "choices": 0}

    jobs = [(kind, number) for number in range(8) for kind in (plain, choices, stream, refused)]
    with ThreadPoolExecutor(16) as pool:
        usages = list(pool.map(lambda job: job[0](job[1]), jobs))
    eventually(lambda: server.metric("vllm:num_requests_running") == 0)

    prompt = sum(usage["prompt_tokens"] * usage["choices"] for usage in usages)
    completion = sum(usage["completion_tokens"] for usage in usages)
    sequences = sum(usage["choices"] for usage in usages)
    requests = sum(usage["choices"] > 0 for usage in usages)
    assert server.metric("vllm:prompt_tokens_total") == prompt
    assert server.metric("vllm:generation_tokens_total") == completion
    assert server.metric("vllm:request_success_total") == sequences
    assert server.metric("vllm:request_prompt_tokens_sum") == prompt
    assert server.metric("vllm:request_generation_tokens_sum") == completion
    assert server.metric("vllm:request_generation_tokens_count") == sequences
    assert server.metric("vllm:request_params_n_count") == requests
    assert server.metric("vllm:request_params_n_sum") == sequences
    assert server.metric("vllm:time_to_first_token_seconds_count") == sequences
    assert server.metric("vllm:inter_token_latency_seconds_count") == completion - sequences
    assert server.metric("vllm:iteration_tokens_total_sum") == prompt + completion
    assert server.metric("vllm:e2e_request_latency_seconds_count") == sequences
    assert server.metric("vllm:prefix_cache_queries_total") == prompt
    for gauge in ("num_requests_waiting", "kv_cache_usage_perc"):
        assert server.metric(f"vllm:{gauge}") == 0
    reasons = {
        reason: server.metric("vllm:request_success_total", finished_reason=reason)
        for reason in ("stop", "length", "abort", "error", "repetition")
    }
    assert reasons["stop"] + reasons["length"] == sequences


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_request(
    start: Callable[..., Any], eventually: Callable[[Callable[[], bool]], None], stream: bool
) -> None:
    server = start("--tpot-ms", "2")
    connection = http.client.HTTPConnection("127.0.0.1", server.ready["port"])
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps({**LONG, "stream": stream}), headers)
    eventually(lambda: server.metric("vllm:generation_tokens_total") >= 5)
    connection.close()
    eventually(lambda: server.metric("vllm:num_requests_running") == 0)
    generated = server.metric("vllm:generation_tokens_total")
    assert generated < LONG["max_tokens"]
    # What was read and made stays counted; the request does not, not even as aborted, as in vLLM.
    assert server.metric("vllm:prompt_tokens_total") > 0
    assert server.metric("vllm:time_to_first_token_seconds_count") == 1
    assert server.metric("vllm:request_success_total") == 0
    assert server.metric("vllm:e2e_request_latency_seconds_count") == 0
    assert server.chat(max_tokens=1).status_code == 200
    assert server.metric("vllm:generation_tokens_total") == generated + 1


def test_a_client_that_leaves_stops_its_request_without_a_latency_model_too(
    start: Callable[..., Any], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    server = start("--max-model-len", "3000000")
    body = {**LONG, "max_tokens": 2_000_000, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body) as response:
        next(response.iter_raw())
    eventually(lambda: server.metric("vllm:num_requests_running") == 0)
    assert server.metric("vllm:generation_tokens_total") < 2_000_000
    assert server.metric("vllm:request_success_total") == 0


@contextmanager
def holding(server: Any, count: int) -> Iterator[None]:
    """So many streams that stop after their first token, given `--tpot-ms` of ten minutes."""
    with ExitStack() as stack:
        for _ in range(count):
            url = f"{server.url}/v1/chat/completions"
            stack.enter_context(httpx.stream("POST", url, json={**LONG, "stream": True}, timeout=20))
        yield


NEVER = ("--tpot-ms", "600000")


def test_requests_beyond_max_num_seqs_wait_their_turn(
    start: Callable[..., Any], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    server = start("--max-num-seqs", "2", *NEVER)
    with ThreadPoolExecutor(3) as pool:
        with holding(server, 2):
            waiting = [pool.submit(server.chat, max_tokens=1, seed=seed) for seed in range(3)]
            eventually(lambda: server.metric("vllm:num_requests_waiting") == 3)
            assert server.metric("vllm:num_requests_running") == 2
            assert server.metric("vllm:num_requests_waiting_by_reason", reason="capacity") == 3
            assert server.metric("vllm:kv_cache_usage_perc") > 0
            assert not any(answer.done() for answer in waiting)
        assert [answer.result().status_code for answer in waiting] == [200] * 3
    assert server.metric("vllm:num_requests_waiting") == 0
    assert server.metric("vllm:request_success_total") == 3


def test_one_that_leaves_the_queue_gives_up_its_place(
    start: Callable[..., Any], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    server = start("--max-num-seqs", "1", *NEVER)
    with holding(server, 1):
        with holding(server, 1):
            eventually(lambda: server.metric("vllm:num_requests_waiting") == 1)
        eventually(lambda: server.metric("vllm:num_requests_waiting") == 0)
        assert server.metric("vllm:num_requests_running") == 1
    eventually(lambda: server.metric("vllm:num_requests_running") == 0)
    assert server.metric("vllm:generation_tokens_total") == 1
    # More choices than there are places run all the same, alone.
    assert server.chat(n=3, max_tokens=1).status_code == 200


def test_more_than_the_queue_holds_is_refused_and_counted(
    start: Callable[..., Any], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    server = start("--max-num-queued-reqs", "2", *NEVER)
    with holding(server, 2):
        eventually(lambda: httpx.get(f"{server.url}/load").json() == {"server_load": 2})
        refused = server.chat(stream=True)
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/json"
        assert httpx.get(f"{server.url}/health").status_code == 200
    eventually(lambda: httpx.get(f"{server.url}/load").json() == {"server_load": 0})
    assert server.metric("vllm:admission_rejections_total", reason="max_num_queued_reqs") == 1
    assert server.chat(n=2, max_tokens=1).status_code == 200
    assert server.chat(n=3, max_tokens=1).status_code == 503


def test_repeated_prompts_hit_the_prefix_cache(start: Callable[..., Any]) -> None:
    server = start("--enable-prompt-tokens-details")
    text = "a long shared preamble about ledgers and invoices " * 5
    first = server.chat(messages=[{"role": "user", "content": text + "one"}], max_tokens=1).json()["usage"]
    second = server.chat(messages=[{"role": "user", "content": text + "two"}], max_tokens=1).json()["usage"]
    third = server.chat(messages=[{"role": "user", "content": "else"}], max_tokens=1).json()["usage"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    cached = second["prompt_tokens_details"]["cached_tokens"]
    assert cached % 16 == 0
    assert 0 < cached < second["prompt_tokens"]
    assert third["prompt_tokens_details"]["cached_tokens"] == 0
    total = first["prompt_tokens"] + second["prompt_tokens"] + third["prompt_tokens"]
    assert server.metric("vllm:prefix_cache_queries_total") == total
    assert server.metric("vllm:prefix_cache_hits_total") == cached
    by_source = "vllm:prompt_tokens_by_source_total"
    assert server.metric(by_source, source="local_cache_hit") == cached
    assert server.metric(by_source, source="local_compute") == total - cached
    assert server.metric("vllm:request_prefill_kv_computed_tokens_sum") == total - cached


def test_cached_tokens_are_told_only_on_request(mock: Any) -> None:
    body = {"messages": [{"role": "user", "content": "the same words again and again " * 20}], "max_tokens": 1}
    details = [mock.chat(**body).json()["usage"]["prompt_tokens_details"] for _ in range(2)]
    assert details == [None, None]


def test_metrics_carry_the_first_served_name(start: Callable[..., Any]) -> None:
    server = start("--served-model-name", "first", "second")
    assert server.chat(model="second", max_tokens=3).status_code == 200
    assert server.metric("vllm:generation_tokens_total", model_name="first", engine="0") == 3
