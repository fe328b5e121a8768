"""What the operator set, read once from the environment and checked before the first call.

`VARIABLES` names every variable. The OTLP exporters read more of OpenTelemetry's by themselves: endpoint, headers,
TLS, compression.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from otel_cost_logger.keys.file import KEYS_FILE_VARIABLE
from otel_cost_logger.ledger.defaults import DEFAULT_KEEP_DAYS, SYNC_FULL, SYNC_NORMAL
from otel_cost_logger.start import StartError

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
# Kubernetes kills 30 seconds after SIGTERM, and the master process of gunicorn takes up to 10 to end.
DEFAULT_STOP_SECONDS = 15.0

MASTER_KEY = "LITELLM_MASTER_KEY"  # LiteLLM's
OPEN_ROADS = "OTEL_COST_LOGGER_OPEN_ROADS"
LEDGER_FILE = "OTEL_COST_LOGGER_LEDGER_FILE"
PRICES_FILE = "OTEL_COST_LOGGER_PRICES_FILE"
_LEDGER_SYNC = "OTEL_COST_LOGGER_LEDGER_SYNC"
_LEDGER_DAYS = "OTEL_COST_LOGGER_LEDGER_DAYS"
BUDGETS_FILE = "OTEL_COST_LOGGER_BUDGETS_FILE"
_BUDGETS_ON_ERROR = "OTEL_COST_LOGGER_BUDGETS_ON_ERROR"
_PROCESSOR = "OTEL_COST_LOGGER_PROCESSOR"
_STOP_SECONDS = "OTEL_COST_LOGGER_STOP_SECONDS"
_ERROR_MESSAGES = "OTEL_COST_LOGGER_ERROR_MESSAGES"
_COST_VIEWS = "OTEL_COST_LOGGER_COST_VIEWS"
_METRICS_EXPORTER = "OTEL_METRICS_EXPORTER"
_METRIC_INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
_TRACE_CONTEXT = "tracecontext"
_GENAI_OPT_IN = "gen_ai_latest_experimental"
_PREFIX = "OTEL_COST_LOGGER_"
# Kubernetes sets these for a service of the name "otel-cost-logger": they are nobody's settings.
_SET_BY_KUBERNETES = re.compile(f"{_PREFIX}(SERVICE_(HOST|PORT)|PORT)(_|$)")


class SettingsError(StartError):
    """A variable has a value that cannot be used; the message names it and the values that can."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A setting: the variable's name, what it is for, and what holds where it is not set ("" is nothing)."""

    name: str
    meaning: str
    default: str = ""


VARIABLES = (
    Variable("OTEL_TRACES_EXPORTER", "`console`, `otlp`, `none`, or several with commas", CONSOLE),
    Variable("OTEL_EXPORTER_OTLP_PROTOCOL", "`grpc` or `http/protobuf`; `..._TRACES_PROTOCOL` comes first", GRPC),
    Variable(
        _PROCESSOR,
        "how spans are exported: `simple`, `batch` or `durable`",
        "`simple` for the console, else `batch`; `durable` with a ledger file",
    ),
    Variable(
        LEDGER_FILE,
        "every record is in this file before `on_end` returns, and is exported from it until the collector has "
        "confirmed it",
    ),
    Variable(_LEDGER_SYNC, "`normal` survives the death of the process, `full` a power cut too", SYNC_NORMAL),
    Variable(_LEDGER_DAYS, "how many days exported records stay in the ledger", f"{DEFAULT_KEEP_DAYS:g}"),
    Variable(KEYS_FILE_VARIABLE, "hashed keys of the tenants"),
    Variable(PRICES_FILE, "the price book; without it prices are LiteLLM's"),
    Variable(BUDGETS_FILE, "what each tenant may spend; needs a ledger"),
    Variable(
        _BUDGETS_ON_ERROR,
        "what becomes of a call whose budget the ledger cannot tell: `refuse` (503) or `admit`",
        REFUSE,
    ),
    Variable(OPEN_ROADS, "addresses of the proxy that are open although nobody counts there: `/azure/*`, ..."),
    Variable(
        _STOP_SECONDS,
        "how long requests go on after SIGTERM, in seconds; what is open then is recorded and ended",
        f"{DEFAULT_STOP_SECONDS:g}",
    ),
    Variable(_ERROR_MESSAGES, "`true` keeps the text of errors, which may quote a prompt", "false"),
    Variable(
        _COST_VIEWS,
        "`true` adds the attributes that some backends build their own cost views from",
        "false",
    ),
    Variable(_METRICS_EXPORTER, "`otlp` sends the plugin's own metrics, see `metrics`", NONE),
    Variable(_METRIC_INTERVAL, "milliseconds between them", "60000"),
    Variable(
        "OTEL_PROPAGATORS",
        "without `tracecontext` in it, the engine is not told the trace context of a call",
        _TRACE_CONTEXT,
    ),
    Variable("OTEL_SEMCONV_STABILITY_OPT_IN", f"`{_GENAI_OPT_IN}`: span name and kind of the GenAI conventions", "off"),
)


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
    sends none. ``budgets_file`` says what tenants may spend; a call whose budget the ledger cannot tell is met with
    ``budgets_on_error``, ``refuse`` or ``admit``. ``cost_views`` fills those of backends. ``prices_file`` is the price
    book and ``keys_file`` holds the tenants' keys, where there are any. ``open_roads`` are addresses of the proxy that
    the operator opens although nobody may be able to count what is behind them (see `net.roads`). Requests that are
    open ``stop_seconds`` after SIGTERM are recorded and ended (see `net.stopping`). ``master_key`` is the operator's
    own, which LiteLLM reads too.
    """

    exporters: tuple[str, ...] = (CONSOLE,)
    protocol: str = GRPC
    processor: str | None = None
    genai_spans: bool = False
    error_messages: bool = False
    cost_views: bool = False
    propagate: bool = True
    ledger: Ledger | None = None
    metrics_protocol: str | None = None
    budgets_file: Path | None = None
    budgets_on_error: str = REFUSE
    prices_file: Path | None = None
    keys_file: Path | None = None
    open_roads: tuple[str, ...] = ()
    stop_seconds: float = DEFAULT_STOP_SECONDS
    master_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.processor == DURABLE) != (self.ledger is not None):
            raise SettingsError(f"{_PROCESSOR}={DURABLE} and {LEDGER_FILE} belong together; set both")
        if self.budgets_file is not None and self.ledger is None:
            raise SettingsError(
                f"{BUDGETS_FILE} is set, but {LEDGER_FILE} is not: budgets are kept in the ledger; set both or none"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``environment`` (default: ``os.environ``); raises `SettingsError`."""
        env = os.environ if environment is None else environment
        _refuse_unknown(env)
        names = [name.strip() for name in env.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()]
        for name in names:
            _check("OTEL_TRACES_EXPORTER", name, (CONSOLE, OTLP, NONE))
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
        keys_file = env.get(KEYS_FILE_VARIABLE, "").strip()
        return cls(
            exporters=tuple(name for name in dict.fromkeys(names or [CONSOLE]) if name != NONE),
            protocol=_protocol(env, "TRACES"),
            processor=processor,
            genai_spans=_GENAI_OPT_IN in opt_in,
            error_messages=_is_true(env, _ERROR_MESSAGES),
            cost_views=_is_true(env, _COST_VIEWS),
            propagate=_TRACE_CONTEXT in propagators,
            ledger=ledger,
            metrics_protocol=_metrics_protocol(env),
            budgets_file=Path(budgets).absolute() if (budgets := env.get(BUDGETS_FILE, "").strip()) else None,
            budgets_on_error=_check(_BUDGETS_ON_ERROR, env.get(_BUDGETS_ON_ERROR) or REFUSE, (REFUSE, ADMIT)),
            prices_file=Path(prices_file).absolute() if prices_file else None,
            keys_file=Path(keys_file).absolute() if keys_file else None,
            open_roads=_open_roads(env),
            stop_seconds=_above_0(_STOP_SECONDS, env.get(_STOP_SECONDS) or str(DEFAULT_STOP_SECONDS), "seconds"),
            master_key=env.get(MASTER_KEY) or None,
        )


_in_force: Settings | None = None


def put_in_force(settings: Settings) -> None:
    """From now on `in_force` returns ``settings``."""
    global _in_force
    _in_force = settings


def in_force() -> Settings:
    """What this proxy's logger was given, for the parts that LiteLLM calls by themselves; without a logger what the
    environment says."""
    return Settings.from_environment() if _in_force is None else _in_force


def _refuse_unknown(env: Mapping[str, str]) -> None:
    known = [variable.name for variable in VARIABLES if variable.name.startswith(_PREFIX)]
    for name in env:
        if name.startswith(_PREFIX) and name not in known and not _SET_BY_KUBERNETES.match(name):
            nearest = f"{name}_FILE" if f"{name}_FILE" in known else get_close_matches(name, known, 1, cutoff=0)[0]
            raise SettingsError(f"{name} is not a setting; did you mean {nearest}? Rename it or unset it")


def _is_true(env: Mapping[str, str], variable: str) -> bool:
    return _check(variable, (env.get(variable) or "false").lower(), ("true", "false")) == "true"


def _open_roads(env: Mapping[str, str]) -> tuple[str, ...]:
    roads = tuple(road.strip() for road in env.get(OPEN_ROADS, "").split(",") if road.strip())
    for road in roads:
        if not road.startswith("/") or any(character.isspace() for character in road):
            raise SettingsError(f"{OPEN_ROADS}={road!r} is no address of the proxy; write it as /azure/*")
    return roads


def _metrics_protocol(env: Mapping[str, str]) -> str | None:
    if _check(_METRICS_EXPORTER, env.get(_METRICS_EXPORTER) or NONE, (OTLP, NONE)) == NONE:
        return None
    if interval := env.get(_METRIC_INTERVAL):
        _above_0(_METRIC_INTERVAL, interval, "milliseconds")
    return _protocol(env, "METRICS")


def _protocol(env: Mapping[str, str], signal: str) -> str:
    """Of the OTLP exporter of ``signal``, whose own variable comes first."""
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if value := env.get(variable):
            return _check(variable, value, (GRPC, HTTP_PROTOBUF))
    return GRPC


def _ledger(env: Mapping[str, str]) -> Ledger | None:
    file = env.get(LEDGER_FILE, "").strip()
    sync = env.get(_LEDGER_SYNC) or SYNC_NORMAL
    text = env.get(_LEDGER_DAYS) or str(DEFAULT_KEEP_DAYS)
    _check(_LEDGER_SYNC, sync, (SYNC_NORMAL, SYNC_FULL))
    days = _above_0(_LEDGER_DAYS, text, "days")
    if not file:
        for variable in (_LEDGER_SYNC, _LEDGER_DAYS):
            if env.get(variable):
                raise SettingsError(
                    f"{variable} is set, but {LEDGER_FILE} is not: there is no ledger; set both or none"
                )
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
        raise SettingsError(f"{variable}={text!r} is not a number of {unit} above 0; correct it or unset it")
    return number


def _check(variable: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise SettingsError(f"{variable}={value!r} is not supported; use one of: {', '.join(allowed)}")
    return value
