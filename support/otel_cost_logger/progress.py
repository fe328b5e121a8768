"""What has happened to a call so far, as our own hooks saw it.

LiteLLM's payload tells of the attempt that it reports, and may keep facts of an attempt before it. What is noted here
waits in LiteLLM's logging object, which is one per call, also when the router repeats the call or falls back to another
model. A caller can write text and numbers into its details, but not an object of our own class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DETAIL = "otel_cost_logger_progress"


@dataclass(frozen=True, slots=True)
class _Pieces:
    """What has come of a stream of LiteLLM's so far: the list that it adds to."""

    chunks: Any
    messages: Any


@dataclass(slots=True)
class Progress:
    """One call: ``call_type`` is LiteLLM's for the road on which the proxy got it, ``attempts`` how often it was sent
    to an engine, repetitions and fallbacks included; ``begun`` is True as soon as a deployment was chosen.

    Of the last attempt: ``sent`` is False until it is sent (one that LiteLLM's cache answers never is), ``served`` the
    model name that the engine was asked for, ``stream_options`` what it was told to count, and ``answer`` LiteLLM's
    object for a whole answer or for a stream. ``closed`` means that the record is written, although LiteLLM may still
    report the call.
    """

    call_type: Any = None
    attempts: int = 0
    begun: bool = False
    sent: bool = False
    served: str | None = None
    stream_options: Any = None
    answer: Any = None
    closed: bool = False

    def __deepcopy__(self, _: Any) -> Progress:
        return self  # LiteLLM copies a call's details now and then; it is still the same call

    def begin_attempt(self, stream_options: Any) -> None:
        """A deployment will be asked, or LiteLLM's cache in its place. In a synchronous program nobody tells."""
        self.begun, self.sent, self.stream_options, self.answer = True, False, stream_options, None

    def send(self, served: Any) -> None:
        """The attempt is about to be sent; ``served`` is the model name in it.

        The proxy says so once more when it refuses a call or blocks an answer.
        """
        if not self.sent:
            self.attempts += 1
            self.sent, self.served = True, served if isinstance(served, str) else None

    def answered(self, answer: Any) -> None:
        """The attempt was answered. Of several forms of one answer the first is kept: it is nearest to the engine's."""
        if self.answer is not None:
            return
        chunks = getattr(answer, "chunks", None)
        if chunks is not None:
            # A stream that somebody holds stays open: its engine would go on working for a caller who has left.
            self.answer = _Pieces(chunks, getattr(answer, "messages", None))
        elif not hasattr(answer, "__aiter__"):
            self.answer = answer


NOTHING = Progress()  # of a call of which our hooks saw nothing; not to be changed


def progress_of(details: Mapping[Any, Any]) -> Progress:
    """What was noted in LiteLLM's details of a call (a logging hook's ``kwargs``); `NOTHING` where nothing was."""
    found = details.get(_DETAIL)
    return found if isinstance(found, Progress) else NOTHING


def progress_in(details: object) -> Progress:
    """The same, to be changed: a new one is left in ``details`` where there is none yet, if it can hold one."""
    if not isinstance(details, dict):
        return Progress()
    if not isinstance(found := details.get(_DETAIL), Progress):
        found = details[_DETAIL] = Progress()
    return found


def details_of(request: object) -> Mapping[Any, Any]:
    """LiteLLM's details of the call that ``request`` (the proxy's data, or a deployment hook's ``kwargs``) makes."""
    logging_object = request.get("litellm_logging_obj") if isinstance(request, Mapping) else None
    details = getattr(logging_object, "model_call_details", None)
    return details if isinstance(details, dict) else {}
