"""Span ids chosen before the call, so that the engine's own span can be the cost span's child.

A record becomes a span only when its call is over; the engine has to be told the span's ids at its beginning.
The choice waits in LiteLLM's logging object, which is one per call, also when the router repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DETAIL = "otel_cost_logger_planned_span"


@dataclass(slots=True)
class PlannedSpan:
    """W3C trace and span id (128 and 64 bits), and the caller's ``traceparent`` that the trace id came from."""

    trace_id: int
    span_id: int
    parent: str | None
    _taken: bool = False

    def take(self) -> bool:
        """True the first time: two spans with the same ids would be taken for one."""
        first, self._taken = not self._taken, True
        return first

    def as_detail(self) -> dict[str, Any]:
        """As an entry in LiteLLM's details of the call."""
        return {_DETAIL: self}


def plan(logging_object: Any, planned: PlannedSpan) -> None:
    """Leave ``planned`` where the hooks that report the call will find it."""
    details = getattr(logging_object, "model_call_details", None)
    if isinstance(details, dict):
        details |= planned.as_detail()


def planned_for(details: Mapping[Any, Any]) -> PlannedSpan | None:
    """What was planned for a call, from LiteLLM's details of it (a logging hook's ``kwargs``).

    A caller can write text and numbers into some of those details, but not an object of our own class.
    """
    found = details.get(_DETAIL)
    return found if isinstance(found, PlannedSpan) else None


def planned_for_logging_object(logging_object: Any) -> PlannedSpan | None:
    """The same, from the logging object itself."""
    details = getattr(logging_object, "model_call_details", None)
    return planned_for(details) if isinstance(details, Mapping) else None
