"""The doctor's checks: each gives one or more findings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module

from otel_cost_logger.doctor.parts import PARTS, UNREADABLE, free_space
from otel_cost_logger.garbage_collection import warning
from otel_cost_logger.identity import versions
from otel_cost_logger.settings import OTLP, VARIABLES, Settings
from otel_cost_logger.start import StartError

OK = "ok"
WARN = "warn"
FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """``state`` is one of the three above; ``remedy`` says what to do where there is something to do."""

    state: str
    check: str
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def python_and_versions() -> Iterator[Finding]:
    """Which versions there are, and whether this Python can crash a proxy."""
    words = warning()
    yield Finding(WARN if words else OK, "versions", versions(), words or "")


def settings(environment: Mapping[str, str] | None = None) -> tuple[Settings | None, list[Finding]]:
    """The settings, where they can be used, and one finding for each variable that is set."""
    env = os.environ if environment is None else environment
    try:
        read = Settings.from_environment(env)
    except StartError as error:
        return None, [Finding(FAIL, "settings", str(error), "set it as said, or unset it")]
    found = [Finding(OK, "setting", f"{row.name}={env[row.name]}") for row in VARIABLES if env.get(row.name)]
    others = sum(not env.get(row.name) for row in VARIABLES)
    return read, [*found, Finding(OK, "settings", f"{others} others have their defaults")]


def files(read: Settings) -> Iterator[Finding]:
    """Whether each file can be read and is valid; and whether the ledger can be written, without writing it."""
    for name, describe in PARTS.items():
        try:
            yield Finding(OK, name, describe(read))
        except UNREADABLE as error:
            yield Finding(FAIL, name, str(error), "mend the file, or name another one")
    if read.ledger is None:
        yield Finding(WARN, "ledger", "a record is lost when the process dies", "set OTEL_COST_LOGGER_LEDGER_FILE")
        return
    path = read.ledger.path
    folder = next(parent for parent in path.parents if parent.exists())
    closed = [str(each) for each in (folder, path) if each.exists() and not os.access(each, os.W_OK)]
    if closed:
        yield Finding(FAIL, "ledger", f"{closed[0]} cannot be written", "give this user the right to write it")
    free, enough = free_space(path)
    yield Finding(OK if enough else WARN, "disk", f"{free} for the ledger", "" if enough else "make room")


def collector(read: Settings) -> Iterator[Finding]:
    """What the collector answers to an export of nothing."""
    if OTLP not in read.exporters:
        return
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from otel_cost_logger.otlp.answers import Accepted
    from otel_cost_logger.otlp.sending import sender_for
    from otel_cost_logger.provider import span_exporter

    sender = sender_for(span_exporter(OTLP, read))
    answer = sender.send(ExportTraceServiceRequest())
    sender.shutdown()
    if isinstance(answer, Accepted):
        yield Finding(OK, "collector", f"it accepts exports by {read.protocol}")
    else:
        reason = getattr(answer, "reason", "")
        yield Finding(FAIL, "collector", reason, "check OTEL_EXPORTER_OTLP_ENDPOINT, the protocol, and the collector")


def self_check() -> Iterator[Finding]:
    """The same as at the proxy's start, and every name in the table of interfaces."""
    from otel_cost_logger.self_check.check import check

    remedy = "install versions of LiteLLM and OpenTelemetry that the plugin was tested with"
    try:
        import_module("litellm.proxy.proxy_server")
        import_module("otel_cost_logger.auth")
        import_module("otel_cost_logger.logger")
    except Exception as error:  # whatever a version's module does while it is loaded
        yield Finding(FAIL, "self-check", f"{type(error).__name__}: {error}; with {versions()}", remedy)
        return
    report = check(exporters=True)
    for gone in report.gone:
        yield Finding(FAIL, "interface", f"{gone} is gone", remedy)
    for wrong in report.wrong:
        yield Finding(FAIL, "self-check", wrong, remedy)
    if not report.wrong:
        yield Finding(OK, "self-check", f"every record is right ({report.seconds:.1f} s)")
