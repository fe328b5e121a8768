"""The programs that a notebook starts, alone. Starting the proxy takes seconds, so each test here earns its start."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider

from workbook.children import ChildDied
from workbook.paths import DEPLOY
from workbook.ports import HOST, PortTaken, free_port, listener
from workbook.services import Mock, NotStarted, Proxy, Receiver
from workbook.spans import read_ledger

MODELS = [{"model_name": "m", "litellm_params": {"model": "hosted_vllm/m", "api_base": "http://127.0.0.1:9/v1"}}]
CALLBACK = """
from litellm.integrations.custom_logger import CustomLogger

class Logger(CustomLogger):
    pass
"""


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def test_the_mock_answers_and_takes_arguments(build: Path) -> None:
    with Mock("mock", args=["--served-model-name", "a", "b"]) as mock:
        served = httpx.get(f"{mock.url}/v1/models").json()["data"]
        assert [model["id"] for model in served] == ["a", "b"]
        assert repr(mock) == "<mock_vllm 'mock': running>"
        assert mock.log == build / "runs" / "mock" / "mock_vllm.log"
    assert repr(mock) == "<mock_vllm 'mock': not running>"


def test_a_bad_argument_is_shown_with_the_mocks_own_words(build: Path) -> None:
    with pytest.raises(ChildDied, match=r"exit code 2: .*--no-such-flag"):
        Mock("mock", args=["--no-such-flag"]).start()


def test_a_port_can_be_chosen_and_used_again_at_once(build: Path) -> None:
    port = free_port()
    for _ in range(2):
        with Mock("mock", port=port) as mock:
            assert mock.url == f"http://{HOST}:{port}"
            assert httpx.get(f"{mock.url}/health").status_code == 200


def test_a_taken_port_is_named_with_its_owner(build: Path, taken: int) -> None:
    with pytest.raises(PortTaken, match=f"port {taken} .* process {os.getpid()}"):
        Mock("mock", port=taken).start()


def test_starting_a_name_again_stops_the_earlier_one(
    build: Path, eventually: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    first = Mock("mock").start()
    pid = first.child.pid
    with Mock("mock") as second:
        assert not alive(pid)
        assert (first.running, second.running) == (False, True)
        first.stop()  # late; it must not touch the second
        assert httpx.get(f"{second.url}/health").status_code == 200


def test_a_mock_that_was_killed_comes_back_on_its_port(build: Path) -> None:
    with Mock("mock") as mock:
        url, pid = mock.url, mock.child.pid
        os.kill(pid, signal.SIGKILL)
        mock.restart()
        assert mock.url == url
        assert mock.child.pid != pid
        assert httpx.get(f"{url}/health").status_code == 200
        mock.stop()
        mock.restart()
        assert mock.url == url


def sent(receiver: Receiver, name: str) -> list[str]:
    """What exporters, one for each protocol, say of a span of that name."""
    span = TracerProvider().get_tracer("test").start_span(name)
    span.end()
    exporters = (
        HttpExporter(endpoint=f"{receiver.endpoint('http/protobuf')}/v1/traces", timeout=1),
        GrpcExporter(endpoint=receiver.endpoint("grpc"), insecure=True, timeout=1),
    )
    return [exporter.export([span]).name for exporter in exporters]


def test_a_receiver_comes_back_on_its_ports_with_what_it_had(build: Path) -> None:
    with Receiver() as receiver:
        endpoints = [receiver.endpoint(protocol) for protocol in ("grpc", "http/protobuf")]
        assert sent(receiver, "before") == ["SUCCESS", "SUCCESS"]
        receiver.restart()
        receiver.stop()
        receiver.restart()
        assert [receiver.endpoint(protocol) for protocol in ("grpc", "http/protobuf")] == endpoints
        assert sent(receiver, "after") == ["SUCCESS", "SUCCESS"]
        assert list(read_ledger(receiver.ledger)["span_name"]) == ["before", "after"]  # of each, the same span twice
    with receiver:
        assert read_ledger(receiver.ledger).empty, "a start, unlike a restart, begins anew"


def test_a_receiver_fails_on_demand_and_recovers(build: Path) -> None:
    with Receiver() as receiver:
        receiver.fail(status=400)
        assert sent(receiver, "refused") == ["FAILURE", "FAILURE"]
        with pytest.raises(ValueError, match="unknown: weather; known: delay"):
            receiver.fail(weather="bad")
        receiver.recover()
        assert sent(receiver, "accepted") == ["SUCCESS", "SUCCESS"]
        assert list(read_ledger(receiver.ledger)["span_name"]) == ["accepted"]
    with pytest.raises(NotStarted, match="call start"):
        receiver.recover()


@pytest.mark.parametrize(
    "service", [Mock("never"), Receiver("never"), Proxy("never")], ids=lambda service: repr(service)
)
def test_what_never_ran_cannot_run_again(service: Mock | Receiver | Proxy) -> None:
    with pytest.raises(NotStarted, match=r"'never' was never started; call start\(\) first"):
        service.restart()


def test_asking_before_the_start_is_an_error() -> None:
    with pytest.raises(NotStarted, match="call start"):
        _ = Mock("mock").url


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_name_must_be_a_folders(name: str) -> None:
    with pytest.raises(ValueError, match="name of a folder"):
        Mock(name)


def test_a_missing_configuration_is_named_before_anything_starts(build: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"deploy/no_such\.yaml does not exist.*litellm_config\.yaml"):
        Proxy("proxy", config=DEPLOY / "no_such.yaml").start()


def test_a_taken_proxy_port_is_named_before_anything_starts(build: Path, taken: int) -> None:
    with pytest.raises(PortTaken, match=f"port {taken} .* process {os.getpid()}"):
        Proxy("proxy", port=taken).start()


def test_a_class_as_callback_is_shown_with_the_proxys_own_error(build: Path) -> None:
    proxy = Proxy(
        "proxy",
        config={"model_list": MODELS, "litellm_settings": {"callbacks": ["my_callback.Logger"]}},
        files={"my_callback.py": CALLBACK},
    )
    with pytest.raises(ChildDied) as caught:
        proxy.start()
    assert caught.value.exit_code != 0
    assert "Logger" in caught.value.reason
    assert "neither a CustomLogger instance nor a callable" in caught.value.reason
    assert "log: build/runs/proxy/litellm_proxy.log" in str(caught.value)
    assert not proxy.running


def test_a_lost_race_for_the_port_is_tried_again(build: Path, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our finding a free port and the proxy's listening on it lie seconds."""
    ports = [taken, free_port()]
    monkeypatch.setattr("workbook.services.free_port", lambda: ports.pop(0))
    with Proxy("proxy", config={"model_list": MODELS}) as proxy:
        assert ports == []
        headers = {"Authorization": f"Bearer {proxy.master_key}"}
        models = httpx.get(f"{proxy.url}/v1/models", headers=headers)
        assert [model["id"] for model in models.json()["data"]] == ["m"]
        assert httpx.get(f"{proxy.url}/v1/models", headers={"Authorization": "Bearer sk-no"}).status_code in (400, 401)
        config = (proxy.run_dir / "config.yaml").read_text()
        assert proxy.master_key not in config
        assert proxy.master_key not in proxy.log.read_text()
        began = time.monotonic()
    assert time.monotonic() - began < 10  # it ended when asked, before anybody had to kill it


def test_a_killed_proxy_comes_back_on_its_port_with_its_key(
    build: Path, alive: Callable[[int], bool], descendants: Callable[[int], list[int]]
) -> None:
    proxy = Proxy("proxy", config={"model_list": MODELS})
    with pytest.raises(NotStarted, match="call start"):
        proxy.kill()
    with proxy:
        url = proxy.url
        pids = [proxy.child.pid, *descendants(proxy.child.pid)]
        assert listener(int(url.rpartition(":")[2])) in pids
        proxy.kill()
        assert not any(map(alive, pids))
        assert "Finished server process" not in proxy.log.read_text(), "it had time to end in order"
        with pytest.raises(NotStarted, match="call start"):
            _ = proxy.url
        proxy.restart()
        assert proxy.url == url
        assert proxy.child.pid not in pids
        headers = {"Authorization": f"Bearer {proxy.master_key}"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
        proxy.stop()
        assert "Finished server process" in proxy.log.read_text(), "the sign of an end in order"
