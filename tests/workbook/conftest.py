"""What the workbook's tests share: a build folder of their own, processes to watch, notebooks to run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from workbook.paths import BUILD_VARIABLE

PATIENCE = 30.0  # seconds; generous, because the machine may be busy


def _eventually(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """A zombie is not alive: its parent is gone and nobody has reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until a condition holds; fails with the given words after ``patience`` seconds."""
    return _eventually


@pytest.fixture
def alive() -> Callable[[int], bool]:
    return _alive


@pytest.fixture
def descendants() -> Callable[[int], list[int]]:
    """The processes below a process, its children and theirs."""
    return _descendants


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build folder that this test has for itself."""
    folder = tmp_path / "build"
    monkeypatch.setenv(BUILD_VARIABLE, str(folder))
    return folder


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    """Write a notebook: a name, a parameters cell ("" for none), and the sources of its code cells."""

    def write(name: str, parameters: str, *sources: str) -> Path:
        content = new_notebook(
            metadata={
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                "language_info": {"name": "python"},
            }
        )
        content.cells.append(new_markdown_cell(f"# Title of {name}"))
        if parameters:
            content.cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        content.cells += [new_code_cell(source) for source in sources]
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(content, path)
        return path

    return write


@pytest.fixture(autouse=True)
def _leave_no_child() -> Iterator[None]:
    """A test that leaves a process behind fails."""
    before = set(_descendants(os.getpid()))
    yield
    _eventually(
        lambda: not [pid for pid in set(_descendants(os.getpid())) - before if _alive(pid)],
        "the end of every child that the test started",
    )
