"""The figure of a stored result, by its benchmark's own ``figure.draw``; nothing else here needs matplotlib."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.harness.results import Result
from benchmarks.harness.successors import benchmark_of


class NotDrawn(ValueError):
    """There is no figure of a result; the message says why."""


def figure_of(result: Result) -> Any:
    """The matplotlib Figure that ``benchmarks.<name>.figure.draw`` makes of ``result``.

    Raises `NotDrawn` when the benchmark has no figure, when matplotlib is not installed, and when the benchmark has
    changed so much that its figure finds nothing to draw.
    """
    name = benchmark_of(result)
    module = f"benchmarks.{name}.figure"
    try:
        draw = importlib.import_module(module).draw
    except ModuleNotFoundError as missing:
        if missing.name in (module, f"benchmarks.{name}"):
            raise NotDrawn(f"{result.benchmark} has no figure") from missing
        raise NotDrawn(f"no figure without {missing.name}: install the workbook (make env)") from missing
    try:
        return draw(result)
    except ValueError as nothing:
        raise NotDrawn(str(nothing)) from nothing
    except (KeyError, IndexError, TypeError) as error:
        raise NotDrawn(
            f"the result was stored by another version of {result.benchmark}, and its figure finds no {error}; "
            f"use the benchmarks package of commit {result.code.commit or '(not known)'}"
        ) from error


def render(result: Result, stem: str, folder: Path) -> Path:
    """Draw ``result`` into ``folder/<machine>-<stem>.png``, the same bytes each time; returns the path.

    Raises `NotDrawn` as `figure_of` does, OSError when the file cannot be written.
    """
    figure = figure_of(result)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.machine.label}-{stem}.png"
    figure.savefig(path, dpi=150, metadata={"Software": None})
    return path
