"""The process: bind, announce, serve, and leave when the parent does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading

import uvicorn

from mock_vllm.app import create_app
from mock_vllm.settings import VLLM_VERSION, Settings

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
    # After binding: a port that is taken is worth an error even where there is no stdin to begin with.
    if settings.exit_on_stdin_close:
        threading.Thread(target=_exit_with_stdin, name="stdin", daemon=True).start()
    config = uvicorn.Config(
        create_app(settings),
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    # uvicorn has shut down in good order by the time it raises the signal again.
    with contextlib.suppress(KeyboardInterrupt):
        _AnnouncingServer(config, settings).run(sockets=[listener])
    return 0


class _AnnouncingServer(uvicorn.Server):
    """Prints the ready line once requests are accepted, and not before."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            print(json.dumps(_ready_line(self._settings, sockets[0])), flush=True)


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
            sys.stdin.buffer.read()
        print(
            "mock_vllm: stdin was closed, exiting; pass --no-exit-on-stdin-close to run without a parent",
            file=sys.stderr,
            flush=True,
        )
    finally:
        os._exit(0)
