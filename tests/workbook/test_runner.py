"""The headless runner as a program, as `make run` calls it."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

COMMAND = [sys.executable, "-m", "workbook"]
SPAN = (
    '{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "%032x", "spanId": "%016x", "name": "s", '
    '"startTimeUnixNano": "1", "endTimeUnixNano": "2", "attributes": ['
    '{"key": "llm.tenant_id", "value": {"stringValue": "acme"}}, {"key": "llm.model", "value": {"stringValue": "m"}}, '
    '{"key": "llm.prompt_tokens", "value": {"intValue": "7"}}, {"key": "llm.completion_tokens", "value": '
    '{"intValue": "3"}}, {"key": "llm.cost_nano_usd", "value": {"intValue": "12345"}}, {"key": "llm.success", '
    '"value": {"boolValue": true}}]}]}]}]}'
)
WRITE_SPANS = f"""
from workbook import build_dir
ledger = build_dir() / "ledger" / "sample.jsonl"
with ledger.open("a") as file:
    for number in range(1, calls + 1):
        print('{SPAN}' % (number, number), file=file)
"""


def workbook(*words: str | Path, build: Path) -> subprocess.CompletedProcess[str]:
    """Run the command from another folder than the checkout; ``build`` goes by its option."""
    command = [*COMMAND, words[0], "--build", build, *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, cwd=build.parent, check=False)


def test_it_executes_in_order_and_reports_the_cost(build: Path, notebook: Callable[..., Path]) -> None:
    first = notebook("01_first", "calls: int = 2", WRITE_SPANS)
    second = notebook("02_second", "", "import os; print(os.getcwd()); print(__import__('sys').executable)")
    (build / "ledger").mkdir(parents=True)
    (build / "ledger" / "of_an_earlier_run.jsonl").write_text("rubbish\n\n")

    done = workbook("run", first, second, build=build)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Running 2 notebooks. At the end you can open the pages of this run."
    assert lines[2].startswith("[1/2] 01_first  passed in ")
    assert lines[3].startswith("[2/2] 02_second  passed in ")
    assert lines[5].startswith("Calls of all notebooks")
    assert " ".join(lines[7].split()) == "tenant model calls failures prompt tokens completion tokens cost (USD)"
    assert lines[8].split() == ["acme", "m", "2", "0", "14", "6", "0.000024690"]
    assert lines[9].split() == ["total", "2", "0", "14", "6", "0.000024690"]
    assert lines[-2] == f"notebooks, figures and ledgers: {build}"
    assert lines[-1] == f"open in a browser: {build / 'html' / 'index.html'}"
    page = (build / "html" / "02_second.html").read_text(encoding="utf-8")
    assert str(second.parent) in page, "the outputs of this run"
    assert '<a rel="prev" href="01_first.html">' in page
    executed = nbformat.read(build / "notebooks" / "02_second.ipynb", as_version=4)
    assert executed.cells[1].outputs[0].text == f"{second.parent}\n{sys.executable}\n"
    assert not (build / "ledger" / "of_an_earlier_run.jsonl").exists()


def test_a_parameter_reaches_the_notebooks_that_have_it(build: Path, notebook: Callable[..., Path]) -> None:
    first = notebook("01_first", "calls: int = 2", WRITE_SPANS)
    second = notebook("02_second", "", "assert 'calls' not in globals()")
    done = workbook("run", first, second, "-p", "calls", "5", build=build)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("total")[1].split()[0] == "5"


def test_a_run_without_calls_says_so(build: Path, notebook: Callable[..., Path]) -> None:
    done = workbook("run", notebook("01_first", "", "1"), build=build)
    assert done.returncode == 0
    assert "No calls were recorded in this run." in done.stdout


@pytest.mark.parametrize("parameters", [(), ("-p", "calls", "3")])
def test_a_failing_cell_is_named_as_the_reader_sees_it(
    build: Path, notebook: Callable[..., Path], parameters: tuple[str, ...]
) -> None:
    failing = notebook("01_first", "calls: int = 2", "1", "raise ValueError('not\\nenough')", "2")
    never = notebook("02_second", "", "1")
    done = workbook("run", failing, never, *parameters, build=build)
    assert done.returncode == 1
    partial = build / "notebooks" / "01_first.ipynb"
    assert done.stderr.endswith(  # a kernel may have something to say before
        f"FAILED  01_first, code cell 3: ValueError: not\nenough\n  executed up to there: {partial}\n"
    )
    assert nbformat.read(partial, as_version=4).cells[-1].execution_count is None
    assert not (build / "notebooks" / "02_second.ipynb").exists()


def test_a_bare_assert_shows_its_line(build: Path, notebook: Callable[..., Path]) -> None:
    done = workbook("run", notebook("01_first", "", "x = 1\nassert x == 2\nprint()"), build=build)
    assert "FAILED  01_first, code cell 1: AssertionError: assert x == 2\n" in done.stderr


def test_a_dead_kernel_is_a_failure(build: Path, notebook: Callable[..., Path]) -> None:
    done = workbook("run", notebook("01_first", "", "1", "import os; os.kill(os.getpid(), 9)", "2"), build=build)
    assert done.returncode == 1
    assert "FAILED  01_first, code cell 2: DeadKernelError: Kernel died" in done.stderr


def test_a_kernel_that_does_not_start_is_a_failure(
    build: Path, notebook: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = workbook("run", notebook("01_first", "", "1"), build=build)
    assert done.returncode == 1
    assert "FAILED  01_first, before the first cell: RuntimeError: Kernel died" in done.stderr


def test_a_cell_that_takes_too_long_is_a_failure(build: Path, notebook: Callable[..., Path]) -> None:
    slow = notebook("01_first", "", "1", "import time; time.sleep(600)")
    done = workbook("run", slow, "--cell-timeout", "1", build=build)
    assert done.returncode == 1
    assert "FAILED  01_first, code cell 2: CellTimeoutError: " in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no_such",), "error: there is no notebook 'no_such'; the workbook has:"),
        (("sample.ipynb", "-p", "cals", "1"), "error: there is no parameter 'cals'"),
        (("sample.ipynb", "-p", "calls", "x"), "error: parameter calls of sample is of type int"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_anything_runs(
    build: Path, notebook: Callable[..., Path], words: tuple[str, ...], message: str
) -> None:
    notebook("sample", "calls: int = 1", "1")
    done = workbook("run", *words, build=build)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert not (build / "notebooks").exists()


def test_two_runs_do_not_mix_in_one_folder(build: Path, notebook: Callable[..., Path]) -> None:
    build.mkdir()
    with (build / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = workbook("run", notebook("sample", "", "1"), build=build)
    assert done.returncode == 2
    assert f"another run is using {build}" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_child(
    number: signal.Signals,
    build: Path,
    notebook: Callable[..., Path],
    descendants: Callable[[int], list[int]],
    eventually: Callable[..., None],
    alive: Callable[[int], bool],
) -> None:
    started = build / "started"
    waiting = notebook(
        "01_first",
        "",
        f"from workbook import Mock; mock = Mock('mock').start(); open({str(started)!r}, 'w').close()",
        "import time; time.sleep(600)",
    )
    command = [*COMMAND, "run", str(waiting), "--build", str(build)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    eventually(started.exists, "the first cell")
    pids = descendants(run.pid)
    assert len(pids) >= 2, "the kernel and the mock"
    os.kill(run.pid, number)
    assert run.wait(60) == 128 + number
    eventually(lambda: not any(map(alive, pids)), f"the end of {pids}")


def test_a_run_that_began_with_sigint_ignored_goes_on_and_ends_with_sigterm(
    build: Path, notebook: Callable[..., Path], eventually: Callable[..., None]
) -> None:
    """As a background job of a script that the user interrupts."""
    first, second = build / "first", build / "second"
    waiting = notebook(
        "01_first",
        "",
        f"import time, pathlib; pathlib.Path({str(first)!r}).touch()",
        f"while not pathlib.Path({str(second)!r}).exists(): time.sleep(0.02)",
    )
    forever = notebook("02_second", "", "import time; time.sleep(600)")
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND, "run", str(waiting), str(forever)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert run.stdout is not None
    eventually(first.exists, "the first cell")
    os.kill(run.pid, signal.SIGINT)
    second.touch()
    said = [run.stdout.readline() for _ in range(3)]  # how long it takes, an empty line, the first notebook
    assert said[-1].startswith("[1/2] 01_first  passed")
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait(60) == 128 + signal.SIGTERM


def test_the_list_is_the_reading_order() -> None:
    done = subprocess.run([*COMMAND, "list"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == sorted(names)
    assert names[0] == "00_check_environment"


def test_a_terminal_gets_a_progress_bar(build: Path, notebook: Callable[..., Path]) -> None:
    sample = notebook("01_first", "", "1", "2")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = [*COMMAND, "run", str(sample), "--build", str(build)]
    run = subprocess.Popen(command, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert run.wait() == 0
    assert b"[1/1] 01_first:   0%|" in shown
    assert b"[1/1] 01_first  passed in " in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""
