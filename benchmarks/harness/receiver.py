"""A collector that counts spans and keeps nothing, so that it costs as little as a collector written in Python can.

``python -m benchmarks.harness.receiver FILE`` listens on two free ports and tells them as `workbook.receiver` does.
``FILE`` exists. Its first bytes are the number of spans accepted so far,
which is up to date before the sender gets its answer. Where there is more in it, each further byte belongs to the span
with that number as its id (`span_id`), and says how often it came, 255 times at most. The
process ends when its stdin closes.
"""

from __future__ import annotations

import json
import mmap
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_cost_logger.settings import GRPC, HTTP_PROTOBUF
from workbook.children import Child
from workbook.faults import Fault, Faults
from workbook.receiver import Ledger, Receiver, serve_grpc, serve_http

MOST_SPANS = 65_536  # of one run, numbered from 1
_COUNT = 8  # bytes
_READY_SECONDS = 60.0  # beside many other programs that start


def span_id(run: int, number: int) -> int:
    """The id of span ``number`` of run ``run``, both from 1."""
    return run * MOST_SPANS + number


class Arrivals(Ledger):
    """Counts in the file ``path``."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._counts = mmap.mmap(file.fileno(), 0)
        self._lock = threading.Lock()

    def append(self, request: ExportTraceServiceRequest) -> None:
        """Count the request's spans."""
        spans = [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
        with self._lock:
            if len(self._counts) > _COUNT:
                for span in spans:
                    place = _COUNT + int.from_bytes(span.span_id, "big")
                    self._counts[place] = min(255, self._counts[place] + 1)
            count = int.from_bytes(self._counts[:_COUNT], "little") + len(spans)
            self._counts[:_COUNT] = count.to_bytes(_COUNT, "little")


class CountingReceiver:
    """The receiver's process ``pid``, with its files in ``folder``.

    ``endpoints`` are its URLs by protocol. It tells the spans of ``runs`` runs apart. Raises `ChildDied` or
    `ChildNotReady` with the last lines of its log.
    """

    def __init__(self, folder: Path, runs: int = 0) -> None:
        self._file = folder / "received"
        self._file.write_bytes(bytes(_COUNT + (runs + 1) * MOST_SPANS * (runs > 0)))
        command = [sys.executable, "-m", "benchmarks.harness.receiver", str(self._file)]
        self._child = Child("receiver", command, log=folder / "receiver.log")
        told = self._child.wait_for_announcement(_READY_SECONDS)
        self.pid = self._child.pid
        self.endpoints = {HTTP_PROTOBUF: str(told["http"]), GRPC: str(told["grpc"])}

    def stop(self) -> None:
        """End it; nobody listens on its ports then."""
        self._child.stop()

    def spans(self) -> int:
        """How many spans it has accepted so far."""
        with self._file.open("rb") as file:
            return int.from_bytes(file.read(_COUNT), "little")

    def times(self, run: int) -> npt.NDArray[np.uint8]:
        """How often each span of ``run`` has come by now; the first is at 0."""
        with self._file.open("rb") as file:
            file.seek(_COUNT + span_id(run, 1))
            return np.frombuffer(file.read(MOST_SPANS - 1), dtype=np.uint8)


@contextmanager
def counting_receiver(folder: Path, runs: int = 0) -> Iterator[CountingReceiver]:
    """A `CountingReceiver` that ends with the ``with`` block."""
    receiver = CountingReceiver(folder, runs)
    try:
        yield receiver
    finally:
        receiver.stop()


def main(argv: Sequence[str]) -> int:
    """Serve until stdin closes."""
    receiver = Receiver(Arrivals(Path(argv[0])), Faults(Fault()))
    http, http_port = serve_http(receiver, 0)
    grpc_server, grpc_port = serve_grpc(receiver, 0)
    print(json.dumps({"http": f"http://127.0.0.1:{http_port}", "grpc": f"http://127.0.0.1:{grpc_port}"}), flush=True)
    sys.stdin.buffer.read()
    grpc_server.stop(grace=1).wait()
    http.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
