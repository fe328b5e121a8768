"""Everything a notebook needs to make LLM calls: a vLLM or its mock, the LiteLLM proxy with the callback, a receiver.

::

    s = stack("03_wire").start()
    s.client("tenant-acme").chat.completions.create(model="mistral-7b", messages=[...])
    spans = s.wait_for_records(1)
    s.stop()

``stack("03_wire", backend="vllm-cpu")`` is the same with a real engine. Nothing else changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx

from otel_cost_logger.keys.file import add_key
from workbook.paths import shown
from workbook.services import BATCH_DELAY_MS, Backend, Managed, Mock, NotStarted, Proxy, Receiver

if TYPE_CHECKING:
    import openai
    import pandas as pd

    from workbook.engine import EngineKind

_ENGINE_KINDS: dict[str, EngineKind] = {"vllm-cpu": "vllm-cpu", "vllm": "vllm"}

Processor = Literal["simple", "batch", "durable"]

TENANTS = ("tenant-acme", "tenant-globex", "tenant-initech", "tenant-umbrella")


class RecordsMissing(TimeoutError):
    """Fewer spans than expected reached the ledger in time."""


class Stack(Managed):
    """Backend, receiver and LiteLLM proxy, started together. Made by `stack`."""

    def __init__(
        self,
        name: str,
        *,
        config: Path | Mapping[str, Any] | None,
        tenants: Sequence[str],
        backend: str,
        mock_args: Sequence[str],
        engine_args: Sequence[str],
        engine_shape: str | None,
        trace_engine: bool,
        env: Mapping[str, str] | None,
        files: Mapping[str, str] | None,
        proxy_port: int | None,
        mock_port: int,
        processor: Processor,
        protocol: Literal["http/protobuf", "grpc"],
        workers: int,
        proxy_args: Sequence[str],
    ) -> None:
        super().__init__(name)
        self._tenants = tuple(tenants)
        self._backend = backend
        self._protocol = protocol
        self._processor = processor
        self._env = dict(env or {})
        self._keys: dict[str, str] = {}
        self._engine = _engine(name, backend, mock_args, mock_port, engine_args, engine_shape)
        if trace_engine and self._engine is None:
            raise ValueError(f"backend {backend} runs already: trace_engine is for one that the stack starts")
        self._engine_receiver = Receiver(f"{name}-engine") if trace_engine else None
        self._receiver = Receiver(name)
        self._proxy = Proxy(name, config=config, files=files, port=proxy_port, workers=workers, args=proxy_args)

    def _start(self) -> None:
        self._receiver.launch()
        if self._engine_receiver is not None and self._engine is not None:
            self._engine_receiver.launch()
            self._engine_receiver.wait()
            self._engine.traces_endpoint = self._engine_receiver.endpoint("http/protobuf")
        if self._engine is not None:
            self._engine.launch()
            self._engine.wait()
        self._receiver.wait()
        self._proxy.env.update(self._proxy_environment())
        self._keys = self._make_keys()  # first: a proxy does not start without its keys file
        self._proxy._start()

    def _stop(self) -> None:
        # Who sends spans first: the last of them leave while it ends.
        for part in (self._proxy, self._receiver, self._engine, self._engine_receiver):
            if part is not None:
                part._stop()

    def _proxy_environment(self) -> dict[str, str]:
        return {
            "VLLM_API_BASE": f"{self.engine_url}/v1",
            "VLLM_API_KEY": "none",
            "OTEL_COST_LOGGER_KEYS_FILE": str(self._keys_file),
            "OTEL_COST_LOGGER_PROCESSOR": self._processor,
            **({"OTEL_COST_LOGGER_LEDGER_FILE": str(self.durable_ledger)} if self._processor == "durable" else {}),
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": self._protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._receiver.endpoint(self._protocol),
            "OTEL_BSP_SCHEDULE_DELAY": BATCH_DELAY_MS,
            "OTEL_COST_LOGGER_STOP_SECONDS": "5",  # its supervisor waits for 10
            # vLLM closes an idle connection after 5 s. The proxy, which would keep it for 120 s, must be first: a
            # request that meets the closing ends with a 500.
            "AIOHTTP_KEEPALIVE_TIMEOUT": "4",
            **self._env,
        }

    @property
    def _keys_file(self) -> Path:
        return self.run_dir / "keys.json"

    def _make_keys(self) -> dict[str, str]:
        return {tenant: add_key(self._keys_file, tenant) for tenant in self._tenants}

    @property
    def proxy(self) -> Proxy:
        """The proxy's process, to be killed, stopped and restarted: ``s.proxy.kill()``. Its ledgers and keys stay."""
        return self._proxy

    @property
    def collector(self) -> Receiver:
        """The receiver's process: ``s.collector.fail(status=503)``, ``recover()``, ``stop()``, ``restart()``.

        What has arrived stays in `ledger`.
        """
        return self._receiver

    @property
    def proxy_url(self) -> str:
        """The proxy, without ``/v1``."""
        return self._proxy.url

    @property
    def engine(self) -> Backend:
        """The backend that the stack started, mock or real; raises `NotStarted` when it is another program."""
        if self._engine is None:
            raise NotStarted(f"stack {self.name!r} has no engine of its own: its backend is {self._backend}")
        return self._engine

    @property
    def engine_url(self) -> str:
        """What the proxy calls, without ``/v1``, whichever backend it is."""
        return self._engine.url if self._engine else self._backend.rstrip("/").removesuffix("/v1")

    @property
    def engine_spans(self) -> Path:
        """The file with the backend's own spans, which are nobody's costs; raises `NotStarted` if it is not traced."""
        if self._engine_receiver is None:
            raise NotStarted(f"the backend of stack {self.name!r} is not traced; make the stack with trace_engine=True")
        return self._engine_receiver.ledger

    @property
    def mock_url(self) -> str:
        """The mock vLLM server, without ``/v1``; raises `NotStarted` when the backend is another one."""
        if not isinstance(self._engine, Mock):
            raise NotStarted(f"stack {self.name!r} has no mock: its backend is {self._backend}")
        return self._engine.url

    @property
    def receiver_url(self) -> str:
        """The OTLP endpoint that the proxy sends its spans to."""
        return self._receiver.endpoint(self._protocol)

    @property
    def master_key(self) -> str:
        """The operator's key of this proxy. Do not print it."""
        return self._proxy.master_key

    @property
    def keys(self) -> Mapping[str, str]:
        """Each tenant's API key. Do not print them."""
        return self._keys

    @property
    def ledger(self) -> Path:
        """The file that the spans arrive in, one JSON line each; it starts empty and outlives the stack."""
        return self._receiver.ledger

    @property
    def durable_ledger(self) -> Path:
        """The plugin's own file, an SQLite database that the proxy writes each record to before it is sent.

        Not `ledger`, which holds what has arrived. Raises `NotStarted` when the processor is another one.
        """
        if self._processor != "durable":
            raise NotStarted(
                f"the proxy of stack {self.name!r} keeps no file (processor {self._processor}); make the stack with "
                'processor="durable"'
            )
        return self.run_dir / "ledger.db"

    @property
    def logs(self) -> dict[str, Path]:
        """The log of each process, by its name."""
        parts = (self._engine, self._receiver, self._proxy)
        return {part.log.stem: part.log for part in parts if part is not None}

    def headers(self, tenant: str) -> dict[str, str]:
        """The HTTP headers of a request by ``tenant``. Raises KeyError for a tenant without a key."""
        if tenant not in self._keys:
            known = ", ".join(self._keys) or "none, the stack is not running"
            raise KeyError(f"no key for tenant {tenant!r}; known: {known}")
        return {"Authorization": f"Bearer {self._keys[tenant]}"}

    def http(self, tenant: str) -> httpx.Client:
        """An HTTP client with the tenant's key: ``s.http(t).post("/v1/chat/completions", json=...)``."""
        return httpx.Client(base_url=self.proxy_url, headers=self.headers(tenant), timeout=60, trust_env=False)

    def client(self, tenant: str) -> openai.OpenAI:
        """The official OpenAI client with the tenant's key, without retries: one call is one request."""
        import openai

        self.headers(tenant)  # the clear error for an unknown tenant
        return openai.OpenAI(base_url=f"{self.proxy_url}/v1", api_key=self._keys[tenant], max_retries=0, timeout=60)

    def wait_for_records(self, n: int, timeout: float = 30.0) -> pd.DataFrame:
        """The spans in the ledger (see `spans.read_ledger`), as soon as there are ``n`` or more.

        The proxy records a call after it has answered, so the last record is a moment late, and those of calls
        made before may still be on their way. Raises `RecordsMissing` after ``timeout`` seconds.
        """
        from workbook.spans import read_ledger

        def arrived() -> int:
            return self.ledger.read_bytes().count(b"\n")

        self._wait(lambda: arrived() >= n, lambda: f"{arrived()} of {n} records came", timeout)
        return read_ledger(self.ledger)

    def wait_for_call(self, call_id: str, timeout: float = 30.0) -> pd.Series:
        """The record of one call, as soon as it is in the ledger; a row of `wait_for_records`.

        The proxy names each call in its answer's header ``x-litellm-call-id``. Raises `RecordsMissing` after
        ``timeout`` seconds.
        """
        from workbook.spans import read_ledger

        def arrived() -> bool:
            return any(call_id.encode() in line for line in self.ledger.read_bytes().split(b"\n")[:-1])

        self._wait(arrived, lambda: f"no record of call {call_id} came", timeout)
        spans = read_ledger(self.ledger)
        return spans[spans["call_id"] == call_id].iloc[0]

    def wait_for_engine_spans(self, span_id: str, n: int = 1, timeout: float = 30.0) -> pd.DataFrame:
        """The backend's own spans below the cost span ``span_id``, as soon as there are ``n`` or more.

        One per choice and prompt of the call, see `traces`. Raises `NotStarted` when the backend is not traced, and
        `RecordsMissing` after ``timeout`` seconds: a call that was aborted or refused never has any.
        """
        from workbook.spans import read_ledger

        below = f'"parentSpanId": "{span_id}"'.encode()

        def arrived() -> int:
            return self.engine_spans.read_bytes().rpartition(b"\n")[0].count(below)

        self._wait(lambda: arrived() >= n, lambda: f"{arrived()} of {n} engine spans came", timeout)
        spans = read_ledger(self.engine_spans)
        return spans[spans["parent_span_id"] == span_id].reset_index(drop=True)

    def _wait(self, condition: Callable[[], bool], missing: Callable[[], str], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                logs = ", ".join(shown(log) for log in self.logs.values())
                raise RecordsMissing(f"{missing()} within {timeout:g} s; logs: {logs}")
            time.sleep(0.02)

    def __repr__(self) -> str:
        backend = {"mock": "mock vLLM", "vllm-cpu": "vLLM on a CPU", "vllm": "vLLM"}.get(self._backend, self._backend)
        state = "running" if self.running else "not running"
        return f"<stack {self.name!r}: {backend}, LiteLLM proxy, receiver; {state}; {len(self._tenants)} tenants>"


def _engine(
    name: str, backend: str, mock_args: Sequence[str], mock_port: int, args: Sequence[str], shape: str | None
) -> Backend | None:
    """The backend to start, or None for a URL. Raises ValueError for what is neither."""
    if backend == "mock":
        return Mock(name, args=[*mock_args, *args], port=mock_port)
    if kind := _ENGINE_KINDS.get(backend):
        from workbook.engine import Engine

        return Engine(name, kind=kind, shape=shape, args=args)
    if not backend.startswith(("http://", "https://")):
        raise ValueError(f'backend {backend!r} is neither "mock", "vllm-cpu", "vllm" nor the URL of a vLLM server')
    if args:
        raise ValueError(f"backend {backend} runs already: engine_args are for one that the stack starts")
    return None


def stack(
    name: str = "stack",
    *,
    config: Path | Mapping[str, Any] | None = None,
    tenants: Sequence[str] = TENANTS,
    backend: str = "mock",
    mock_args: Sequence[str] = (),
    engine_args: Sequence[str] = (),
    engine_shape: str | None = None,
    trace_engine: bool = False,
    env: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    proxy_port: int | None = None,
    mock_port: int = 0,
    processor: Processor = "batch",
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf",
    workers: int = 1,
    proxy_args: Sequence[str] = (),
) -> Stack:
    """A stack, not yet started: use it in a ``with`` statement, or call its ``start`` and ``stop``.

    ``name`` names its folder ``build/runs/NAME`` and its ledger ``build/ledger/NAME.jsonl``; both start empty.
    ``config`` is a proxy configuration, as a path or as a mapping; the one that ships by default. ``files``
    (name to text) are written beside a mapping's file: a callback module for the proxy, for example.
    ``backend`` is ``"mock"``, ``"vllm-cpu"`` (a real vLLM with random weights), ``"vllm"`` (the same on a GPU) or the
    URL of a vLLM server that runs already. ``engine_args`` are flags of ``vllm serve``, which the mock knows as well;
    ``mock_args`` are for the mock alone, ``engine_shape`` for a real engine (see `Engine`). With ``trace_engine`` the
    backend's own spans go to a ledger of their own. ``env`` is for the proxy and overrides what the stack sets. Ports
    are free ones unless given; ``processor`` and ``protocol`` say how the records' spans are sent;
    ``"durable"`` keeps them in a file first, see `Stack.durable_ledger`. ``workers`` are the proxy's processes,
    ``proxy_args`` more flags of ``litellm``.

    Raises ValueError for a backend that there is not, or that the stack cannot give flags to. Starting raises
    `PortTaken`, `EngineNotBuilt`, or `ChildDied` or `ChildNotReady` with the last lines of the child's log.
    """
    return Stack(
        name,
        config=config,
        tenants=tenants,
        backend=backend,
        mock_args=mock_args,
        engine_args=engine_args,
        engine_shape=engine_shape,
        trace_engine=trace_engine,
        env=env,
        files=files,
        proxy_port=proxy_port,
        mock_port=mock_port,
        processor=processor,
        protocol=protocol,
        workers=workers,
        proxy_args=proxy_args,
    )
