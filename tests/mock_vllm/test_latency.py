"""The latency model. Sleeps can only be too long, so measured times are compared with lower bounds, or
with each other where one is a multiple of the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from mock_vllm.cli import parse_settings
from mock_vllm.latency import PROFILES, LatencyModel


def test_delays_follow_the_formula() -> None:
    model = LatencyModel(ttft_ms=100, tpot_ms=10, ttft_ms_per_running=50, tpot_ms_per_running=2)
    assert model.first_token_seconds(0, 0.5) == pytest.approx(0.100)
    assert model.first_token_seconds(3, 0.5) == pytest.approx(0.250)
    assert model.next_token_seconds(0, 0.9) == pytest.approx(0.010)
    assert model.next_token_seconds(5, 0.1) == pytest.approx(0.020)


def test_jitter_stays_within_its_fraction() -> None:
    model = LatencyModel(tpot_ms=10, jitter=0.2)
    assert model.next_token_seconds(0, 0.0) == pytest.approx(0.008)
    assert model.next_token_seconds(0, 1.0) == pytest.approx(0.012)


def test_there_is_no_latency_unless_asked_for() -> None:
    assert parse_settings([]).latency == LatencyModel()
    assert not parse_settings([]).latency.enabled


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_measured_times(name: str) -> None:
    assert parse_settings(["--latency-profile", name]).latency == PROFILES[name].latency
    assert PROFILES[name].latency.enabled
    assert PROFILES[name].source.startswith("benchmarks/results/")


def test_single_flags_override_a_profile() -> None:
    (name, profile), *_ = PROFILES.items()
    given = parse_settings(["--latency-profile", name, "--ttft-ms", "0", "--latency-jitter", "0.1"]).latency
    assert given == replace(profile.latency, ttft_ms=0.0, jitter=0.1)


def test_an_unknown_profile_is_refused_and_the_known_ones_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse_settings(["--latency-profile", "h200"])
    assert refused.value.code == 2
    told = capsys.readouterr().err
    assert "--latency-profile" in told
    assert all(name in told for name in PROFILES)


def arrivals(server: Any, max_tokens: int) -> list[float]:
    """Seconds from the request to each token."""
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": max_tokens,
        "stream": True,
        "ignore_eos": True,
    }
    begin = time.monotonic()
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=20) as response:
        times = [time.monotonic() - begin for line in response.iter_lines() if '"delta":{"content":' in line]
    assert len(times) == max_tokens
    return times


def test_tokens_come_on_schedule(start: Callable[..., Any]) -> None:
    server = start("--ttft-ms", "200", "--tpot-ms", "20")
    times = arrivals(server, 20)
    assert times[0] >= 0.199
    assert times[-1] >= 0.199 + 19 * 0.020
    # The engine's own clock: 200 ms to the first token, 380 ms for the 19 after it.
    assert server.metric("vllm:time_to_first_token_seconds_sum") >= 0.199
    assert server.metric("vllm:request_decode_time_seconds_sum") >= 0.37


def test_late_tokens_do_not_make_the_rest_late(start: Callable[..., Any]) -> None:
    # The event loop rounds each delay up to a millisecond. Were that to add up, a tenth of a millisecond
    # would take as long as a whole one.
    def decode_seconds(tpot_ms: str) -> float:
        server = start("--tpot-ms", tpot_ms)
        server.chat(max_tokens=400, ignore_eos=True)
        return float(server.metric("vllm:request_decode_time_seconds_sum"))

    assert min(decode_seconds("0.1") for _ in range(3)) < decode_seconds("1") / 2


def test_a_plain_answer_takes_as_long_as_a_streamed_one(start: Callable[..., Any]) -> None:
    server = start("--ttft-ms", "50", "--tpot-ms", "10")
    begin = time.monotonic()
    server.chat(max_tokens=30, ignore_eos=True)
    assert time.monotonic() - begin >= 0.05 + 29 * 0.010 - 0.001


def test_requests_slow_each_other_down_when_asked_to(
    start: Callable[..., Any], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    server = start("--tpot-ms", "2", "--tpot-ms-per-running", "2")
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5000, "ignore_eos": True, "stream": True}
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body))
        eventually(lambda: server.metric("vllm:num_requests_running") == 4)
        server.chat(max_tokens=30, ignore_eos=True)
    # Only a request that finished is in this sum; alone it would have needed 29 times 2 ms.
    assert server.metric("vllm:request_decode_time_seconds_sum") >= 29 * (2 + 4 * 2) / 1000 - 0.001


def test_per_request_metrics_tell_the_times(start: Callable[..., Any], sse: Callable[[str], list[Any]]) -> None:
    server = start("--ttft-ms", "100", "--tpot-ms", "10", "--enable-per-request-metrics")
    told = server.chat(max_tokens=11, ignore_eos=True).json()["metrics"]
    assert list(told) == [
        "time_to_first_token_ms",
        "generation_time_ms",
        "queue_time_ms",
        "mean_itl_ms",
        "tokens_per_second",
        "speculative_decoding",
    ]
    assert told["time_to_first_token_ms"] >= 99
    assert told["generation_time_ms"] == pytest.approx(10 * told["mean_itl_ms"])
    assert told["mean_itl_ms"] >= 9
    streamed = server.chat(max_tokens=3, ignore_eos=True, stream=True, stream_options={"include_usage": True})
    assert sse(streamed.text)[-2]["metrics"]["time_to_first_token_ms"] >= 99
    assert server.chat(max_tokens=3, n=2).json()["metrics"] is None
