"""What the plugin does with the requests that the net counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from otel_cost_logger.keys.entries import KeysFileError
from otel_cost_logger.keys.ring import key_ring
from otel_cost_logger.net.boundary import Answer
from otel_cost_logger.net.passage import Identity, Passage
from otel_cost_logger.net.record import record_of_passage
from otel_cost_logger.net.roads import OPENED, RAW
from otel_cost_logger.record import CallRecord

if TYPE_CHECKING:
    from otel_cost_logger.prices.book import PriceBook


class Begin(Protocol):
    """Note a call before it is dispatched, or raise what its caller is to be told: see `Enforcement.admit`."""

    async def __call__(self, user_api_key_dict: Any, request: dict[str, Any], call_type: str) -> None: ...


class NetRecorder:
    """Admits and records for the net, with the logger's own means: ``begin`` a call, ``emit`` a record, the ``book`` of
    prices in force, the ``keys_file``."""

    def __init__(
        self,
        begin: Begin,
        emit: Callable[[Callable[[], CallRecord]], None],
        book: Callable[[], PriceBook | None],
        keys_file: Path | None,
    ) -> None:
        self._begin = begin
        self._emit = emit
        self._book = book
        self._keys_file = keys_file

    async def admit(self, passage: Passage) -> None:
        """See `net.boundary.Recorder`. What LiteLLM's hooks report they also admit."""
        if passage.admitted or passage.road.kind not in (RAW, OPENED):
            return
        await self._begin(passage.identity, {**passage.body, "litellm_call_id": passage.call_id}, RAW)
        passage.admitted = True

    def answered(self, passage: Passage, answer: Answer) -> None:
        """See `net.boundary.Recorder`."""
        if passage.road.kind == OPENED and passage.reports:
            return
        if passage.progress is not None:
            passage.progress.closed = True
        self._emit(lambda: record_of_passage(passage, answer, self._book()))

    def identity_of(self, key: str) -> Identity | None:
        """See `net.boundary.Recorder`."""
        try:
            entry = key_ring(self._keys_file).find(key)
        except KeysFileError:
            return None
        return Identity(entry.tenant, entry.alias, entry.sha256) if entry is not None else None
