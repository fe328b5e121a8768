"""Where the notebooks are; a workbook without any fails here instead of passing with nothing tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbook.notebooks import all_notebooks
from workbook.paths import NOTEBOOKS

_FOUND = [notebook.path for notebook in all_notebooks()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``notebook_path`` runs once for each notebook."""
    if "notebook_path" in metafunc.fixturenames:
        if not _FOUND:
            raise pytest.UsageError(f"no notebooks in {NOTEBOOKS}")
        metafunc.parametrize("notebook_path", _FOUND, ids=[path.stem for path in _FOUND])


@pytest.fixture(scope="session")
def notebook_paths() -> list[Path]:
    """Every notebook of the workbook, in reading order."""
    assert len(_FOUND) >= 5
    return _FOUND
