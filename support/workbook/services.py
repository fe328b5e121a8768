"""The programs that a notebook starts: the mock vLLM server, the OTLP receiver and the LiteLLM proxy.

A fourth, the real vLLM, is in `workbook.engine`.
Each can be started alone (a notebook shows what happens without the others) or by `workbook.stack`. All of
them are usable as ``with mock() as m:`` and across cells: ``m = mock("02").start()`` ... ``m.stop()``. Starting
something under a name that is in use stops the earlier one first, so a cell can be run again.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import httpx
import yaml

from workbook.children import Child, ChildDied
from workbook.environment import where_our_packages_are
from workbook.paths import DEPLOY, build_dir, shown
from workbook.ports import HOST, free_port, listener, require_free

DEFAULT_CONFIG = DEPLOY / "litellm_config.yaml"
# Spans wait this long at most before they are sent; a reader should not wait for the default of 5 s.
BATCH_DELAY_MS = "200"

_MOCK_SECONDS = 30.0
_RECEIVER_SECONDS = 30.0
_PROXY_SECONDS = 90.0  # importing the proxy takes six seconds on an idle machine with two cores
_WORKER_SECONDS = "120"
_WORKER_IS_UP = "Application startup complete"  # uvicorn's words
PORT_ATTEMPTS = 3


class NotStarted(RuntimeError):
    """Something was asked of a service that is not running."""


def _port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


class Managed(ABC):
    """Something with a name that starts and stops, once at a time under that name."""

    _running: ClassVar[dict[str, Managed]] = {}

    def __init__(self, name: str) -> None:
        if not name or Path(name).name != name or name.startswith("."):
            raise ValueError(f"name {name!r} must be usable as the name of a folder, for example '03_wire'")
        self.name = name

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...

    @property
    def run_dir(self) -> Path:
        """The folder with the logs, the configuration and the hashed keys of this run."""
        return build_dir() / "runs" / self.name

    @property
    def running(self) -> bool:
        """True between start and stop."""
        return self._running.get(self.name) is self

    def start(self) -> Self:
        """Start, after stopping an earlier one of the same name; returns itself. Nothing is left on failure."""
        if earlier := self._running.get(self.name):
            earlier.stop()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.run_dir.mkdir(parents=True, mode=0o700)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        self._running[self.name] = self
        return self

    def stop(self) -> None:
        """Stop, and return when everything is gone. Safe to call again."""
        if self.running:
            del self._running[self.name]
        self._stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@atexit.register
def _stop_everything() -> None:
    """A kernel that ends in order gives the proxy time to send its last spans."""
    for service in list(Managed._running.values()):
        service.stop()


class Service(Managed):
    """One child process. `launch` and `wait` are apart so that several can start at the same time.

    ``ports`` are those to listen on, 0 for a free one.
    """

    def __init__(self, name: str, program: str, *, ports: Sequence[int]) -> None:
        super().__init__(name)
        self._program = program
        self._chosen_ports = tuple(ports)
        self._restarting = False
        self._child: Child | None = None

    @abstractmethod
    def launch(self) -> None:
        """Start the process."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until it accepts requests; raises `ChildDied` or `ChildNotReady` with the log's last lines."""

    @abstractmethod
    def _ports_before(self) -> tuple[int, ...]:
        """Those that it listened on last; none when it was never ready."""

    @property
    def _ports(self) -> tuple[int, ...]:
        return self._ports_before() if self._restarting else self._chosen_ports

    @property
    def _port(self) -> int:
        return self._ports[0]

    def _start(self) -> None:
        self.launch()
        self.wait()

    def restart(self) -> None:
        """End what is left of it and start it again on the same ports, with a new log. What it has written stays.

        Raises `NotStarted` before the first start, and what starting raises; nothing is left on failure.
        """
        if not self._ports_before():
            raise NotStarted(f"{self._program} {self.name!r} was never started; call start() first")
        self._stop()
        self._restarting = True
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        finally:
            self._restarting = False

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _launch(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        environment = {**where_our_packages_are(), **(environment or {})}
        self._child = Child(self._program, command, log=self.log, environment=environment, cwd=cwd or self.run_dir)

    @property
    def child(self) -> Child:
        """The running process; raises `NotStarted` when there is none."""
        if self._child is None:
            raise NotStarted(f"{self._program} {self.name!r} is not running; call start() first")
        return self._child

    @property
    def log(self) -> Path:
        """The file with everything that the process writes."""
        return self.run_dir / f"{self._program}.log"

    def __repr__(self) -> str:
        return f"<{self._program} {self.name!r}: {'running' if self._child else 'not running'}>"


class Backend(Service):
    """What the proxy's calls end at: a server that speaks as ``vllm serve`` does.

    ``traces_endpoint`` is where its own spans go: an OTLP endpoint over HTTP, without ``/v1/traces``.
    """

    def __init__(
        self, name: str, program: str, *, args: Sequence[str] = (), port: int = 0, traces_endpoint: str | None = None
    ) -> None:
        super().__init__(name, program, ports=[port])
        self._args = list(args)
        self._url = ""
        self.traces_endpoint = traces_endpoint

    @property
    def url(self) -> str:
        """Where it listens, without ``/v1``."""
        _ = self.child
        return self._url

    def _ports_before(self) -> tuple[int, ...]:
        return (_port_of(self._url),) if self._url else ()

    def _traces_args(self) -> list[str]:
        return ["--otlp-traces-endpoint", f"{self.traces_endpoint}/v1/traces"] if self.traces_endpoint else []

    def _traces_environment(self) -> dict[str, str]:
        if not self.traces_endpoint:
            return {}
        return {
            "OTEL_BSP_SCHEDULE_DELAY": BATCH_DELAY_MS,
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": self._program,
        }


class Mock(Backend):
    """``python -m mock_vllm`` with the arguments given to it."""

    def __init__(
        self, name: str = "mock", *, args: Sequence[str] = (), port: int = 0, traces_endpoint: str | None = None
    ) -> None:
        super().__init__(name, "mock_vllm", args=args, port=port, traces_endpoint=traces_endpoint)

    def launch(self) -> None:
        if self._port:
            require_free(self._port)
        command = [sys.executable, "-m", "mock_vllm", "--port", str(self._port), *self._traces_args(), *self._args]
        self._launch(command, self._traces_environment())

    def wait(self) -> None:
        self._url = str(self.child.wait_for_announcement(_MOCK_SECONDS)["url"])


class Receiver(Service):
    """``python -m workbook.receiver``, writing to ``build/ledger/NAME.jsonl``, which starts empty."""

    def __init__(self, name: str = "receiver", *, port: int = 0, grpc_port: int = 0) -> None:
        super().__init__(name, "receiver", ports=[port, grpc_port])
        self._urls: dict[str, Any] = {}

    def _ports_before(self) -> tuple[int, ...]:
        return (_port_of(self._urls["http"]), _port_of(self._urls["grpc"])) if self._urls else ()

    @property
    def ledger(self) -> Path:
        """The file with one span per line."""
        return build_dir() / "ledger" / f"{self.name}.jsonl"

    def launch(self) -> None:
        port, grpc_port = self._ports
        for chosen in filter(None, (port, grpc_port)):
            require_free(chosen)
        self.ledger.parent.mkdir(parents=True, exist_ok=True)
        if not self._restarting:
            self.ledger.write_bytes(b"")
        self._launch(
            [
                *(sys.executable, "-m", "workbook.receiver", "--ledger", str(self.ledger)),
                *("--port", str(port), "--grpc-port", str(grpc_port)),
            ]
        )

    def wait(self) -> None:
        self._urls = self.child.wait_for_announcement(_RECEIVER_SECONDS)

    def endpoint(self, protocol: str) -> str:
        """The OTLP endpoint for ``protocol``: ``http/protobuf`` or ``grpc``."""
        _ = self.child
        return str(self._urls["grpc" if protocol == "grpc" else "http"])

    def fail(self, **fault: Any) -> None:
        """Answer as `workbook.faults` describes, from the next request on: ``fail(status=503)``, ``fail(delay=1)``.

        Raises ValueError for what is not a fault.
        """
        answer = httpx.put(f"{self.endpoint('http/protobuf')}/fault", json=fault, timeout=10, trust_env=False)
        if answer.status_code == httpx.codes.BAD_REQUEST:
            raise ValueError(answer.text)
        answer.raise_for_status()

    def recover(self) -> None:
        """Answer as it should again."""
        self.fail()


def litellm_command() -> list[str]:
    """The words that stand for ``litellm``: its script beside this Python, or where it has none, its function."""
    script = Path(sys.executable).with_name("litellm")
    return [str(script)] if script.is_file() else [sys.executable, "-c", "from litellm import run_server; run_server()"]


class Proxy(Service):
    """``litellm --config CONFIG --num_workers WORKERS``: the real LiteLLM proxy.

    Its ``workers`` are processes that uvicorn starts; they share one listening socket. ``args`` are more flags of
    ``litellm``. ``config`` is a path or a mapping, which is written to the run's folder as YAML. ``files`` (name to
    text) are written beside it: LiteLLM finds a callback module there. The master key is made here and handed over in
    the environment only.
    """

    def __init__(
        self,
        name: str = "proxy",
        *,
        config: Path | Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        port: int | None = None,
        workers: int = 1,
        args: Sequence[str] = (),
    ) -> None:
        super().__init__(name, "litellm_proxy", ports=[port or 0])
        self._workers = workers
        self._args = tuple(args)
        self._config = config if config is not None else DEFAULT_CONFIG
        self._env = dict(env or {})
        self._files = dict(files or {})
        self._listens_on = 0
        self.master_key = "sk-" + secrets.token_hex(24)

    @property
    def env(self) -> dict[str, str]:
        """The variables that the proxy gets beside those every child gets; change them before it starts."""
        return self._env

    @property
    def url(self) -> str:
        """Where it listens, without ``/v1``."""
        _ = self.child
        return f"http://{HOST}:{self._listens_on}"

    def _ports_before(self) -> tuple[int, ...]:
        return (self._listens_on,) if self._listens_on else ()

    def launch(self) -> None:
        config = self._write_config()
        if self._port:
            require_free(self._port)
        self._listens_on = self._port or free_port()
        self._launch(
            [
                *(sys.executable, "-m", "workbook.supervise", "--"),
                *litellm_command(),
                *("--config", str(config), "--host", HOST, "--port", str(self._listens_on)),
                *self._workers_args(),
                *self._args,
            ],
            {**self._env, "LITELLM_MASTER_KEY": self.master_key},
        )

    def _workers_args(self) -> list[str]:
        if self._workers == 1:
            return []
        # uvicorn kills a worker that does not answer for 5 s, and importing LiteLLM can take longer: on a busy machine
        # it would kill and start workers for ever.
        return ["--num_workers", str(self._workers), "--timeout_worker_healthcheck", _WORKER_SECONDS]

    def wait(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self.child.wait_until(self._is_up, _PROXY_SECONDS * self._workers)
                return
            except ChildDied:
                lost_the_port = "address already in use" in self.child.text()
                if self._port or not lost_the_port or attempt == PORT_ATTEMPTS:
                    raise
                self.launch()

    def kill(self) -> None:
        """End it with ``kill -9``: it has no say in it, and no time. Returns when it is gone.

        Raises `NotStarted` when it does not run.
        """
        child = self.child
        pid = listener(self._listens_on)
        if pid is None:
            raise NotStarted(f"{self._program} {self.name!r} ({child.name}) listens no more; see {shown(self.log)}")
        os.killpg(os.getpgid(pid), signal.SIGKILL)
        self._stop()

    def _is_up(self) -> bool | None:
        """True when it answers, and all of its workers have come so far."""
        up = self.child.text().count(_WORKER_IS_UP) >= self._workers
        return self._answers_to_our_key() if up else None

    def _answers_to_our_key(self) -> bool | None:
        """True when our proxy listens: no other program knows this run's master key."""
        try:
            answer = httpx.get(
                f"{self.url}/v1/models",
                headers={"Authorization": f"Bearer {self.master_key}"},
                timeout=2,  # another program may hold the port and never answer
                trust_env=False,
            )
        except httpx.TransportError:
            return None
        return True if answer.status_code == httpx.codes.OK else None

    def _write_config(self) -> Path:
        for name, text in self._files.items():
            (self.run_dir / name).write_text(text, encoding="utf-8")
        if isinstance(self._config, Path):
            if not self._config.is_file():
                raise FileNotFoundError(
                    f"proxy configuration {shown(self._config)} does not exist; the one that ships is "
                    f"{shown(DEFAULT_CONFIG)}"
                )
            return self._config
        path = self.run_dir / "config.yaml"
        path.write_text(yaml.safe_dump(dict(self._config), sort_keys=False), encoding="utf-8")
        return path
