"""One request on its way through the proxy, from its first byte to its answer's last."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from otel_cost_logger.net.roads import Road
from otel_cost_logger.net.usage import AnswerReader
from otel_cost_logger.progress import Progress


def _nobody() -> Identity | None:
    return None


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})  # Python 3.11 takes none as a default


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose key the request came with: what LiteLLM calls its team and its alias, and the key's hash."""

    team_id: str | None
    key_alias: str | None
    api_key: str | None


@dataclass(slots=True, eq=False)
class Passage:
    """What is known of a request.

    ``road`` says who counts it, ``address`` is where it came in, ``engine`` the address that it is passed on to where
    it is, ``began_ns`` when it came, in nanoseconds since the epoch. ``whose`` looks up the key that it shows, for what
    LiteLLM refuses before anybody is authenticated. ``upstream`` reads what the engine says, where LiteLLM may lose it.
    ``stopped`` means that the proxy ends it, because it stops.
    """

    road: Road
    address: str
    engine: str
    headers: Mapping[str, str]
    admit: Callable[[Passage], Awaitable[None]]
    whose: Callable[[], Identity | None] = _nobody
    began_ns: int = field(default_factory=time.time_ns)
    call_id: str = ""
    identity: Identity | None = None
    body: Mapping[str, Any] = field(default_factory=_nothing)
    deployment: Mapping[str, Any] = field(default_factory=_nothing)
    key: Any = None  # under which the call that LiteLLM makes of this request is reported
    upstream: AnswerReader | None = None
    progress: Progress | None = None  # of that call
    admitted: bool = False
    asked_to_count: bool = False  # by us; the caller need not know
    reports: int = 0  # by LiteLLM's hooks
    stopped: bool = False

    def identify(self, key: Any) -> None:
        """``key`` is the authenticated one, in any form that has LiteLLM's names."""
        if self.identity is None and key is not None:
            names = ("team_id", "key_alias", "api_key")
            self.identity = Identity(*(getattr(key, name, None) for name in names))


_current: ContextVar[Passage | None] = ContextVar("otel_cost_logger_passage", default=None)


def current() -> Passage | None:
    """The passage that this code runs for: LiteLLM's hooks run in their request's context. None without a proxy."""
    return _current.get()


def enter(passage: Passage) -> None:
    """From here on `current` is ``passage``, in this context and those that are copied from it."""
    _current.set(passage)


def deployed(passage: Passage, request: Mapping[str, Any]) -> None:
    """Note which deployment a passage goes to, and whose it is: from a deployment hook's ``kwargs``."""
    notes = [found for name in ("litellm_metadata", "metadata") if isinstance(found := request.get(name), Mapping)]
    info = request.get("model_info") or next((note["model_info"] for note in notes if note.get("model_info")), None)
    names = ("model", "api_base", "custom_llm_provider")
    passage.deployment = {
        "litellm_params": {name: request[name] for name in names if request.get(name)},
        "model_info": info or {},
    }
    if passage.identity is None and notes:
        fields = ("user_api_key_team_id", "user_api_key_alias", "user_api_key_hash")
        passage.identity = next(
            (Identity(*(note.get(field) for field in fields)) for note in notes if note.get("user_api_key_hash")), None
        )
