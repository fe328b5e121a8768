"""Callbacks for the proxy's configuration: ``benchmarks.callback_overhead.proxied.noop`` and ``.naive``.

Each is made when it is asked for, so that the proxy has one of them only.
"""

from __future__ import annotations

from litellm.integrations.custom_logger import CustomLogger

from benchmarks.callback_overhead.callbacks import Naive, Noop
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings


def __getattr__(name: str) -> CustomLogger:
    if name == "noop":
        return Noop()
    if name == "naive":
        return Naive(build_provider(Settings.from_environment()))
    raise AttributeError(name)
