"""Executed notebooks in the form in which they are committed: outputs and counts, nothing of the machine."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import nbformat
from nbstripout import strip_output

from workbook.notebooks import Notebook, UsageError
from workbook.paths import build_dir, shown

# Run times, the exact Python version, and what somebody has folded away in JupyterLab.
_OF_THE_MACHINE = [
    "metadata.papermill",
    "metadata.widgets",
    "metadata.language_info.version",
    "cell.metadata.papermill",
    "cell.metadata.execution",
    "cell.metadata.collapsed",
    "cell.metadata.scrolled",
]

_OF_THE_WORKBOOK = re.compile(r"notebooks/\d\d(_[a-z0-9]+)+\.ipynb")  # not its copies: those are their owner's


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
    _keep_seconds(notebook, executed)  # first: normalising takes run times out
    _write(notebook.path, normalised(executed))


def _keep_seconds(notebook: Notebook, executed: nbformat.NotebookNode) -> None:
    """Note how long the run took, rounded up to five seconds, so that small differences change no file."""
    path = notebook.path.with_name("contents.json")
    contents = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    duration = executed.metadata.get("papermill", {}).get("duration")
    if notebook.name in contents and duration:
        contents[notebook.name]["seconds"] = 5 * math.ceil(duration / 5)
        lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in contents.items()]
        _write(path, "{\n" + ",\n".join(lines) + "\n}\n")


def keep_stored_outputs(model: dict[str, Any], path: str, contents_manager: Any, **_: Any) -> None:
    """Jupyter's hook before a save: of a notebook of the workbook only what its author has written is saved.

    A cell that is as it was keeps its stored outputs, and a changed or new one has none until `save` stores them, so
    that running a notebook leaves its file as it is. ``model`` is Jupyter's, ``path`` is relative to the root folder
    of ``contents_manager``. Any other file is left alone.
    """
    file = Path(contents_manager.root_dir, path)
    if not _OF_THE_WORKBOOK.fullmatch(path) or not file.exists():
        return
    stored = nbformat.read(file, as_version=4)
    before = {cell.id: cell for cell in _code(stored)}
    edited = nbformat.from_dict(model["content"])
    edited.metadata |= {name: stored.metadata[name] for name in ("kernelspec", "language_info")}
    for cell in _code(edited):
        same = before.get(cell.id, {}).get("source") == cell.source
        cell.outputs = before[cell.id].outputs if same else []
        cell.execution_count = before[cell.id].execution_count if same else None
    model["content"] = nbformat.reads(normalised(edited), as_version=4)


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
