"""nbval as JupyterLab runs a notebook: ``python run_all.py PYTEST_ARGUMENT... NOTEBOOK``.

nbval sends a cell when the one before it is done. *Restart Kernel and Run All Cells* sends every cell at once, and the
kernel takes the next one before work that a cell left to its event loop or to a thread has been done.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from nbval.kernel import RunningKernel


class RunAll:
    """At the first cell that nbval asks for, all cells are sent; then it waits for each one's answer."""

    def __init__(self) -> None:
        self._sources: list[str] = []
        self._requests: Iterator[tuple[str, str]] | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._sources = [item.cell.source for item in session.items]

    def execute(self, kernel: RunningKernel, source: str, allow_stdin: bool | None = None) -> str:
        """Takes the place of ``RunningKernel.execute_cell_input``: the id of the request for ``source``."""
        if self._requests is None:
            sent = [(each, kernel.kc.execute(each, allow_stdin=allow_stdin)) for each in self._sources]
            self._requests = iter(sent)
        expected, request = next(self._requests)
        assert source == expected, "nbval asks for the cells in their order"
        return request


if __name__ == "__main__":
    run_all = RunAll()
    RunningKernel.execute_cell_input = lambda kernel, *cell, **options: run_all.execute(kernel, *cell, **options)
    sys.exit(pytest.main(sys.argv[1:], plugins=[run_all]))
