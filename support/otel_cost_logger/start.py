"""The plugin's start behind the proxy: it can record, or the proxy does not serve.

LiteLLM imports ``otel_cost_logger.proxy_handler_instance`` while it reads its configuration. An exception there would
end the proxy with hundreds of lines of traceback, whose last one names an import. So whatever goes wrong ends it here,
with one line. In a program that calls LiteLLM itself nothing is ended: the exception is the caller's.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from typing import TYPE_CHECKING, NoReturn

from otel_cost_logger.asgi import Readiness, wrap_proxy
from otel_cost_logger.identity import DISTRIBUTION, version_of, versions
from otel_cost_logger.self_check.check import check

if TYPE_CHECKING:
    from otel_cost_logger.logger import OtelCostLogger

# Gunicorn's code for a worker that could not start, and uvicorn's for an application: both give up.
EXIT_CODE = 3

_BESIDE = ("litellm", "opentelemetry-sdk")


class StartError(ValueError):
    """The plugin cannot start: the message says in one line what is wrong, where, and what to do."""


def behind_proxy() -> bool:
    """True in a process of the LiteLLM proxy. Asked of the process, not of a request: a caller can write a request,
    not load a module."""
    return "litellm.proxy.proxy_server" in sys.modules


def proxy_handler() -> OtelCostLogger:
    """The callback that the proxy's configuration names. Does not return where the proxy must not serve."""
    try:
        try:
            # Also what the configuration names besides, so that what is wrong with it is said here.
            if behind_proxy():
                import_module("otel_cost_logger.auth")
            from otel_cost_logger.doctor.parts import settings_line
            from otel_cost_logger.logger import OtelCostLogger
            from otel_cost_logger.settings import Settings
        except (ImportError, AttributeError) as error:
            raise StartError(_cannot_be_loaded(error)) from error
        if not behind_proxy():
            return OtelCostLogger()
        checked = _checked()
        settings = Settings.from_environment()
        logger = OtelCostLogger(settings)
        wrap_proxy(lambda app: logger.watched(Readiness(app, lambda: logger.problem)))
        # LiteLLM shows no logger's INFO by itself, and this line must be seen.
        print(f"{versions()}: ready to record; {checked}; {settings_line(settings)}", file=sys.stderr, flush=True)
        return logger
    except Exception as error:
        if not behind_proxy():
            raise
        end_proxy(str(error) if isinstance(error, StartError) else f"{type(error).__name__}: {error}")


def _checked() -> str:
    """The self-check's result in words. Raises `StartError` when records would be wrong."""
    report = check()
    if report.wrong:
        raise StartError(
            f"the self-check failed: {report.in_one_line}; install versions that the plugin was tested with, and see "
            "`python -m otel_cost_logger doctor`"
        )
    if report.gone:
        logging.getLogger(__name__).warning("the records are right, but not as before: %s", report.in_one_line)
    return f"self-check right in {report.seconds:.1f} s"


def end_proxy(reason: str) -> NoReturn:
    """End the proxy, all its workers included, with ``reason`` as the last line of its log."""
    logging.shutdown()
    print(f"error: the proxy stops, because it could not record its calls: {' '.join(reason.split())}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and supervisor.pid is not None:  # uvicorn's, which would start this worker for ever
        os.kill(supervisor.pid, signal.SIGTERM)
    os._exit(EXIT_CODE)  # an exception would be printed with its traceback, after the line that matters


def _cannot_be_loaded(error: Exception) -> str:
    have = ", ".join(f"{name} {version_of(name)}" for name in _BESIDE)
    try:
        needed = [text for text in requires(DISTRIBUTION) or () if text.startswith(_BESIDE) and "extra" not in text]
    except PackageNotFoundError:
        needed = []
    return f"the plugin cannot be loaded beside {have}: {error}; install {' and '.join(needed) or 'other versions'}"
