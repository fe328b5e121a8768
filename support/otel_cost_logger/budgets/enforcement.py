"""What the logger's hooks ask of budgets: may this call begin, and what does its record leave over."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_cost_logger.budgets.book import BudgetBook, BudgetsFileError, read_budgets
from otel_cost_logger.budgets.bound import MAX_BOUND, Bounds
from otel_cost_logger.budgets.gate import Gate
from otel_cost_logger.keys.entries import KeysFileError
from otel_cost_logger.keys.file import read_keys
from otel_cost_logger.keys.ring import key_of
from otel_cost_logger.last_good import LastGood
from otel_cost_logger.ledger.writer import CallInFlight
from otel_cost_logger.record import UNKNOWN, CallRecord, clean, tenant_of_key
from otel_cost_logger.settings import BUDGETS_FILE, LEDGER_FILE, Settings, SettingsError

if TYPE_CHECKING:
    from otel_cost_logger.durable import DurableSpanProcessor
    from otel_cost_logger.prices.book import PriceBook

_EMBEDDING = frozenset({"embedding", "aembedding"})
_log = logging.getLogger(__name__)


class Enforcement:
    """Holds calls to the budgets of a `Gate`, with prices from ``prices`` and LiteLLM."""

    def __init__(self, gate: Gate, prices: LastGood[PriceBook] | None = None) -> None:
        self.gate = gate
        self._bounds = Bounds(lambda: prices.value if prices is not None else None)

    @classmethod
    def of(cls, settings: Settings, prices: LastGood[PriceBook] | None) -> Enforcement | None:
        """As ``settings`` want it; None where there are neither budgets nor keys that may have some.

        Raises `SettingsError` for a file that cannot be used, and for budgets without a ledger.
        """
        if settings.ledger is None:
            if settings.keys_file:  # a key that gets a budget later has none until the next start
                _require_no_budget(settings.keys_file)
            return None
        book = None
        if settings.budgets_file is not None:
            try:
                book = LastGood(settings.budgets_file, read_budgets, _described)
            except BudgetsFileError as error:
                raise SettingsError(f"{BUDGETS_FILE}: {error}") from error
        elif settings.keys_file is None:
            return None
        gate = Gate(
            lambda: book.value if book is not None else None,
            partial(_key_limits, settings.keys_file),
            without_ledger=settings.budgets_on_error,
        )
        return cls(gate, prices)

    def prepare(self, durable: DurableSpanProcessor | None) -> None:
        """See `Gate.prepare`."""
        if durable is not None:
            self.gate.prepare(durable.writer)

    async def admit(
        self,
        durable: DurableSpanProcessor | None,
        user_api_key_dict: Any,
        request: Any,
        call_type: Any,
        *,
        counted: bool,
    ) -> bool:
        """Return when the proxied call ``request`` may be dispatched; True when it is noted in the ledger. ``counted``
        says whether it uses tokens and will leave a record.

        Raises one of the errors in `refusal`, and nothing else.
        """
        tenant = tenant_of_key(user_api_key_dict)
        alias = clean(getattr(user_api_key_dict, "key_alias", None)) or None
        key_hash = getattr(user_api_key_dict, "api_key", None)
        budgets = self.gate.budgets_of(tenant, alias, key_hash if isinstance(key_hash, str) else None)
        if not budgets:
            return False
        bound = self._bound(request, call_type) if counted else 0
        call_id, model = clean(request.get("litellm_call_id")) or UNKNOWN, clean(request.get("model"))
        call = CallInFlight(call_id, tenant, model, alias, bound)
        writer = durable.writer if durable is not None else None
        return await self.gate.admit(writer, call, budgets, leaves_record=counted)

    def _bound(self, request: Mapping[str, Any], call_type: Any) -> int:
        try:
            return self._bounds.of(request, with_output=call_type not in _EMBEDDING)
        except Exception:  # whatever a caller writes into a request
            _log.exception("what a call may cost could not be told; it goes alone")
            return MAX_BOUND

    @contextmanager
    def settled(self, durable: DurableSpanProcessor | None, record: CallRecord) -> Iterator[CallRecord]:
        """See `Gate.settled`."""
        with self.gate.settled(durable.writer if durable is not None else None, record) as settled:
            yield settled


def _key_limits(keys_file: Path | None, sha256: str) -> Mapping[str, Decimal]:
    key = key_of(keys_file, sha256)
    return key.budget_usd if key is not None else {}


def _require_no_budget(keys_file: Path) -> None:
    try:
        keys = read_keys(keys_file)
    except KeysFileError:
        return  # the start tells
    if limited := [key.alias for key in keys.values() if key.budget_usd]:
        raise SettingsError(
            f"{keys_file}: the key {limited[0]} has a budget, but {LEDGER_FILE} is not set: budgets are kept in the "
            "ledger"
        )


def _described(book: BudgetBook) -> str:
    return f"budgets of {len(book.tenants)} tenants, default {'set' if book.default else 'unlimited'}"
