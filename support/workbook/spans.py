"""Span ledgers as tables: one row per span, with the record's own field names and proper types."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from workbook.paths import shown

# https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding and trace.proto: enums as integers.
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")
_SPAN_COLUMNS = (
    "span_name",
    "kind",
    "trace_id",
    "span_id",
    "parent_span_id",
    "start",
    "end",
    "status",
    "status_message",
    "service_name",
)
_DTYPES = {"string": "str", "int": "Int64", "float": "Float64", "bool": "boolean", "string[]": "object"}
NANO = 10**9  # nano-USD per USD


class LedgerError(ValueError):
    """A ledger has a line, not the last one, that is no OTLP JSON; the message names file and line."""


class TornLine(UserWarning):
    """A ledger's last line is incomplete: its writer was killed, or is still writing."""


def read_ledger(source: Path | str | Iterable[Path]) -> pd.DataFrame:
    """The spans of a ledger file, of every ``*.jsonl`` in a folder, or of several files, in order of start.

    Columns: span_name, kind, trace_id, span_id, parent_span_id, start and end (UTC, nanoseconds), status,
    status_message, service_name, then a column for every field of `otel_cost_logger.record.CallRecord` that has
    an attribute, under the field's name, then any other attribute under its own name. Missing values are NA.

    A span that was delivered twice (same trace and span id) is one row. An incomplete last line is left out with
    a `TornLine` warning. Raises FileNotFoundError, or `LedgerError` for a damaged line elsewhere.
    """
    rows = [row for path in _ledgers(source) for row in _read(path)]
    frame = _typed(pd.DataFrame(rows, dtype=object))  # as float64, a missing value would round the others
    frame = frame.drop_duplicates(["trace_id", "span_id"])
    return frame.sort_values(["start", "span_id"], kind="stable", ignore_index=True)


def cost_table(spans: pd.DataFrame) -> pd.DataFrame:
    """Calls, failures, tokens and cost per tenant and model, and a total row.

    Columns: tenant, model, calls, failures (every outcome but success), prompt_tokens, completion_tokens,
    cost_usd. Costs are summed in integer nano-USD and only then divided, so the total is exact to the nano-USD.
    Spans without a tenant are none of the callback's, and are left out.
    """
    per_model = (
        spans.dropna(subset=["tenant_id"])
        .assign(failures=lambda calls: ~calls["success"].fillna(False).astype(bool))
        .groupby(["tenant_id", "model"], dropna=False)
        .agg(
            calls=("span_id", "size"),
            failures=("failures", "sum"),
            prompt_tokens=("prompt_tokens", "sum"),
            completion_tokens=("completion_tokens", "sum"),
            nano_usd=("cost_nano_usd", "sum"),
        )
        .reset_index()
        .rename(columns={"tenant_id": "tenant"})
    )
    counts = ["calls", "failures", "prompt_tokens", "completion_tokens", "nano_usd"]
    total = pd.DataFrame([{"tenant": "total", "model": "", **per_model[counts].sum()}])
    table = pd.concat([per_model, total], ignore_index=True).astype(dict.fromkeys(counts, "int64"))
    table["cost_usd"] = table.pop("nano_usd") / NANO
    return table


def _ledgers(source: Path | str | Iterable[Path]) -> list[Path]:
    if not isinstance(source, Path | str):
        return list(source)
    path = Path(source)
    if path.is_dir():
        return sorted(path.glob("*.jsonl"))
    if not path.exists():
        raise FileNotFoundError(f"no ledger at {shown(path)}; a stack writes one while it runs")
    return [path]


def _read(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # no newline after it
                warnings.warn(f"{shown(path)}, line {number}: incomplete, left out", TornLine, stacklevel=3)
                return
            raise LedgerError(f"{shown(path)}, line {number}: not JSON: {error}") from error
        yield from _rows(data)


def _rows(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in data.get("resourceSpans", ()):
        shared = _attributes(resource.get("resource", {}))
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield {
                    "span_name": span.get("name", ""),
                    "kind": _KINDS[span.get("kind", 0)],
                    "trace_id": span["traceId"],
                    "span_id": span["spanId"],
                    "parent_span_id": span.get("parentSpanId") or None,
                    "start": int(span["startTimeUnixNano"]),
                    "end": int(span["endTimeUnixNano"]),
                    "status": _STATUSES[span.get("status", {}).get("code", 0)],
                    "status_message": span.get("status", {}).get("message") or None,
                    "service_name": shared.get("service.name"),
                    **_as_fields(_attributes(span)),
                }


def _attributes(holder: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: _value(item.get("value", {})) for item in holder.get("attributes", ())}


def _value(encoded: dict[str, Any]) -> Any:
    """An OTLP AnyValue; int64 travels as a string, because JSON numbers are doubles."""
    for kind, value in encoded.items():
        if kind == "intValue":
            return int(value)
        if kind == "doubleValue":
            return float(value)  # also "NaN" and "Infinity", which are strings
        if kind == "arrayValue":
            return [_value(item) for item in value.get("values", ())]
        if kind == "kvlistValue":
            return {item["key"]: _value(item.get("value", {})) for item in value.get("values", ())}
        return value
    return None


@cache
def _schema() -> tuple[dict[str, str], dict[str, str], frozenset[str]]:
    """From attribute name to field, from field to type, and the names that repeat a field under another name.

    A field's first attribute is its own.
    """
    from otel_cost_logger.attributes import SCHEMA  # imports LiteLLM, which takes seconds

    types: dict[str, str] = {}
    fields: dict[str, str] = {}
    for attribute in SCHEMA:
        if attribute.field not in types:
            types[attribute.field] = attribute.type
            fields[attribute.name] = attribute.field
    return fields, types, frozenset(attribute.name for attribute in SCHEMA) - fields.keys()


def _as_fields(attributes: dict[str, Any]) -> dict[str, Any]:
    fields, _, repeated = _schema()
    return {fields.get(name, name): value for name, value in attributes.items() if name not in repeated}


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    _, types, _ = _schema()
    others = [name for name in frame.columns if name not in _SPAN_COLUMNS and name not in types]
    frame = frame.reindex(columns=[*_SPAN_COLUMNS, *types, *others])
    for moment in ("start", "end"):
        frame[moment] = pd.to_datetime(frame[moment], unit="ns", utc=True).astype("datetime64[ns, UTC]")
    text = {name: "str" for name in _SPAN_COLUMNS if name not in ("start", "end")}
    return frame.astype(text | {field: _DTYPES[type_] for field, type_ in types.items()})
