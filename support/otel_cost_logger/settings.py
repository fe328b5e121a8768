"""What the operator set, read once from the environment and checked before the first call.

Standard OpenTelemetry variables choose the exporter (``OTEL_TRACES_EXPORTER``: console, otlp, none, or several
separated by commas) and its protocol (``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL``, ``OTEL_EXPORTER_OTLP_PROTOCOL``);
the exporters themselves read the rest (endpoint, headers, TLS, compression). ``OTEL_PROPAGATORS`` without
``tracecontext`` keeps the trace context from the engine. Two variables are ours:
``OTEL_COST_LOGGER_PROCESSOR`` (simple or batch) and ``OTEL_COST_LOGGER_ERROR_MESSAGES`` (true keeps the text of
errors, which may quote a prompt).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

CONSOLE = "console"
OTLP = "otlp"
NONE = "none"
GRPC = "grpc"
HTTP_PROTOBUF = "http/protobuf"
SIMPLE = "simple"
BATCH = "batch"

_TRACE_CONTEXT = "tracecontext"
_GENAI_OPT_IN = "gen_ai_latest_experimental"


class SettingsError(ValueError):
    """A variable has a value that cannot be used; the message names it and the values that can."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The plugin's settings.

    ``exporters`` are the names in OTEL_TRACES_EXPORTER, ``protocol`` is the OTLP protocol, ``processor`` is
    ``simple``, ``batch`` or None (console exports simply, so that each span shows at once; OTLP in batches).
    ``genai_spans`` gives spans the name and kind of the OpenTelemetry GenAI conventions. With ``propagate`` the engine
    is told the cost span's trace context.
    """

    exporters: tuple[str, ...] = (CONSOLE,)
    protocol: str = GRPC
    processor: str | None = None
    genai_spans: bool = False
    error_messages: bool = False
    propagate: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``environment`` (default: ``os.environ``); raises `SettingsError`."""
        env = os.environ if environment is None else environment
        names = [name.strip() for name in env.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()]
        for name in names:
            _check("OTEL_TRACES_EXPORTER", name, (CONSOLE, OTLP, NONE))
        protocol = env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL") or GRPC
        processor = env.get("OTEL_COST_LOGGER_PROCESSOR") or None
        if processor:
            _check("OTEL_COST_LOGGER_PROCESSOR", processor, (SIMPLE, BATCH))
        propagators = {name.strip() for name in env.get("OTEL_PROPAGATORS", _TRACE_CONTEXT).split(",")}
        opt_in = {value.strip() for value in env.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")}
        messages = env.get("OTEL_COST_LOGGER_ERROR_MESSAGES", "false").lower()
        return cls(
            exporters=tuple(name for name in dict.fromkeys(names or [CONSOLE]) if name != NONE),
            protocol=_check("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, (GRPC, HTTP_PROTOBUF)),
            processor=processor,
            genai_spans=_GENAI_OPT_IN in opt_in,
            error_messages=_check("OTEL_COST_LOGGER_ERROR_MESSAGES", messages, ("true", "false")) == "true",
            propagate=_TRACE_CONTEXT in propagators,
        )


def _check(variable: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise SettingsError(f"{variable}={value!r} is not supported; use one of: {', '.join(allowed)}")
    return value
