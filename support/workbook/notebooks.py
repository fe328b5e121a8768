"""The notebooks in reading order: finding them by name, and the parameters that each one takes."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill

from workbook.paths import NOTEBOOKS

_WORDS_A_MINUTE = 200
_LINES_A_MINUTE = 12

Value = bool | int | float | str | list[Any] | dict[str, Any] | None


class UsageError(ValueError):
    """The caller asked for something that does not exist; the message says what does."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A variable of a notebook's cell tagged ``parameters``."""

    name: str
    default: Value

    def parse(self, text: str) -> Value:
        """``text`` as a value of the default's type; lists and dicts are JSON. Raises ValueError."""
        if self.default is None or isinstance(self.default, str):
            return text
        if isinstance(self.default, float):
            return float(text)
        value: Value = json.loads(text.lower() if isinstance(self.default, bool) else text)
        if type(value) is not type(self.default):
            raise ValueError(f"not of type {type(self.default).__name__}")
        return value


@dataclass(frozen=True, slots=True)
class Notebook:
    """One notebook file."""

    path: Path

    @property
    def name(self) -> str:
        """The file's name without its extension, for example ``03_wire_litellm_proxy``."""
        return self.path.stem

    @property
    def title(self) -> str:
        """The text of the first heading."""
        for cell in nbformat.read(self.path, as_version=4).cells:
            for line in cell.source.splitlines():
                if cell.cell_type == "markdown" and line.startswith("# "):
                    return str(line.removeprefix("# ").strip())
        return self.name

    def minutes_to_read(self) -> int:
        """An estimate: 200 words or 12 lines of code a minute."""
        cells = nbformat.read(self.path, as_version=4).cells
        words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
        lines = sum(len(cell.source.splitlines()) for cell in cells if cell.cell_type == "code")
        return round(words / _WORDS_A_MINUTE + lines / _LINES_A_MINUTE)

    def about(self) -> dict[str, Any]:
        """Its line of ``contents.json``: ``outcome`` for the reader, ``seconds`` of the run that was saved last."""
        contents = self.path.with_name("contents.json")
        known = json.loads(contents.read_text(encoding="utf-8")) if contents.exists() else {}
        return {"outcome": "", "seconds": None, **known.get(self.name, {})}

    def parameters(self) -> dict[str, Parameter]:
        """The notebook's parameters by name; empty when it has no such cell."""
        found = papermill.inspect_notebook(str(self.path).replace("{", "{{").replace("}", "}}"))
        return {name: Parameter(name, ast.literal_eval(given["default"])) for name, given in found.items()}


def all_notebooks(folder: Path = NOTEBOOKS) -> list[Notebook]:
    """The workbook's notebooks in reading order, which is that of their numbers."""
    return [Notebook(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))]


def select(wanted: Sequence[str], known: Sequence[Notebook]) -> list[Notebook]:
    """The notebooks named by ``wanted``: a number, a name or a path each; all that are known when empty.

    Raises `UsageError` for one that does not exist, with the names of those that do.
    """
    if not wanted and not known:
        raise UsageError(f"no notebooks in {NOTEBOOKS}")
    return [_find(word, known) for word in wanted] if wanted else list(known)


def _find(word: str, known: Sequence[Notebook]) -> Notebook:
    for notebook in known:
        if word in (notebook.name, notebook.name.partition("_")[0], notebook.path.name):
            return notebook
    path = Path(word)
    if path.suffix == ".ipynb" and path.is_file():
        return Notebook(path.absolute())
    names = "".join(f"\n  {notebook.name}" for notebook in known)
    raise UsageError(f"there is no notebook {word!r}; the workbook has:{names}")


def parameters_for(notebooks: Iterable[Notebook], given: Mapping[str, str]) -> dict[Notebook, dict[str, Value]]:
    """Which values each notebook gets: those of ``given`` that it has a parameter for, in its type.

    Raises `UsageError` for a name that no notebook knows and for a value that does not fit.
    """
    known = {notebook: notebook.parameters() for notebook in notebooks}
    for name in given:
        if not any(name in parameters for parameters in known.values()):
            listing = "".join(
                f"\n  {notebook.name}: {', '.join(f'{p.name}={p.default!r}' for p in parameters.values()) or 'none'}"
                for notebook, parameters in known.items()
            )
            raise UsageError(f"there is no parameter {name!r}; the parameters are:{listing}")
    return {
        notebook: {name: _value(notebook, parameters[name], text) for name, text in given.items() if name in parameters}
        for notebook, parameters in known.items()
    }


def _value(notebook: Notebook, parameter: Parameter, text: str) -> Value:
    try:
        return parameter.parse(text)
    except ValueError as error:
        kind = type(parameter.default).__name__
        raise UsageError(
            f"parameter {parameter.name} of {notebook.name} is of type {kind} (default {parameter.default!r}); "
            f"{text!r} is not"
        ) from error
