import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workbook import supervise

PROGRAM = """
import os, signal, subprocess, sys, time
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def leave(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(5)
signal.signal(signal.SIGTERM, {on_term})
signal.signal(signal.SIGHUP, leave)
print(os.getpid(), below.pid, flush=True)
time.sleep(600)
"""


def start(program: str) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "workbook.supervise", "--", sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def everyone_gone(pids: list[int], eventually: Callable[..., None], alive: Callable[[int], bool]) -> None:
    eventually(lambda: not any(map(alive, pids)), f"the end of {pids}")


@pytest.mark.parametrize(
    ("program", "code"),
    [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 128 + signal.SIGKILL)],
)
def test_it_exits_with_the_programs_exit_code(program: str, code: int) -> None:
    process, _ = start(program)
    assert process.wait() == code
    process.communicate()


def test_stdin_eof_ends_program_and_grandchild(eventually: Callable[..., None], alive: Callable[[int], bool]) -> None:
    process, pids = start(PROGRAM.format(on_term="leave"))
    said, _ = process.communicate()  # closes stdin
    assert said == "got SIGTERM\n"
    assert process.returncode == 5
    everyone_gone(pids, eventually, alive)


def test_input_is_not_an_end(eventually: Callable[..., None], alive: Callable[[int], bool]) -> None:
    process, pids = start(PROGRAM.format(on_term="leave"))
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    process.send_signal(signal.SIGHUP)  # the program says which signal ended it: not SIGTERM
    assert process.stdout.readline() == "got SIGHUP\n"
    process.wait()
    process.communicate()
    everyone_gone(pids, eventually, alive)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(
    number: signal.Signals, eventually: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    process, pids = start(PROGRAM.format(on_term="leave"))
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == f"got {number.name}\n"
    assert process.wait() == 5
    process.communicate()
    everyone_gone(pids, eventually, alive)


def test_a_program_that_ignores_sigterm_is_killed(
    eventually: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    command = [sys.executable, "-c", PROGRAM.format(on_term="signal.SIG_IGN")]
    code = f"import sys; from workbook.supervise import supervise; sys.exit(supervise({command!r}, 0, grace=0.2))"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    process.communicate()
    assert process.returncode == 128 + signal.SIGKILL
    everyone_gone(pids, eventually, alive)


def test_killing_the_supervisor_kills_the_program(
    eventually: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    process, (program, below) = start(PROGRAM.format(on_term="signal.SIG_IGN"))
    process.kill()
    everyone_gone([program], eventually, alive)
    os.kill(below, signal.SIGKILL)  # the kernel ends the program, not what that has started
    process.communicate()


def test_a_command_that_does_not_exist_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert supervise.main(["--", "no-such-program"]) == 127
    assert "cannot start no-such-program: No such file" in capfd.readouterr().err


def test_a_missing_command_shows_the_usage(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert supervise.main([]) == 2
    assert "usage: python -m workbook.supervise -- COMMAND" in capfd.readouterr().err
