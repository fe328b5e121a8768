"""Other instrumentations of LiteLLM. They wrap LiteLLM's functions where a callback is called by them.

Each is put in place for its own blocks only. Their spans go to a processor that counts, as everybody's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import litellm
import litellm.main
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from benchmarks.callback_overhead.names import OPENINFERENCE, OPENLIT, OPENLLMETRY

_PLACES = tuple((module, name) for module in (litellm, litellm.main) for name in ("completion", "acompletion"))


class Wrapping:
    """LiteLLM's functions as the instrumentation ``name`` wraps them, with spans of ``provider``."""

    def __init__(self, name: str, provider: TracerProvider) -> None:
        plain = _functions()
        _INSTRUMENT[name](provider)
        self._wrapped = _functions()
        _put(plain)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """LiteLLM is instrumented while the block runs."""
        plain = _functions()
        _put(self._wrapped)
        try:
            yield
        finally:
            _put(plain)


def _functions() -> list[Any]:
    return [getattr(module, name) for module, name in _PLACES]


def _put(functions: list[Any]) -> None:
    for (module, name), function in zip(_PLACES, functions, strict=True):
        setattr(module, name, function)


# Imported where used: these are in an environment of their own.
def _openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.litellm import LiteLLMInstrumentor

    LiteLLMInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)


def _openllmetry(provider: TracerProvider) -> None:
    from opentelemetry.instrumentation.litellm import LiteLLMInstrumentor

    LiteLLMInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)


def _openlit(provider: TracerProvider) -> None:
    from openlit._config import OpenlitConfig
    from openlit.instrumentation.litellm import LiteLLMInstrumentor

    OpenlitConfig().disable_events = True  # made, it has its defaults
    trace.set_tracer_provider(provider)  # it knows no other
    LiteLLMInstrumentor().instrument(
        application_name="benchmark",
        environment="benchmark",
        pricing_info={},
        capture_message_content=False,
        disable_metrics=True,
        skip_dep_check=True,
    )


_INSTRUMENT: dict[str, Callable[[TracerProvider], None]] = {
    OPENINFERENCE: _openinference,
    OPENLLMETRY: _openllmetry,
    OPENLIT: _openlit,
}
