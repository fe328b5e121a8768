"""LiteLLM's ``BudgetManager`` with the costs of the records, for a program that calls LiteLLM itself.

::

    manager = BudgetManager(project_name="acme")
    manager.create_budget(total_budget=0.01, user="tenant-acme", duration="daily")
    litellm.callbacks.append(OtelCostLogger(budget_manager=manager))

    require_budget(manager, "tenant-acme")  # raises litellm.BudgetExceededError when it is spent
    litellm.completion(..., metadata={"tenant_id": "tenant-acme"})

What the manager (LiteLLM 1.106.2) does by itself: it keeps spending in ``user_cost.json`` in the working directory, for
one process alone, and with ``client_type="hosted"`` it sends all of it to LiteLLM's own servers instead: don't. A
budget with a duration begins anew only when somebody asks it to, which `require_budget` does. That looks at what was
spent and reserves nothing, so calls that run at the same time overspend. Behind the proxy use `gate`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import litellm

if TYPE_CHECKING:
    from litellm import BudgetManager

    from otel_cost_logger.record import CallRecord


class ManagedBudgets:
    """Charges the users of ``manager``, who are our tenants, with what their records say. Thread-safe."""

    def __init__(self, manager: BudgetManager) -> None:
        self._manager = manager
        self._lock = threading.Lock()

    def charge(self, record: CallRecord) -> float | None:
        """Charge the call's tenant; returns the US dollars that are left, None for one who has no budget there.

        The manager's own ``update_cost`` would look the price up again, and knows none of the price book.
        """
        manager, user = self._manager, record.tenant_id
        with self._lock:
            if not manager.is_valid_user(user):
                return None
            account = manager.user_dict[user]
            account["current_cost"] = account.get("current_cost", 0) + record.cost_usd
            models = account.setdefault("model_cost", {})
            models[record.model] = models.get(record.model, 0) + record.cost_usd
            if manager.client_type == "local":
                manager.save_data()  # its own thread for it would race with that of the next call
            return float(account["total_budget"] - account["current_cost"])


def require_budget(manager: BudgetManager, user: str) -> None:
    """Raises `litellm.BudgetExceededError` when ``user`` has spent the budget; one without a budget may go on."""
    if not manager.is_valid_user(user):
        return
    if "duration" in manager.user_dict[user]:
        manager.reset_on_duration(user)
    spent, total = manager.get_current_cost(user), manager.get_total_budget(user)
    if spent >= total:
        raise litellm.BudgetExceededError(current_cost=spent, max_budget=total)
