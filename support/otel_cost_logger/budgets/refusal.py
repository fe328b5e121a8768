"""How a caller is told that a budget keeps its call from being dispatched: as OpenAI's API tells of a spent quota."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from litellm.proxy._types import ProxyException

from otel_cost_logger.budgets.budget import Standing
from otel_cost_logger.ledger.reading import usd

_RETRY_SECONDS = 1  # a call in flight, or a busy file, may make room at any moment


class _Refusal(ProxyException):  # type: ignore[misc]  # LiteLLM is untyped here
    """Some of LiteLLM's routes ask an exception for its ``status_code``, and answer 500 where it has none."""

    @property
    def status_code(self) -> int:
        return int(self.code)


class BudgetExceeded(_Refusal):
    """Status 429: a budget is spent. ``Retry-After`` says when the next period begins."""

    def __init__(self, standing: Standing, now_ns: int) -> None:
        budget, resets = standing.budget, standing.resets_at
        seconds = max(1, math.ceil((resets - datetime.fromtimestamp(now_ns / 1e9, UTC)).total_seconds()))
        super().__init__(
            message=f"Budget exceeded: {budget.whose} has spent {usd(standing.spent)} of {usd(budget.nano_usd)} USD "
            f"for the {budget.period} {standing.period} (UTC). The next {budget.period} begins at {_iso(resets)}; ask "
            "your operator if you need more before.",
            type="budget_exceeded",
            param=None,
            code=429,
            headers={"Retry-After": str(seconds), "x-should-retry": "false"},  # the latter tells OpenAI's clients
            provider_specific_fields={"budget": _described(standing)},
        )


class BudgetReserved(_Refusal):
    """Status 429: what is left is reserved for calls in flight, and none of them ended while this one waited."""

    def __init__(self, standing: Standing, waited_seconds: float) -> None:
        budget = standing.budget
        super().__init__(
            message=f"Budget reserved: what {budget.whose} has left for the {budget.period} {standing.period} (UTC) is "
            f"reserved for {standing.reserved.calls} calls in flight, and there was no room for this one within "
            f"{waited_seconds:g} s. Try again; a smaller max_tokens reserves less.",
            type="budget_reserved",
            param=None,
            code=429,
            headers={"Retry-After": str(_RETRY_SECONDS)},
            provider_specific_fields={"budget": _described(standing)},
        )


class BudgetUnknown(_Refusal):
    """Status 503: the ledger cannot be asked, and the operator does not want calls that nobody has counted."""

    def __init__(self, whose: str) -> None:
        super().__init__(
            message=f"The budget of {whose} cannot be checked at the moment. Try again later; your operator has been "
            "told.",
            type="budget_unknown",
            param=None,
            code=503,
            headers={"Retry-After": str(_RETRY_SECONDS)},
        )


def _described(standing: Standing) -> dict[str, str]:
    """For programs. Amounts are text: they are exact, and a float is not."""
    return {
        "period": standing.budget.period,
        "limit_usd": usd(standing.budget.nano_usd),
        "spent_usd": usd(standing.spent),
        "reserved_usd": usd(standing.reserved.nano_usd),
        "resets_at": _iso(standing.resets_at),
    }


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
