"""A collector that counts spans and keeps nothing, so that it costs as little as a collector written in Python can.

``python -m benchmarks.span_processors.receiver COUNT`` is `workbook.receiver` with the file ``COUNT`` in place of its
ledger: it holds how many spans were accepted so far, and is up to date before the sender gets its answer. It ends when
its stdin closes.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_cost_logger.settings import GRPC, HTTP_PROTOBUF
from workbook.children import Child
from workbook.faults import Fault, Faults
from workbook.receiver import Ledger, Receiver, serve_grpc, serve_http

_READY_SECONDS = 30.0


class SpanCounter(Ledger):
    """Counts what it is given into the file ``path``."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._lock = threading.Lock()
        self._spans = 0

    def append(self, request: ExportTraceServiceRequest) -> None:
        """Count the request's spans."""
        spans = sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        with self._lock:
            self._spans += spans
            os.pwrite(self._file.fileno(), b"%020d" % self._spans, 0)  # one width: whole at every moment


class CountingReceiver:
    """The receiver's process ``pid``, its ``endpoints`` by protocol (http/protobuf, grpc), and what it has counted."""

    def __init__(self, child: Child, count: Path) -> None:
        told = child.wait_for_announcement(_READY_SECONDS)
        self.pid = child.pid
        self.endpoints = {HTTP_PROTOBUF: str(told["http"]), GRPC: str(told["grpc"])}
        self._count = count

    def spans(self) -> int:
        """How many spans it has accepted so far."""
        return int(self._count.read_bytes() or b"0")


@contextmanager
def counting_receiver(folder: Path) -> Iterator[CountingReceiver]:
    """A receiver in another process, with its log and its count in ``folder``; it ends with the ``with`` block.

    Raises `ChildDied` or `ChildNotReady` with the last lines of its log.
    """
    count = folder / "received"
    count.unlink(missing_ok=True)
    child = Child(
        "receiver",
        [sys.executable, "-m", "benchmarks.span_processors.receiver", str(count)],
        log=folder / "receiver.log",
    )
    try:
        count.touch()
        yield CountingReceiver(child, count)
    finally:
        child.stop()


def main(argv: Sequence[str]) -> int:
    """Serve on free ports until stdin closes."""
    receiver = Receiver(SpanCounter(Path(argv[0])), Faults(Fault()))
    http, http_port = serve_http(receiver, 0)
    grpc_server, grpc_port = serve_grpc(receiver, 0)
    print(json.dumps({"http": f"http://127.0.0.1:{http_port}", "grpc": f"http://127.0.0.1:{grpc_port}"}), flush=True)
    sys.stdin.buffer.read()
    grpc_server.stop(grace=1).wait()
    http.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
