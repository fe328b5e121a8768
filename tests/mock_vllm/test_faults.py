"""Failures on request: each does what it says, and none happens uninvited."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20, "ignore_eos": True}


@pytest.fixture(scope="module")
def faulty(shared: Callable[..., Any]) -> Any:
    return shared("--enable-faults")


def post(server: Any, fault: str, path: str = "/v1/chat/completions", **extra: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json={**BODY, "mock_fault": fault, **extra}, timeout=20)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [("500", "InternalServerError"), ("429", "Too Many Requests"), ("503", "Service Unavailable")],
)
def test_error_statuses_come_in_vllms_shape(faulty: Any, fault: str, kind: str, stream: bool) -> None:
    response = post(faulty, fault, stream=stream)
    assert response.status_code == int(fault)
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"], error["code"]) == (kind, None, int(fault))


def test_401_comes_in_vllms_odd_shape(faulty: Any) -> None:
    response = post(faulty, "401")
    assert (response.status_code, response.json()) == (401, {"error": "Unauthorized"})


def test_the_header_asks_as_well(faulty: Any) -> None:
    response = httpx.post(f"{faulty.url}/v1/chat/completions", json=BODY, headers={"x-mock-fault": "500"})
    assert response.status_code == 500


def read_until_broken(server: Any, body: dict[str, Any]) -> str:
    """What arrives of an answer whose connection breaks; fails if it does not."""
    received = ""
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=20) as response:
        assert response.status_code == 200
        try:
            for part in response.iter_text():
                received += part
        except httpx.RemoteProtocolError:
            return received
    pytest.fail(f"the answer ended in good order: {received}")


@pytest.mark.parametrize("after", [0, 1, 5])
def test_cut_drops_the_connection_after_so_many_events(faulty: Any, after: int) -> None:
    received = read_until_broken(faulty, {**BODY, "stream": True, "mock_fault": f"cut:{after}"})
    assert received.count("\n\n") == after
    assert "[DONE]" not in received


def test_cut_of_a_plain_answer_leaves_half_of_it(faulty: Any) -> None:
    received = read_until_broken(faulty, {**BODY, "mock_fault": "cut:1"})
    with pytest.raises(json.JSONDecodeError):
        json.loads(received)


@pytest.mark.parametrize("after", [0, 3])
def test_die_ends_a_stream_as_a_dead_engine_does(faulty: Any, after: int, sse: Callable[[str], list[Any]]) -> None:
    response = post(faulty, f"die:{after}", stream=True)
    assert response.status_code == 200
    *chunks, error, done = sse(response.text)
    assert len(chunks) == after
    assert error["error"]["type"] == "InternalServerError"
    assert done == "[DONE]"


def test_die_of_a_plain_answer_is_a_500(faulty: Any) -> None:
    response = post(faulty, "die:3")
    assert response.status_code == 500
    assert response.json()["error"]["message"].startswith("EngineCore encountered an issue")


@pytest.mark.parametrize(
    ("path", "extra", "last"),
    [
        ("/v1/messages", {"model": "mistral-7b"}, {"type": "error", "error": {"type": "InternalServerError"}}),
        ("/v1/responses", {"input": "hi", "max_tokens": None}, {"type": "error", "code": "500"}),
    ],
)
def test_die_is_told_in_each_apis_own_events(
    faulty: Any, path: str, extra: dict[str, Any], last: dict[str, Any]
) -> None:
    text = post(faulty, "die:2", path, stream=True, **extra).text
    event = json.loads(text.strip().rpartition("data: ")[2])
    assert event["type"] == last["type"]
    assert event.get("code") == last.get("code")
    assert "EngineCore" in json.dumps(event)


def open_stream(server: Any, **extra: Any) -> Any:
    """A long answer that has begun; the connection is the test's to close."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ready["port"], timeout=20)
    body = json.dumps({**BODY, "max_tokens": 5000, "stream": True, **extra})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.readline().startswith(b"data: {")
    return connection, response


def test_a_crash_ends_everything_as_the_death_of_an_engine_does(
    start: Callable[..., Any], sse: Callable[[str], list[Any]]
) -> None:
    """An error event and `[DONE]` for every open stream, 503 at `/health` for a moment, then the process ends."""
    server = start("--enable-faults", "--ttft-ms", "1", "--tpot-ms", "5")
    _, other = open_stream(server)
    assert httpx.get(f"{server.url}/health").status_code == 200
    crashed = post(server, "crash:2", stream=True)
    assert httpx.get(f"{server.url}/health").status_code == 503
    assert httpx.post(f"{server.url}/v1/chat/completions", json=BODY).status_code == 500
    assert crashed.status_code == 200
    for text in (crashed.text, "data: {}\n" + other.read().decode()):
        *_, error, done = sse(text)
        assert error["error"]["message"].startswith("EngineCore encountered an issue")
        assert done == "[DONE]"
    assert server.process.wait(timeout=20) == 0


def test_sigterm_ends_open_requests_unless_told_otherwise(start: Callable[..., Any]) -> None:
    server = start("--ttft-ms", "1", "--tpot-ms", "20")
    open_stream(server)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=20)


def test_sigterm_can_leave_open_requests_hanging_as_vllm_does(
    start: Callable[..., Any], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    server = start("--hang-on-sigterm", "--ttft-ms", "1", "--tpot-ms", "20")
    connection, response = open_stream(server)
    server.process.send_signal(signal.SIGTERM)

    def refused() -> bool:
        try:
            return httpx.get(f"{server.url}/health", timeout=5).status_code == 0
        except httpx.TransportError:
            return True

    eventually(refused)
    connection.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        response.read()
    assert server.process.poll() is None
    connection.close()
    response.close()
    server.process.wait(timeout=20)


def test_a_hanging_server_still_ends_with_its_parent(start: Callable[..., Any]) -> None:
    server = start("--hang-on-sigterm", "--ttft-ms", "1", "--tpot-ms", "20")
    open_stream(server)
    server.process.send_signal(signal.SIGTERM)
    server.process.stdin.close()
    assert server.process.wait(timeout=20) == 0


@pytest.mark.parametrize("extra", [{}, {"stream": True}])
def test_hang_answers_nothing_until_the_client_leaves(
    faulty: Any, extra: dict[str, Any], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    body = {**BODY, **extra, "mock_fault": "hang"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{faulty.url}/v1/chat/completions", json=body, timeout=httpx.Timeout(5, read=0.3))
    eventually(lambda: httpx.get(f"{faulty.url}/load").json() == {"server_load": 0})
    assert httpx.post(f"{faulty.url}/v1/chat/completions", json=BODY).status_code == 200


def test_hang_in_the_middle_of_a_stream(faulty: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", faulty.ready["port"], timeout=20)
    body = json.dumps({**BODY, "stream": True, "mock_fault": "hang:3"})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    for _ in range(3):
        assert response.readline().startswith(b"data: {")
        assert response.readline() == b"\n"
    assert connection.sock is not None
    connection.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        response.readline()
    connection.close()


@pytest.mark.parametrize("fault", ["explode", "cut", "cut:-1", "die:x", "200", "hang:", {"a": 1}])
def test_a_fault_that_does_not_exist_is_refused(faulty: Any, fault: Any) -> None:
    response = post(faulty, fault)
    assert response.status_code == 400
    assert "cut:K" in response.json()["error"]["message"]


def test_nothing_happens_without_the_switch(mock: Any) -> None:
    response = httpx.post(
        f"{mock.url}/v1/chat/completions",
        json={**BODY, "mock_fault": "500"},
        headers={"x-mock-fault": "cut:1"},
    )
    assert response.status_code == 200
