"""Run notebooks headless, one after the other, and say in one screen what their calls cost."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

import nbformat
import papermill

from workbook.notebooks import Notebook, UsageError, Value
from workbook.paths import BUILD_VARIABLE, build_dir
from workbook.spans import cost_table, read_ledger
from workbook.terminal import without_colours

_POINTED_AT = re.compile(r"-+> *\d+ (.*)")  # IPython: "----> 2 assert ..."
_START_SECONDS = 60  # for a kernel


class RunFailed(RuntimeError):
    """A notebook stopped: ``notebook``, ``cell`` (its number among the code cells, from 1), ``output`` (path).

    ``cell`` is 0 when the kernel did not start.
    """

    def __init__(self, notebook: Notebook, cell: int, error: str, output: Path) -> None:
        place = f"code cell {cell}" if cell else "before the first cell"
        super().__init__(f"{notebook.name}, {place}: {error}\n  executed up to there: {output}")
        self.notebook = notebook
        self.cell = cell
        self.output = output


def run(
    notebooks: Sequence[Notebook],
    parameters: Mapping[Notebook, Mapping[str, Value]],
    *,
    cell_timeout: int,
) -> None:
    """Execute ``notebooks`` in order into ``build/notebooks``, with a line on stdout for each.

    On a terminal a progress bar shows the cells. Ledgers of earlier runs are removed first.
    ``cell_timeout`` is in seconds. Raises `RunFailed` at the first notebook that fails, `UsageError` when
    another run is using the same build folder.
    """
    # The kernels inherit both: where to write, and to look for "python3" in this environment first.
    os.environ[BUILD_VARIABLE] = str(build_dir())
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    with _alone():
        ledgers = build_dir() / "ledger"
        ledgers.mkdir(exist_ok=True)
        for earlier in ledgers.glob("*.jsonl"):
            earlier.unlink()
        for number, notebook in enumerate(notebooks, start=1):
            began = time.monotonic()
            label = f"[{number}/{len(notebooks)}] {notebook.name}"
            bar = {"desc": label, "file": sys.stdout, "leave": False} if sys.stdout.isatty() else False
            _execute(notebook, parameters.get(notebook, {}), cell_timeout, bar)
            print(f"{label}  passed in {time.monotonic() - began:.1f} s", flush=True)


def cost_report() -> str:
    """Calls, tokens and cost per tenant and model over every ledger in ``build/ledger``, as text."""
    spans = read_ledger(build_dir() / "ledger")
    if spans.empty:
        return "No calls were recorded in this run."
    table = cost_table(spans).rename(columns=lambda name: name.replace("_", " "))
    table = table.rename(columns={"cost usd": "cost (USD)"})
    return str(table.to_string(index=False, formatters={"cost (USD)": "{:.9f}".format}))


def _execute(notebook: Notebook, values: Mapping[str, Value], cell_timeout: int, bar: Any) -> None:
    output = build_dir() / "notebooks" / notebook.path.name
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(
            nbformat.read(notebook.path, as_version=4),
            str(output).replace("{", "{{").replace("}", "}}"),  # papermill formats paths
            parameters=dict(values),
            kernel_name="python3",
            cwd=str(notebook.path.parent),
            progress_bar=bar,
            start_timeout=_START_SECONDS,
            execution_timeout=cell_timeout,
            coalesce_streams=True,
            # Kernels warn that their traffic is not encrypted. It stays on 127.0.0.1, and is signed.
            extra_arguments=["--log-level=ERROR"],
        )
    except Exception as error:
        # A failing cell, a dead kernel, a timeout: papermill has a class for the first only.
        name, message = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        text = without_colours(f"{name}: {message or _failing_line(error)}").strip()
        raise RunFailed(notebook, _last_started_cell(output), text, output) from error


def _failing_line(error: Exception) -> str:
    """The line of the cell that the traceback points at: all that a bare ``assert`` has to say."""
    lines = without_colours("\n".join(getattr(error, "traceback", []))).splitlines()
    return next((found[1] for line in lines if (found := _POINTED_AT.match(line))), "")


def _last_started_cell(output: Path) -> int:
    """The number of the code cell that ran last, not counting the one papermill adds for the parameters."""
    if not output.exists():
        return 0
    cells = [
        cell
        for cell in nbformat.read(output, as_version=4).cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", ())
    ]
    started = [
        number for number, cell in enumerate(cells, start=1) if cell.metadata.get("papermill", {}).get("start_time")
    ]
    return max(started, default=0)


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the build folder's lock; two runs in one folder would mix their ledgers."""
    build_dir().mkdir(parents=True, exist_ok=True)
    with (build_dir() / ".lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another run is using {build_dir()}; wait for it, or choose another folder with --build"
            ) from None
        yield
