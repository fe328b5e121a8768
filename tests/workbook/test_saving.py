import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from workbook.notebooks import Notebook, UsageError
from workbook.runner import RunFailed, run
from workbook.saving import normalised, save

CELLS = ("print('a'); print('b')", "6 * 7", "import pandas as pd; pd.DataFrame({'x': [1]})")


@pytest.fixture
def sample(build: Path, notebook: Callable[..., Path]) -> Notebook:
    return Notebook(notebook("01_first", "calls: int = 2", *CELLS))


def test_a_saved_notebook_has_outputs_and_nothing_of_the_machine(sample: Notebook) -> None:
    before = nbformat.read(sample.path, as_version=4)
    run([sample], {}, cell_timeout=60)
    save(sample)
    text = sample.path.read_text()
    saved = nbformat.reads(text, as_version=4)
    assert [cell.get("execution_count") for cell in saved.cells] == [None, 1, 2, 3, 4]
    assert [output.text for output in saved.cells[2].outputs] == ["a\nb\n"]  # one piece, however it came
    assert saved.cells[3].outputs[0].data == {"text/plain": "42"}
    assert [cell.id for cell in saved.cells] == [cell.id for cell in before.cells]
    assert "papermill" not in text
    assert "start_time" not in text
    assert "version" not in saved.metadata.language_info
    assert saved.metadata.kernelspec.name == "python3"
    nbformat.validate(saved)
    assert normalised(saved) == text  # saving again changes nothing


def test_saving_notes_how_long_the_run_took_where_the_notebook_is_listed(sample: Notebook) -> None:
    contents = sample.path.with_name("contents.json")
    contents.write_text('{"01_first": {"outcome": "a sum"}, "02_second": {"outcome": "more", "seconds": 70}}')
    run([sample], {}, cell_timeout=60)
    save(sample)
    assert sample.about()["seconds"] % 5 == 0
    assert sample.about()["seconds"] > 0
    saved = json.loads(contents.read_text())
    assert (saved["01_first"]["outcome"], saved["02_second"]["seconds"]) == ("a sum", 70)


def test_two_runs_save_the_same_bytes(sample: Notebook) -> None:
    texts = []
    for _ in range(2):
        run([sample], {}, cell_timeout=60)
        save(sample)
        texts.append(sample.path.read_bytes())
    assert texts[0] == texts[1]


def test_a_notebook_that_was_not_run_is_not_saved(sample: Notebook) -> None:
    with pytest.raises(UsageError, match=r"01_first has not been run: no build/notebooks/01_first\.ipynb"):
        save(sample)


def test_a_run_with_other_parameters_is_not_saved(sample: Notebook) -> None:
    run([sample], {sample: {"calls": 3}}, cell_timeout=60)
    with pytest.raises(UsageError, match="was run with parameters of its own"):
        save(sample)


def test_a_failed_run_is_not_saved(build: Path, notebook: Callable[..., Path]) -> None:
    failing = Notebook(notebook("01_first", "", "1", "1 / 0"))
    before = failing.path.read_bytes()
    with pytest.raises(RunFailed, match="code cell 2: ZeroDivisionError: division by zero"):
        run([failing], {}, cell_timeout=60)
    with pytest.raises(UsageError, match="did not run to its end"):
        save(failing)
    assert failing.path.read_bytes() == before


def test_a_notebook_edited_since_is_not_overwritten(sample: Notebook) -> None:
    run([sample], {}, cell_timeout=60)
    edited = nbformat.read(sample.path, as_version=4)
    edited.cells[0].source += "\n\nA better explanation."
    nbformat.write(edited, sample.path)
    with pytest.raises(UsageError, match="01_first was edited after"):
        save(sample)
    assert "A better explanation." in sample.path.read_text()
