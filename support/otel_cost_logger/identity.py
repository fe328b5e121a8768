"""What the plugin calls itself in what it emits: the instrumentation scope and its version."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

SCOPE = "litellm.cost_attribution"
DISTRIBUTION = "llm-cost-attribution"


@cache
def plugin_version() -> str:
    """The installed version of this plugin, or "unknown" when it is used without being installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
