"""What a collector's answer means: accepted, refused for good, or not now.

Which answers are for good: https://opentelemetry.io/docs/specs/otlp/#failures . Differently from there, an answer that
speaks of the connection and not of the spans (401, 403, 404, a redirect) keeps the spans waiting, because mending the
configuration makes them deliverable.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

_HTTP_REFUSED = {400, 413, 422}  # these spans, not this connection
_HTTP_BUSY = {408, 425, 429, 502, 503, 504}
_GRPC_REFUSED = {"INVALID_ARGUMENT", "FAILED_PRECONDITION"}
_GRPC_MISDIRECTED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "UNIMPLEMENTED"}
_GRPC_DOUBTFUL = {"UNKNOWN", "INTERNAL"}
_GRPC_TOO_LARGE = "larger than max"  # what gRPC itself says with RESOURCE_EXHAUSTED, which otherwise means "later"
_MAX_REASON = 500  # characters

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The next hop has confirmed all of them."""


@dataclass(frozen=True, slots=True)
class PartlyRefused:
    """``count`` of them were refused for good, and the answer does not say which."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was refused for good because of what it holds."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Not now. ``retry_after`` is the wait in seconds that the other side asked for; ``misdirected`` means that
    waiting alone will not help, because the endpoint or the credentials are wrong; ``doubtful`` that the other side
    failed, over these spans or over any."""

    reason: str
    retry_after: float | None = None
    misdirected: bool = False
    doubtful: bool = False


Answer = Accepted | PartlyRefused | Refused | Unavailable


def http_answer(status: int, headers: Any, body: bytes) -> Answer:
    """What an OTLP/HTTP response means."""
    said = short(f"HTTP {status} {body[:200].decode(errors='replace')}".strip())
    if 200 <= status < 300:
        return _confirmation(str(headers.get("content-type", "")), body)
    if status in _HTTP_REFUSED:
        return Refused(said)
    if status in _HTTP_BUSY or status >= 500:
        return Unavailable(said, _retry_after(headers.get("retry-after")), doubtful=status not in _HTTP_BUSY)
    return Unavailable(said, misdirected=True)


def _confirmation(content_type: str, body: bytes) -> Answer:
    try:
        if content_type.startswith("application/json"):
            partial = (json.loads(body or b"{}") or {}).get("partialSuccess") or {}
            return _partial(int(partial.get("rejectedSpans") or 0), str(partial.get("errorMessage") or ""))
        if not body or content_type.startswith("application/x-protobuf"):
            return grpc_response(ExportTraceServiceResponse.FromString(body))
    except Exception as error:  # protobuf's own DecodeError among others
        return Unavailable(short(f"an answer that is not OTLP: {error}"), misdirected=True)
    if content_type.startswith("text/html"):  # a login page, or a proxy's
        return Unavailable("an HTML page instead of an OTLP answer: is this the endpoint?", misdirected=True)
    return Accepted()


def grpc_response(response: ExportTraceServiceResponse) -> Answer:
    """What an OTLP response message means."""
    return _partial(response.partial_success.rejected_spans, response.partial_success.error_message)


def _partial(rejected: int, message: str) -> Answer:
    if rejected > 0:
        return PartlyRefused(rejected, short(f"partial success: {message or 'no reason given'}"))
    if message:
        _say(short(message))
    return Accepted()


@lru_cache(maxsize=16)  # once each: a collector may say it with every answer
def _say(message: str) -> None:
    _log.warning("the collector accepted all spans, and said: %s", message)


def grpc_error(error: Any) -> Answer:
    """What a ``grpc.RpcError`` means."""
    code, details = error.code().name, str(error.details() or "")
    said = short(f"gRPC {code}: {details}")
    if code in _GRPC_REFUSED or (code == "RESOURCE_EXHAUSTED" and _GRPC_TOO_LARGE in details):
        return Refused(said)
    return Unavailable(said, _retry_info(error), code in _GRPC_MISDIRECTED, code in _GRPC_DOUBTFUL)


def _retry_info(error: Any) -> float | None:
    """Seconds from a ``google.rpc.RetryInfo`` in the trailing metadata, where servers put it in one of two ways."""
    from opentelemetry.exporter.otlp.proto.grpc import exporter  # its module: loaded with the exporter, or not at all

    metadata = dict(error.trailing_metadata() or ())
    encoded = metadata.get("google.rpc.retryinfo-bin")
    if encoded is None:
        # A google.rpc.Status with the message in a google.protobuf.Any: type name, field 2's tag, length, message.
        _, found, rest = metadata.get("grpc-status-details-bin", b"").partition(b"/google.rpc.RetryInfo\x12")
        if not found:
            return None
        encoded = rest[1 : 1 + rest[0]]
    delay = getattr(exporter, "RetryInfo").FromString(encoded).retry_delay  # noqa: B009  (not in its public names)
    return float(delay.seconds + delay.nanos / 1e9)


def _retry_after(value: str | None) -> float | None:
    """Seconds from an HTTP ``Retry-After``: a number of seconds, or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def short(text: str) -> str:
    return text[:_MAX_REASON]
