"""A small OTLP receiver that writes every span it is sent to a file, so that a notebook can read it.

``python -m workbook.receiver --ledger FILE`` listens for OTLP/HTTP (POST /v1/traces; protobuf or JSON, gzip or
plain) and OTLP/gRPC on 127.0.0.1, prints one JSON line ``{"http": URL, "grpc": URL, "pid": ...}`` when both accept
requests, and ends when its stdin closes. It stands where an OpenTelemetry Collector stands in production, also on that
one's bad days: ``--fault JSON``, or ``PUT /fault`` while it runs, makes it answer as `workbook.faults` describes.

Each line of the ledger is a ``TracesData`` object in the OTLP JSON encoding, as the Collector's file exporter
writes it, with exactly one span. Lines are handed to the operating system before the sender gets its answer.

Specification: https://opentelemetry.io/docs/specs/otlp/ and .../specs/otel/protocol/file-exporter/
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import socket
import struct
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf import json_format  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, TracesData

from otel_cost_logger.otlp.decoding import ID_FIELDS, traces_json
from workbook.faults import Fault, FaultError, Faults, Refusal, Reset, apply
from workbook.ports import HOST

_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"
_MAX_BODY = 64 * 1024 * 1024  # bytes; the Collector's own limit is 20 MiB
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: the peer sees a reset, not an end
# What OTLP makes of these HTTP statuses in gRPC (https://opentelemetry.io/docs/specs/otlp/#failures).
_GRPC_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}


class Ledger:
    """An append-only file of spans, one OTLP JSON line each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def append(self, request: ExportTraceServiceRequest) -> None:
        """Write the request's spans with one system call, so that a crash tears one line at most."""
        lines = b"".join(json.dumps(line).encode() + b"\n" for line in _lines(request))
        with self._lock:
            self._file.write(lines)


class Receiver:
    """What both transports do with a request."""

    def __init__(self, ledger: Ledger, faults: Faults) -> None:
        self._ledger = ledger
        self.faults = faults

    def accept(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        """Keep the spans of ``request``; the answer is full success, unless a fault is in force.

        Raises `faults.Refusal` or `faults.Reset`, for the transport to answer in its own way.
        """
        response = apply(self.faults.next(), request)
        self._ledger.append(request)
        return response


def _lines(request: ExportTraceServiceRequest) -> Iterator[dict[str, Any]]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                one = ScopeSpans(scope=scope.scope, schema_url=scope.schema_url, spans=[span])
                yield traces_json(
                    TracesData(
                        resource_spans=[
                            ResourceSpans(
                                resource=resource.resource,
                                schema_url=resource.schema_url,
                                scope_spans=[one],
                            )
                        ]
                    )
                )


def _decode_json(body: bytes) -> ExportTraceServiceRequest:
    encoded = json.loads(body, object_hook=_ids_as_base64)
    if not isinstance(encoded, dict):
        raise ValueError("the body is not a JSON object")
    request = ExportTraceServiceRequest()
    json_format.ParseDict(encoded, request, ignore_unknown_fields=True)
    return request


def _ids_as_base64(encoded: dict[str, Any]) -> dict[str, Any]:
    for field in ID_FIELDS:
        if isinstance(encoded.get(field), str):
            encoded[field] = base64.b64encode(bytes.fromhex(encoded[field])).decode()
    return encoded


class _GrpcService(TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        try:
            return self._receiver.accept(request)
        except Reset:
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset by peer")
        except Refusal as refusal:
            if refusal.retry_after is not None:
                context.set_trailing_metadata((_retry_info(refusal.retry_after),))
            context.abort(_GRPC_CODES.get(refusal.status, grpc.StatusCode.UNKNOWN), str(refusal))
        raise AssertionError("abort() has raised")


def _retry_info(seconds: float) -> tuple[str, bytes]:
    """``google.rpc.RetryInfo`` in the status details, as the Collector sends it."""
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(int(seconds * 1e9))
    status = Status()
    status.details.add().Pack(info)
    return "grpc-status-details-bin", status.SerializeToString()


def serve_grpc(receiver: Receiver, port: int) -> tuple[grpc.Server, int]:
    """Start OTLP/gRPC on ``port`` (0: a free one); returns the server and its port. Raises OSError if taken."""
    # Without this option two servers could share a port and split the spans between them.
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
    add_TraceServiceServicer_to_server(_GrpcService(receiver), server)  # type: ignore[no-untyped-call]
    try:
        bound = server.add_insecure_port(f"{HOST}:{port}")
    except RuntimeError as error:
        raise OSError(f"port {port} on {HOST} is taken") from error
    server.start()
    return server, bound


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__((HOST, port), _HttpHandler)


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # exporters keep their connection
    disable_nagle_algorithm = True  # an answer goes in two parts; the second would wait for the other side's word
    server: _HttpServer

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= _MAX_BODY:
            self.close_connection = True
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"body is too large", "text/plain")
            return
        body = self.rfile.read(length)
        if self.path != "/v1/traces":
            self._answer(HTTPStatus.NOT_FOUND, b"only /v1/traces is served", "text/plain")
            return
        content_type = self.headers.get_content_type()
        try:
            request = _decode(body, content_type, self.headers.get("Content-Encoding", "identity"))
        except (ValueError, DecodeError, json_format.ParseError, OSError, EOFError, zlib.error) as error:
            self._answer(HTTPStatus.BAD_REQUEST, f"not an OTLP trace request: {error}".encode(), "text/plain")
            return
        try:
            response = self.server.receiver.accept(request)
        except Reset:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return
        except Refusal as refusal:
            pause = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
            self._answer(HTTPStatus(refusal.status), str(refusal).encode(), "text/plain", pause)
            return
        if content_type == _JSON:
            self._answer(HTTPStatus.OK, json_format.MessageToJson(response).encode(), _JSON)
        else:
            self._answer(HTTPStatus.OK, response.SerializeToString(), _PROTOBUF)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/fault":
            self._answer(HTTPStatus.NOT_FOUND, b"only /fault can be put", "text/plain")
            return
        try:
            self.server.receiver.faults.set(Fault.from_json(body))
        except FaultError as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error).encode(), "text/plain")
            return
        self._answer(HTTPStatus.OK, b"{}", _JSON)

    def _answer(
        self, status: HTTPStatus, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _decode(body: bytes, content_type: str, encoding: str) -> ExportTraceServiceRequest:
    if encoding == "gzip":
        body = gzip.decompress(body)
    elif encoding != "identity":
        raise ValueError(f"Content-Encoding {encoding} is not supported; send gzip or none")
    if content_type == _JSON:
        return _decode_json(body)
    if content_type == _PROTOBUF:
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        return request
    raise ValueError(f"Content-Type {content_type} is not supported; send {_PROTOBUF} or {_JSON}")


def serve_http(receiver: Receiver, port: int) -> tuple[ThreadingHTTPServer, int]:
    """Start OTLP/HTTP on ``port`` (0: a free one); returns the server and its port. Raises OSError if taken."""
    try:
        server = _HttpServer(port, receiver)
    except OSError as error:
        raise OSError(f"port {port} on {HOST}: {error.strerror}") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.server_address[1]


def _fault(text: str) -> Fault:
    try:
        return Fault.from_json(text)
    except FaultError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stdin closes; 1 when a port is taken."""
    parser = argparse.ArgumentParser(prog="workbook.receiver", description="Write OTLP spans to a file.")
    parser.add_argument("--ledger", type=Path, required=True, help="file to append spans to, one JSON line each")
    parser.add_argument("--port", type=int, default=0, help="for OTLP/HTTP; 0 takes a free one")
    parser.add_argument("--grpc-port", type=int, default=0, help="for OTLP/gRPC; 0 takes a free one")
    parser.add_argument("--fault", type=_fault, default=Fault(), help="JSON, see workbook.faults; none by default")
    arguments = parser.parse_args(argv)
    receiver = Receiver(Ledger(arguments.ledger), Faults(arguments.fault))
    try:
        http, http_port = serve_http(receiver, arguments.port)
        grpc_server, grpc_port = serve_grpc(receiver, arguments.grpc_port)
    except OSError as error:
        print(f"workbook.receiver: {error}", file=sys.stderr)
        return 1
    ready = {
        "http": f"http://{HOST}:{http_port}",
        "grpc": f"http://{HOST}:{grpc_port}",
        "pid": os.getpid(),
    }
    print(json.dumps(ready), flush=True)
    sys.stdin.buffer.read()  # until the parent closes it, or ends
    grpc_server.stop(grace=1).wait()
    http.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
