"""Sending spans of the ledger again, to any collector. Their ids are the first ones."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.sdk.trace.export import SpanExporter

from otel_cost_logger.ledger.file import LedgerError
from otel_cost_logger.ledger.reading import Window, payloads
from otel_cost_logger.otlp.answers import Accepted, Refused
from otel_cost_logger.otlp.channel import CHANNEL_OPTIONS
from otel_cost_logger.otlp.decoding import Payload
from otel_cost_logger.otlp.sending import Sender, deliver
from otel_cost_logger.settings import GRPC

_ATTEMPTS = 6
_LONGEST_PAUSE_SECONDS = 60.0
_REACH_DAYS = 14  # of the Tempo in support/deploy


@dataclass(frozen=True, slots=True)
class Replayed:
    """The ids that the collector ``accepted``, and how many spans it ``refused``, with its last reason."""

    accepted: list[int]
    refused: int
    reason: str


def exporter_to(url: str, protocol: str) -> SpanExporter:
    """OpenTelemetry's exporter to ``url``, with the headers and certificates that the usual variables name.

    Raises `LedgerError` for what is not a URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise LedgerError(f"{url!r} is not the URL of a collector; write, for example, http://127.0.0.1:4318")
    if protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(url, channel_options=CHANNEL_OPTIONS)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    path = parts.path if parts.path.strip("/") else "/v1/traces"
    return HttpExporter(urlunsplit(parts._replace(path=path)))


def warning_of_age(connection: sqlite3.Connection, window: Window) -> str | None:
    """What to know before spans of ``window`` go to a backend that does not look back far enough; None where all are
    younger than that."""
    condition, values = window.condition()
    (oldest,) = connection.execute(f"SELECT min(s.end_ns) FROM spans s WHERE {condition}", values).fetchone()
    days = 0 if oldest is None else (time.time_ns() - oldest) // (86_400 * 10**9)
    if days < _REACH_DAYS:
        return None
    return (
        f"warning: the oldest span is {days} days old. A backend confirms also what it never finds again: Tempo, as "
        f"support/deploy sets it up, what is older than {_REACH_DAYS} days (block_retention and both "
        "ingestion_time_range_slack in tempo.yaml). Compare a sum there with the ledger's"
    )


def replay(
    connection: sqlite3.Connection, window: Window, sender: Sender, *, dead: bool = False, pause_seconds: float = 1.0
) -> Replayed:
    """Send the spans of ``window`` (only the dead letters with ``dead``); ``pause_seconds`` is the first pause when the
    collector does not answer. Raises `LedgerError` when it does not for long."""
    accepted: list[int] = []
    refused, reason = 0, ""
    for batch in payloads(connection, window, dead=dead):
        left, attempts = batch, 0
        while left:
            for part, answer in deliver(sender, left):
                if isinstance(answer, Accepted):
                    accepted += [payload.id for payload in part]
                elif isinstance(answer, Refused):
                    refused, reason = refused + len(part), answer.reason
                else:
                    attempts += 1
                    if attempts == _ATTEMPTS or answer.misdirected:
                        raise LedgerError(f"{answer.reason}; {len(accepted)} spans were sent before")
                    asked = answer.retry_after
                    time.sleep(min(pause_seconds * 2**attempts if asked is None else asked, _LONGEST_PAUSE_SECONDS))
                    break
                left = _without(left, part)
    return Replayed(accepted, refused, reason)


def _without(batch: list[Payload], part: list[Payload]) -> list[Payload]:
    done = {payload.id for payload in part}
    return [payload for payload in batch if payload.id not in done]
