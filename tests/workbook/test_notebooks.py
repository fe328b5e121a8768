from collections.abc import Callable
from pathlib import Path

import pytest

from workbook.notebooks import Notebook, UsageError, all_notebooks, parameters_for, select

PARAMETERS = """
calls: int = 3  # how many
rate: float = 1.0
strict: bool = True
text: str = "a"
tenants: list = ["a"]
"""


@pytest.fixture
def two(notebook: Callable[..., Path], tmp_path: Path) -> list[Notebook]:
    notebook("02_second", "calls: int = 7")
    notebook("01_first", PARAMETERS)
    notebook("scratch", "")
    return all_notebooks(tmp_path)


def test_the_order_is_that_of_the_numbers(two: list[Notebook]) -> None:
    assert [each.name for each in two] == ["01_first", "02_second"]
    assert two[0].title == "Title of 01_first"


def test_none_named_means_all(two: list[Notebook]) -> None:
    assert select([], two) == two


@pytest.mark.parametrize("word", ["02", "02_second", "02_second.ipynb"])
def test_a_notebook_goes_by_number_name_or_file(two: list[Notebook], word: str) -> None:
    assert [each.name for each in select([word], two)] == ["02_second"]


def test_a_path_works_for_one_that_is_not_in_the_workbook(two: list[Notebook], tmp_path: Path) -> None:
    assert [each.name for each in select([str(tmp_path / "scratch.ipynb")], two)] == ["scratch"]


def test_an_unknown_notebook_is_told_from_the_known(two: list[Notebook]) -> None:
    with pytest.raises(UsageError, match="no notebook '3'; the workbook has:\n  01_first\n  02_second"):
        select(["3"], two)


def test_a_workbook_without_notebooks_is_an_error() -> None:
    with pytest.raises(UsageError, match="no notebooks in"):
        select([], [])


def test_a_value_takes_the_type_of_the_default(two: list[Notebook]) -> None:
    given = {"calls": "5", "rate": "2", "strict": "False", "text": "1.10", "tenants": '["x", "y"]'}
    first, second = parameters_for(two, given).values()
    assert first == {"calls": 5, "rate": 2.0, "strict": False, "text": "1.10", "tenants": ["x", "y"]}
    assert [type(value) for value in first.values()] == [int, float, bool, str, list]
    assert second == {"calls": 5}  # the others are not its own


@pytest.mark.parametrize(
    ("name", "text"),
    [("calls", "1.5"), ("calls", "many"), ("calls", "true"), ("rate", "x"), ("strict", "1"), ("tenants", "a,b")],
)
def test_a_value_of_another_type_is_refused(two: list[Notebook], name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"parameter {name} of 01_first is of type .*; '{text}' is not"):
        parameters_for(two, {name: text})


def test_an_unknown_parameter_is_told_from_the_known(two: list[Notebook]) -> None:
    with pytest.raises(UsageError, match=r"no parameter 'cals'.*:\n  01_first: calls=3, .*\n  02_second: calls=7"):
        parameters_for(two, {"cals": "5"})


def test_a_notebook_without_parameters_takes_none(notebook: Callable[..., Path]) -> None:
    bare = Notebook(notebook("bare", ""))
    assert parameters_for([bare], {}) == {bare: {}}
    with pytest.raises(UsageError, match="bare: none"):
        parameters_for([bare], {"calls": "1"})
