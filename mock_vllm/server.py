"""The process: bind, announce, serve, and leave when the parent does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from mock_vllm.app import create_app
from mock_vllm.engine import Engine
from mock_vllm.settings import VLLM_VERSION, Settings

if TYPE_CHECKING:
    from mock_vllm.tracing import SpanWriter

_SECONDS_WITHOUT_ENGINE = 1.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def serve(settings: Settings) -> int:
    """Serve until SIGINT, SIGTERM or the end of stdin. Returns the exit code; 1 when it cannot listen."""
    try:
        listener = _bind(settings.host, settings.port)
    except OSError as error:
        print(
            f"mock_vllm: cannot listen on {settings.host} port {settings.port}: {error.strerror or error}; "
            "choose another with --port (0 takes a free one) or --host",
            file=sys.stderr,
        )
        return 1
    try:
        spans = _span_writer(settings)
    except ValueError as error:
        print(f"mock_vllm: {error}", file=sys.stderr)
        return 1
    # After binding: a port that is taken is worth an error even where there is no stdin to begin with.
    if settings.exit_on_stdin_close:
        threading.Thread(target=_exit_with_stdin, name="stdin", daemon=True).start()
    app = create_app(settings, spans)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=None if settings.hang_on_sigterm else 1,
    )
    # uvicorn has shut down in good order by the time it raises the signal again.
    with contextlib.suppress(KeyboardInterrupt):
        _Server(config, settings, app.state.engine, spans).run(sockets=[listener])
    return 0


class _Server(uvicorn.Server):
    """Prints the ready line once requests are accepted, and not before; sends the last spans before it ends."""

    def __init__(self, config: uvicorn.Config, settings: Settings, engine: Engine, spans: SpanWriter | None) -> None:
        super().__init__(config)
        self._settings = settings
        self._engine = engine
        self._spans = spans

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            print(json.dumps(_ready_line(self._settings, sockets[0])), flush=True)

    async def on_tick(self, counter: int) -> bool:
        """Asked ten times a second whether it is time to end. A server outlives its engine by a moment."""
        return await super().on_tick(counter) or self._engine.dead_for(_SECONDS_WITHOUT_ENGINE)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """vLLM kills its engine first, and waits for clients whose answers will then never come."""
        if self._settings.hang_on_sigterm:
            self._engine.freeze()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._spans is not None:
            # Not later: uvicorn ends by raising the signal again, with its default action.
            await asyncio.to_thread(self._spans.close)


def _span_writer(settings: Settings) -> SpanWriter | None:
    if settings.otlp_traces_endpoint is None:
        return None
    from mock_vllm.tracing import SpanWriter

    return SpanWriter(settings.otlp_traces_endpoint)


def _ready_line(settings: Settings, listener: socket.socket) -> dict[str, object]:
    port = listener.getsockname()[1]
    host = _ANY_ADDRESS.get(settings.host, settings.host)
    return {
        "url": f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}",
        "port": port,
        "pid": os.getpid(),
        "model": settings.model_name,
        "max_model_len": settings.max_model_len,
        "version": VLLM_VERSION,
    }


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    # A server restarted on its port must not wait for old connections to leave TIME_WAIT.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        # Two listeners can bind one port; only listening tells that it is taken.
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _exit_with_stdin() -> None:
    """A parent that dies, however it dies, closes its end of the pipe: nothing outlives it.

    `os._exit`, because requests may be open and none of them may delay the end.
    """
    try:
        if sys.stdin is not None:
            # Not by `sys.stdin` itself: its lock, held here, would abort the interpreter at an ordinary end.
            while os.read(sys.stdin.fileno(), 65536):
                pass
        print(
            "mock_vllm: stdin was closed, exiting; pass --no-exit-on-stdin-close to run without a parent",
            file=sys.stderr,
            flush=True,
        )
    finally:
        os._exit(0)
