"""What the plugin calls itself in what it emits: the instrumentation scope and its version; and what it runs with."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

SCOPE = "litellm.cost_attribution"
DISTRIBUTION = "llm-cost-attribution"


@cache
def plugin_version() -> str:
    """The installed version of this plugin, or "unknown" when it is used without being installed."""
    return version_of(DISTRIBUTION, "unknown")


def version_of(distribution: str, missing: str = "(not installed)") -> str:
    """The installed version of ``distribution``."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return missing


def versions() -> str:
    """The versions that decide what a record says, for a line of the log."""
    return (
        f"otel_cost_logger {plugin_version()}, LiteLLM {version_of('litellm')}, "
        f"OpenTelemetry {version_of('opentelemetry-sdk')}, Python {platform.python_version()}"
    )
