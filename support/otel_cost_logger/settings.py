"""What the operator set, read once from the environment and checked before the first call.

Standard OpenTelemetry variables choose the exporter (``OTEL_TRACES_EXPORTER``: console, otlp, none, or several
separated by commas) and its protocol (``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL``, ``OTEL_EXPORTER_OTLP_PROTOCOL``);
the exporters themselves read the rest (endpoint, headers, TLS, compression). ``OTEL_METRICS_EXPORTER`` (otlp or none)
sends the plugin's own metrics (see `metrics`) every ``OTEL_METRIC_EXPORT_INTERVAL`` milliseconds, by
``OTEL_EXPORTER_OTLP_METRICS_PROTOCOL``. ``OTEL_PROPAGATORS`` without ``tracecontext`` keeps the trace context from the
engine. The others are ours:

- ``OTEL_COST_LOGGER_LEDGER_FILE`` keeps every record in this file, and exports it from there (see `durable`).
- ``OTEL_COST_LOGGER_LEDGER_SYNC`` (normal or full) says what the ledger survives: the process, or the machine too.
- ``OTEL_COST_LOGGER_LEDGER_DAYS`` is how long exported records stay in it.
- ``OTEL_COST_LOGGER_PROCESSOR`` (simple, batch or durable) says how spans reach the exporter.
- ``OTEL_COST_LOGGER_BUDGETS_FILE`` names what each tenant may spend (see `budgets`); it needs a ledger.
- ``OTEL_COST_LOGGER_BUDGETS_ON_ERROR`` (refuse or admit) says what becomes of calls whose budget cannot be asked.
- ``OTEL_COST_LOGGER_PRICES_FILE`` is the price book (see `prices.reading`).
- ``OTEL_COST_LOGGER_OPEN_ROADS`` opens closed addresses of the proxy: patterns as in `net.roads`, separated by commas.
- ``OTEL_COST_LOGGER_ERROR_MESSAGES`` (true keeps the text of errors, which may quote a prompt).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from otel_cost_logger.ledger.defaults import DEFAULT_KEEP_DAYS, SYNC_FULL, SYNC_NORMAL

CONSOLE = "console"
OTLP = "otlp"
NONE = "none"
REFUSE = "refuse"
ADMIT = "admit"
GRPC = "grpc"
HTTP_PROTOBUF = "http/protobuf"
SIMPLE = "simple"
BATCH = "batch"
DURABLE = "durable"

OPEN_ROADS = "OTEL_COST_LOGGER_OPEN_ROADS"
LEDGER_FILE = "OTEL_COST_LOGGER_LEDGER_FILE"
PRICES_FILE = "OTEL_COST_LOGGER_PRICES_FILE"
_LEDGER_SYNC = "OTEL_COST_LOGGER_LEDGER_SYNC"
_LEDGER_DAYS = "OTEL_COST_LOGGER_LEDGER_DAYS"
BUDGETS_FILE = "OTEL_COST_LOGGER_BUDGETS_FILE"
_BUDGETS_ON_ERROR = "OTEL_COST_LOGGER_BUDGETS_ON_ERROR"
_PROCESSOR = "OTEL_COST_LOGGER_PROCESSOR"
_METRICS_EXPORTER = "OTEL_METRICS_EXPORTER"
_METRIC_INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
_TRACE_CONTEXT = "tracecontext"
_GENAI_OPT_IN = "gen_ai_latest_experimental"


class SettingsError(ValueError):
    """A variable has a value that cannot be used; the message names it and the values that can."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The durable processor's file: where, whether each write waits for the disk ("full") or not ("normal"), and how
    many days exported records stay."""

    path: Path
    sync: str = SYNC_NORMAL
    keep_days: float = DEFAULT_KEEP_DAYS


@dataclass(frozen=True, slots=True)
class Settings:
    """The plugin's settings.

    ``exporters`` are the names in OTEL_TRACES_EXPORTER, ``protocol`` is the OTLP protocol, ``processor`` is
    ``simple``, ``batch``, ``durable`` or None (console exports simply, so that each span shows at once; OTLP in
    batches). ``genai_spans`` gives spans the name and kind of the OpenTelemetry GenAI conventions. With ``propagate``
    the engine is told the cost span's trace context. ``ledger`` describes the file of the durable processor, and is
    there if and only if that one is chosen. ``metrics_protocol`` is the OTLP protocol of the plugin's own metrics; None
    sends none. ``prices_file`` is the price book, where there is one. ``budgets_file`` says what tenants may spend; a
    call whose budget the ledger cannot tell is met with ``budgets_on_error``, ``refuse`` or ``admit``.
    ``open_roads`` are addresses of the proxy that the operator opens although nobody may be able to count what is
    behind them.
    """

    exporters: tuple[str, ...] = (CONSOLE,)
    protocol: str = GRPC
    processor: str | None = None
    genai_spans: bool = False
    error_messages: bool = False
    propagate: bool = True
    ledger: Ledger | None = None
    metrics_protocol: str | None = None
    budgets_file: Path | None = None
    budgets_on_error: str = REFUSE
    prices_file: Path | None = None
    open_roads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.processor == DURABLE) != (self.ledger is not None):
            raise SettingsError(f"{_PROCESSOR}={DURABLE} and {LEDGER_FILE} belong together; set both")
        if self.budgets_file is not None and self.ledger is None:
            raise SettingsError(f"{BUDGETS_FILE} is set, but {LEDGER_FILE} is not: budgets are kept in the ledger")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``environment`` (default: ``os.environ``); raises `SettingsError`."""
        env = os.environ if environment is None else environment
        names = [name.strip() for name in env.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()]
        for name in names:
            _check("OTEL_TRACES_EXPORTER", name, (CONSOLE, OTLP, NONE))
        protocol = env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL") or GRPC
        ledger = _ledger(env)
        processor = env.get(_PROCESSOR) or (DURABLE if ledger else None)
        if processor:
            _check(_PROCESSOR, processor, (SIMPLE, BATCH, DURABLE))
        if ledger and processor != DURABLE:
            raise SettingsError(f"{LEDGER_FILE} is set, but {_PROCESSOR}={processor!r} writes no ledger; unset one")
        if processor == DURABLE and not ledger:
            raise SettingsError(f"{_PROCESSOR}={DURABLE!r} needs {LEDGER_FILE}, the file to write to")
        propagators = {name.strip() for name in env.get("OTEL_PROPAGATORS", _TRACE_CONTEXT).split(",")}
        opt_in = {value.strip() for value in env.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")}
        prices_file = env.get(PRICES_FILE, "").strip()
        messages = env.get("OTEL_COST_LOGGER_ERROR_MESSAGES", "false").lower()
        return cls(
            exporters=tuple(name for name in dict.fromkeys(names or [CONSOLE]) if name != NONE),
            protocol=_check("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, (GRPC, HTTP_PROTOBUF)),
            processor=processor,
            genai_spans=_GENAI_OPT_IN in opt_in,
            error_messages=_check("OTEL_COST_LOGGER_ERROR_MESSAGES", messages, ("true", "false")) == "true",
            propagate=_TRACE_CONTEXT in propagators,
            ledger=ledger,
            metrics_protocol=_metrics_protocol(env),
            budgets_file=Path(budgets).absolute() if (budgets := env.get(BUDGETS_FILE, "").strip()) else None,
            budgets_on_error=_check(_BUDGETS_ON_ERROR, env.get(_BUDGETS_ON_ERROR) or REFUSE, (REFUSE, ADMIT)),
            prices_file=Path(prices_file).absolute() if prices_file else None,
            open_roads=_open_roads(env),
        )


def _open_roads(env: Mapping[str, str]) -> tuple[str, ...]:
    roads = tuple(road.strip() for road in env.get(OPEN_ROADS, "").split(",") if road.strip())
    for road in roads:
        if not road.startswith("/") or any(character.isspace() for character in road):
            raise SettingsError(f"{OPEN_ROADS}={road!r} is no address of the proxy; write it as /azure/*")
    return roads


def _metrics_protocol(env: Mapping[str, str]) -> str | None:
    if _check(_METRICS_EXPORTER, env.get(_METRICS_EXPORTER) or NONE, (OTLP, NONE)) == NONE:
        return None
    variable = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"
    protocol = env.get(variable) or env.get("OTEL_EXPORTER_OTLP_PROTOCOL") or GRPC
    if interval := env.get(_METRIC_INTERVAL):
        _above_0(_METRIC_INTERVAL, interval, "milliseconds")
    return _check(variable, protocol, (GRPC, HTTP_PROTOBUF))


def _ledger(env: Mapping[str, str]) -> Ledger | None:
    file = env.get(LEDGER_FILE, "").strip()
    sync = env.get(_LEDGER_SYNC) or SYNC_NORMAL
    text = env.get(_LEDGER_DAYS) or str(DEFAULT_KEEP_DAYS)
    _check(_LEDGER_SYNC, sync, (SYNC_NORMAL, SYNC_FULL))
    days = _above_0(_LEDGER_DAYS, text, "days")
    if not file:
        for variable in (_LEDGER_SYNC, _LEDGER_DAYS):
            if env.get(variable):
                raise SettingsError(f"{variable} is set, but {LEDGER_FILE} is not: there is no ledger")
        return None
    path = Path(file)
    if path.is_dir() or file.endswith(os.sep):
        raise SettingsError(f"{LEDGER_FILE}={file!r} is a folder; name a file in it, for example {path / 'ledger.db'}")
    return Ledger(path.absolute(), sync, days)


def _above_0(variable: str, text: str, unit: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number > 0 and math.isfinite(number)):
        raise SettingsError(f"{variable}={text!r} is not a number of {unit} above 0")
    return number


def _check(variable: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise SettingsError(f"{variable}={value!r} is not supported; use one of: {', '.join(allowed)}")
    return value
