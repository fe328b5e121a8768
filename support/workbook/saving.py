"""Executed notebooks in the form in which they are committed: outputs and counts, nothing of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbstripout import strip_output

from workbook.notebooks import Notebook, UsageError
from workbook.paths import build_dir, shown

# Run times, and the exact Python version.
_OF_THE_MACHINE = [
    "metadata.papermill",
    "cell.metadata.papermill",
    "cell.metadata.execution",
    "metadata.language_info.version",
]


def normalised(notebook: nbformat.NotebookNode) -> str:
    """The text of a notebook file with outputs, execution counts and cell ids, without run times and host."""
    stripped = strip_output(notebook, keep_output=True, keep_count=True, keep_id=True, extra_keys=_OF_THE_MACHINE)
    return str(nbformat.writes(stripped)) + "\n"


def save(notebook: Notebook) -> None:
    """Replace the notebook by its executed copy in ``build/notebooks``, normalised.

    Raises `UsageError` when there is no such copy, or it did not run to its end, or it was run with other
    parameters, or the notebook was edited since.
    """
    executed_path = build_dir() / "notebooks" / notebook.path.name
    if not executed_path.exists():
        raise UsageError(f"{notebook.name} has not been run: no {shown(executed_path)}")
    executed = nbformat.read(executed_path, as_version=4)
    _require_complete(notebook, executed, executed_path)
    _write(notebook.path, normalised(executed))


def _require_complete(notebook: Notebook, executed: nbformat.NotebookNode, path: Path) -> None:
    if any("injected-parameters" in cell.metadata.get("tags", ()) for cell in executed.cells):
        raise UsageError(f"{shown(path)} was run with parameters of its own; run it without -p first")
    counts = [cell.execution_count for cell in _code(executed)]
    if executed.metadata.get("papermill", {}).get("exception") or counts != list(range(1, len(counts) + 1)):
        raise UsageError(f"{shown(path)} did not run to its end; run it again first")
    if _sources(executed) != _sources(nbformat.read(notebook.path, as_version=4)):
        raise UsageError(f"{notebook.name} was edited after {shown(path)} was run; run it again first")


def _code(notebook: nbformat.NotebookNode) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _sources(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
