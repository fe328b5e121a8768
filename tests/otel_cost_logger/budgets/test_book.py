"""The budgets file: what it may say, and that every mistake is named with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_cost_logger.budgets.book import BudgetsFileError, read_budgets
from otel_cost_logger.budgets.budget import Budget

GOOD = """\
currency: USD
tenants:
  acme: {day: 5.00, month: 100}
  globex: {month: 0.000000001}
  initech: unlimited
  blocked: {day: 0}
default: {day: 1}
"""


def test_amounts_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    path.write_text(GOOD)
    book = read_budgets(path)
    assert book.of_tenant("acme") == [Budget("acme", "day", 5 * 10**9), Budget("acme", "month", 10**11)]
    assert book.of_tenant("globex") == [Budget("globex", "month", 1)]
    assert book.of_tenant("initech") == []
    assert book.of_tenant("blocked") == [Budget("blocked", "day", 0)]
    assert book.of_tenant("anybody") == [Budget("anybody", "day", 10**9)]


MISTAKES = {
    "negative": ("tenants:\n  acme: {day: -1}\n", 2, "acme, day: '-1' is not an amount"),
    "not a number": ("tenants:\n  acme:\n    day: .nan\n", 3, "'.nan' is not an amount"),
    "infinite": ("tenants:\n  acme: {day: .inf}\n", 2, "'.inf' is not an amount"),
    "exponent": ("tenants:\n  acme: {day: 1e3}\n", 2, "'1e3' is not an amount"),
    "words": ("tenants:\n  acme: {day: much}\n", 2, "'much' is not an amount"),
    "too fine": ("tenants:\n  acme: {day: 0.0000000001}\n", 2, "is not an amount"),
    "too much": ("tenants:\n  acme: {day: 1000000000}\n", 2, "is not an amount"),
    "nothing": ("tenants:\n  acme: {day: }\n", 2, "'' is not an amount"),
    "a list": ("tenants:\n  acme: {day: [1]}\n", 2, "expected a single value"),
    "period": ("tenants:\n  acme:\n    week: 5\n", 3, '"week" is not a period; use day or month'),
    "twice": ("tenants:\n  acme: {day: 1}\n  globex: {day: 1}\n  acme: {day: 2}\n", 4, "twice, first in line 2"),
    "period twice": ("tenants:\n  acme: {day: 1, day: 2}\n", 2, '"day" stands here twice'),
    "currency": ("currency: EUR\ntenants: {acme: {day: 1}}\n", 1, "the currency is USD"),
    "unknown field": ("tenants: {acme: {day: 1}}\nbudgets: {}\n", 2, '"budgets" is not known here'),
    "no limit": ("tenants:\n  acme: {}\n", 2, "acme: no limit"),
    "a bare amount": ("tenants:\n  acme: 5\n", 2, "expected names with values"),
    "a list of tenants": ("tenants:\n  - acme\n", 2, "expected names with values"),
    "no name": ('tenants:\n  "": {day: 1}\n', 2, "a name has 1 to 256 characters"),
    "a long name": (f"tenants:\n  {'a' * 257}: {{day: 1}}\n", 2, "a name has 1 to 256 characters"),
    "not a mapping": ("- 1\n", 1, "expected names with values"),
    "no budget": ("currency: USD\n", 1, "there is no budget in it"),
    "not YAML": ("tenants:\n  acme: {day: 1\n  x\n", 4, "not valid YAML"),
    "a tab": ("tenants:\n\tacme: {day: 1}\n", 2, "not valid YAML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, mistake: str) -> None:
    text, line, words = MISTAKES[mistake]
    path = tmp_path / "budgets.yaml"
    path.write_text(text)
    with pytest.raises(BudgetsFileError) as error:
        read_budgets(path)
    assert str(error.value).startswith(f"budgets file {path}, line {line}: ")
    assert words in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"\xff\xfe", b"[" * 5000, b"--- 1\n--- 2\n"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "budgets.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BudgetsFileError, match=re.escape(str(path))):
        read_budgets(path)
