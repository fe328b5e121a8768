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


def start(program: str, *options: str) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "workbook.supervise", *options, "--", sys.executable, "-c", program],
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


def test_a_signal_that_was_ignored_at_the_start_is_not_passed_on(
    eventually: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process, pids = start(PROGRAM.format(on_term="leave"))
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert said == "got SIGTERM\n"
    everyone_gone(pids, eventually, alive)


def test_a_program_that_ignores_sigterm_is_killed(
    eventually: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    process, pids = start(PROGRAM.format(on_term="signal.SIG_IGN"), "--grace", "0.2")
    process.communicate()
    assert process.returncode == 128 + signal.SIGKILL
    everyone_gone(pids, eventually, alive)


def test_killing_the_supervisor_kills_the_whole_group(
    eventually: Callable[..., None], alive: Callable[[int], bool], descendants: Callable[[int], list[int]]
) -> None:
    """The group does not watch the supervisor; a guard outside it does, and ends after it."""
    process, (program, below) = start(PROGRAM.format(on_term="signal.SIG_IGN"))
    everyone = descendants(process.pid)
    assert {program, below} < set(everyone)
    assert len(everyone) == 3
    process.kill()
    everyone_gone(everyone, eventually, alive)
    process.communicate()


def test_killing_the_guard_ends_the_group(
    eventually: Callable[..., None], alive: Callable[[int], bool], descendants: Callable[[int], list[int]]
) -> None:
    """Nothing runs that nobody would end."""
    process, pids = start(PROGRAM.format(on_term="leave"))
    (guard,) = set(descendants(process.pid)) - set(pids)
    os.kill(guard, signal.SIGKILL)
    assert process.wait() == 5
    process.communicate()
    everyone_gone(pids, eventually, alive)


def test_what_the_program_leaves_behind_may_tidy_up(tmp_path: Path) -> None:
    """Its own end is not the group's: the others get SIGTERM and time as well."""
    tidied = tmp_path / "tidied"
    below = f"trap 'echo yes > {tidied}; exit' TERM; echo up; while :; do sleep 0.01; done"
    program = f"""
import subprocess
below = subprocess.Popen(["/bin/sh", "-c", {below!r}], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
below.stdout.readline()
print(below.pid, flush=True)
"""
    process, _ = start(program)
    process.communicate()
    assert tidied.read_text() == "yes\n"


def test_a_command_that_does_not_exist_is_named() -> None:
    command = [sys.executable, "-m", "workbook.supervise", "--", "no-such-program"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == 127
    assert ended.stderr == "workbook.supervise: cannot start no-such-program: No such file or directory\n"


@pytest.mark.parametrize("arguments", [[], ["--grace", "1"], ["--"], ["--grace", "soon", "--", "true"]])
def test_bad_arguments_show_the_usage(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        supervise.main(arguments)
    assert "usage: python -m workbook.supervise [--grace SECONDS] -- COMMAND" in capfd.readouterr().err
