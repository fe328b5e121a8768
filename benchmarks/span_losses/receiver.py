"""A collector that notes which spans have come, and how often, and keeps nothing else.

Each span says in its id whose it is and which (`span_id`). ``python -m benchmarks.span_losses.receiver FILE HTTP GRPC``
listens on these two ports (0 for free ones), tells them as `workbook.receiver` does, takes its faults, and counts in
``FILE``, which exists and holds a byte for each span that there can be. What has been counted is there after a restart.
"""

from __future__ import annotations

import json
import mmap
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_cost_logger.settings import GRPC, HTTP_PROTOBUF
from workbook.children import Child
from workbook.faults import Fault, Faults
from workbook.receiver import Ledger, Receiver, serve_grpc, serve_http

MOST_SPANS = 65_536  # of one run, numbered from 1
_READY_SECONDS = 60.0  # beside many other programs that start


def span_id(run: int, number: int) -> int:
    """The id of span ``number`` of run ``run``, both from 1."""
    return run * MOST_SPANS + number


class Arrivals(Ledger):
    """Counts in the file ``path`` how often each span came; in one byte, so 255 times at most."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._times = mmap.mmap(file.fileno(), 0)
        self._lock = threading.Lock()

    def append(self, request: ExportTraceServiceRequest) -> None:
        """Count the request's spans."""
        with self._lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        place = int.from_bytes(span.span_id, "big")
                        self._times[place] = min(255, self._times[place] + 1)


class ArrivalReceiver:
    """The receiver's process, to be stopped, restarted and made to fail; its files are in ``folder``.

    There may be ``runs`` runs. Raises `ChildDied` or `ChildNotReady` with the last lines of its log.
    """

    def __init__(self, folder: Path, runs: int) -> None:
        self._folder = folder
        self._file = folder / "arrivals"
        self._file.write_bytes(bytes((runs + 1) * MOST_SPANS))
        self._ports = ("0", "0")
        self._child: Child | None = None
        self.restart()

    def restart(self) -> None:
        """Start it, on the ports that it had before if it had any."""
        command = [sys.executable, "-m", "benchmarks.span_losses.receiver", str(self._file), *self._ports]
        self._child = Child("receiver", command, log=self._folder / "receiver.log")
        told = self._child.wait_for_announcement(_READY_SECONDS)
        self.endpoints = {HTTP_PROTOBUF: str(told["http"]), GRPC: str(told["grpc"])}
        self._ports = (told["http"].rpartition(":")[2], told["grpc"].rpartition(":")[2])

    def stop(self) -> None:
        """End it; nobody listens on its ports then."""
        if self._child is not None:
            self._child.stop()

    def fail(self, **fault: Any) -> None:
        """Answer as `workbook.faults` describes from the next request on; without a fault, as it should."""
        url = f"{self.endpoints[HTTP_PROTOBUF]}/fault"
        httpx.put(url, json=fault, timeout=30, trust_env=False).raise_for_status()

    def times(self, run: int) -> npt.NDArray[np.uint8]:
        """How often each span of ``run`` has come by now; the first is at 0."""
        begin = span_id(run, 1)
        with self._file.open("rb") as file:
            file.seek(begin)
            return np.frombuffer(file.read(MOST_SPANS - 1), dtype=np.uint8)


def main(argv: Sequence[str]) -> int:
    """Serve until stdin closes."""
    receiver = Receiver(Arrivals(Path(argv[0])), Faults(Fault()))
    http, http_port = serve_http(receiver, int(argv[1]))
    grpc_server, grpc_port = serve_grpc(receiver, int(argv[2]))
    print(json.dumps({"http": f"http://127.0.0.1:{http_port}", "grpc": f"http://127.0.0.1:{grpc_port}"}), flush=True)
    sys.stdin.buffer.read()
    grpc_server.stop(grace=1).wait()
    http.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
