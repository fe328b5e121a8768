"""The budgets file: how much each tenant may spend.

It is YAML. Amounts are US dollars, exact to the billionth; days and months are those of UTC::

    currency: USD          # the only one, and may be left out
    tenants:
      tenant-acme: {day: 5.00, month: 100}
      tenant-globex: {month: 20}
      tenant-initech: unlimited
    default: {day: 1.00}   # for each tenant that is not named; without it those are unlimited

A limit of 0 lets nothing through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

import yaml

from otel_cost_logger.budgets.budget import PERIODS, Budget

_CURRENCY = "USD"
_UNLIMITED = "unlimited"
_AMOUNT = re.compile(r"\d{1,9}(\.\d{1,9})?")
_MAX_NAME = 256  # characters: a record holds no more of a tenant's name


class BudgetsFileError(ValueError):
    """The budgets file cannot be used; the message names the file, the line and what to do."""


@dataclass(frozen=True, slots=True)
class BudgetBook:
    """The limits of each tenant, in billionths of a US dollar by period; ``default`` is for tenants not named."""

    tenants: Mapping[str, Mapping[str, int]]
    default: Mapping[str, int]

    def of_tenant(self, tenant_id: str) -> list[Budget]:
        """The budgets of ``tenant_id``; none when it is unlimited."""
        limits = self.tenants.get(tenant_id, self.default)
        return [Budget(tenant_id, period, nano_usd) for period, nano_usd in limits.items()]


def read_budgets(path: Path) -> BudgetBook:
    """What the budgets file at ``path`` says. Raises `BudgetsFileError`."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise BudgetsFileError(f"budgets file {path}: {error.strerror}; create it or name another") from error
    except UnicodeDecodeError as error:
        raise BudgetsFileError(f"budgets file {path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise BudgetsFileError(
            f"budgets file {path}{line}: not valid YAML: {error.problem or error.context}; correct it"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise BudgetsFileError(
            f"budgets file {path}: not valid YAML: {' '.join(str(error).split())}; correct it"
        ) from error
    return _Reader(path).book(root)


class _Reader:
    """Reads the nodes of one file; they know their lines, which plain values do not."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def book(self, root: yaml.Node | None) -> BudgetBook:
        if root is None:
            raise BudgetsFileError(f'budgets file {self._path} is empty; it needs "tenants" or "default"')
        tenants: dict[str, Mapping[str, int]] = {}
        default: Mapping[str, int] = {}
        for name, node in self._entries(root, "the file"):
            if name == "tenants":
                tenants = {tenant: self._limits(tenant, of) for tenant, of in self._entries(node, '"tenants"')}
            elif name == "default":
                default = self._limits("default", node)
            elif name == "currency":
                if self._text(node, "currency") != _CURRENCY:
                    self._refuse(node, f"the currency is {_CURRENCY}; no other is supported")
            else:
                self._refuse(node, f'"{name}" is not known here; known: currency, tenants, default')
        if not tenants and not default:
            self._refuse(root, 'there is no budget in it; name tenants under "tenants", or give a "default"')
        return BudgetBook(tenants, default)

    def _limits(self, whose: str, node: yaml.Node) -> Mapping[str, int]:
        if isinstance(node, yaml.ScalarNode) and node.value == _UNLIMITED:
            return {}
        limits = {}
        for period, amount in self._entries(node, whose):
            if period not in PERIODS:
                self._refuse(amount, f'{whose}: "{period}" is not a period; use {" or ".join(PERIODS)}')
            limits[period] = self._nano_usd(amount, f"{whose}, {period}")
        if not limits:
            self._refuse(node, f'{whose}: no limit; give "day" or "month", or write "{_UNLIMITED}"')
        return limits

    def _nano_usd(self, node: yaml.Node, what: str) -> int:
        text = self._text(node, what)
        if not _AMOUNT.fullmatch(text):
            self._refuse(node, f"{what}: {text!r} is not an amount; write US dollars such as 12.50, below a billion")
        return int(Decimal(text) * 10**9)

    def _entries(self, node: yaml.Node, what: str) -> Iterator[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._refuse(node, f"{what}: expected names with values, such as {{day: 5.00}}")
        known: dict[str, int] = {}
        for key, value in node.value:
            name = self._text(key, what)
            if name in known:
                self._refuse(key, f'"{name}" stands here twice, first in line {known[name]}')
            if not name.strip() or len(name) > _MAX_NAME:
                self._refuse(key, f"{what}: a name has 1 to {_MAX_NAME} characters")
            known[name] = key.start_mark.line + 1
            yield name, value

    def _text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self._refuse(node, f"{what}: expected a single value")
        return str(node.value)

    def _refuse(self, node: yaml.Node, problem: str) -> NoReturn:
        raise BudgetsFileError(f"budgets file {self._path}, line {node.start_mark.line + 1}: {problem}")
