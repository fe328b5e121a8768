"""What goes wrong at a collector, on purpose: the test receiver answers as one `Fault` says, until it is given another.

A fault is a JSON object with any of these keys::

    {"status": 503}            refuse with this HTTP status (any but a success); over gRPC, with the code that OTLP
                               gives for it. 307 stands for a redirecting proxy.
    {"retry_after": 2}         with "status": ask for a pause of so many seconds
    {"reset": true}            close the connection without an answer
    {"delay": 1.0}             answer so many seconds later (with or without another fault)
    {"reject_every": 3}        partial success: keep the spans of a request but for every third, and say only how many
    {"poison": "text"}         answer 400 to a request with a span of that name, whatever else it holds
    {"discard": true}          say yes and keep nothing
    {"requests": 5}            all of this for so many requests, then none of it

``{}`` is no fault.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, fields, replace
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class FaultError(ValueError):
    """A description of a fault that makes no sense."""


class Refusal(Exception):
    """The request is answered with HTTP ``status``; ``retry_after`` in seconds, if the sender is to pause."""

    def __init__(self, status: int, retry_after: float | None = None) -> None:
        super().__init__(f"refused on purpose: {status}")
        self.status = status
        self.retry_after = retry_after


class Reset(Exception):
    """The connection is closed without an answer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """See the module. ``status`` 0 refuses nothing, ``requests`` None lasts."""

    status: int = 0
    retry_after: float | None = None
    reset: bool = False
    delay: float = 0.0
    reject_every: int = 0
    poison: str = ""
    discard: bool = False
    requests: int | None = None

    @classmethod
    def from_json(cls, text: str | bytes) -> Fault:
        """Raises `FaultError` for what is not a fault."""
        try:
            given: Any = json.loads(text)
        except ValueError as error:
            raise FaultError(f"not JSON: {error}") from error
        if not isinstance(given, dict):
            raise FaultError("a fault is a JSON object")
        known = {field.name for field in fields(cls)}
        if unknown := given.keys() - known:
            raise FaultError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
        fault = cls(**given)
        if fault.status and not 300 <= fault.status <= 599:
            raise FaultError(f"status {fault.status} refuses nothing; use 300 to 599")
        return fault


class Faults:
    """The fault in force. Thread-safe."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._lock = threading.Lock()

    def set(self, fault: Fault) -> None:
        """From the next request on."""
        with self._lock:
            self._fault = fault

    def next(self) -> Fault:
        """What is in force for one request, which counts against a limit."""
        with self._lock:
            fault = self._fault
            if fault.requests is not None:
                left = fault.requests - 1
                self._fault = replace(fault, requests=left) if left > 0 else Fault()
            return fault


def apply(fault: Fault, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
    """Delay, raise `Refusal` or `Reset`, or take out of ``request`` what is rejected; returns the answer to give."""
    time.sleep(fault.delay)
    if fault.reset:
        raise Reset
    if fault.status:
        raise Refusal(fault.status, fault.retry_after)
    groups = [scope.spans for resource in request.resource_spans for scope in resource.scope_spans]
    if fault.poison and any(span.name == fault.poison for spans in groups for span in spans):
        raise Refusal(400)
    response = ExportTraceServiceResponse()
    if fault.reject_every:
        for spans in groups:
            kept = [span for number, span in enumerate(spans, 1) if number % fault.reject_every]
            response.partial_success.rejected_spans += len(spans) - len(kept)
            del spans[:]
            spans.extend(kept)
        response.partial_success.error_message = "rejected on purpose"
    if fault.discard:
        del request.resource_spans[:]
    return response
