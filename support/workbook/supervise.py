"""Run a program that does not watch its stdin, and end it when ours closes.

``python -m workbook.supervise [--grace SECONDS] -- COMMAND...`` starts the command in a process group of its own and
exits with its exit code (128 + n for signal n). SIGTERM, SIGINT and SIGHUP are passed on to the group, except one that
was ignored at the start, as a background job's SIGINT is. When stdin closes, which it does however the parent ends, or
the command ends, the group gets SIGTERM, the grace of some seconds, and SIGKILL.

If this supervisor itself is killed with SIGKILL, a guard kills the group: a shell in a session of its own that waits
at a pipe which only the supervisor holds open. If the guard is killed, the supervisor ends the group. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

GRACE_SECONDS = 10.0
_STDIN = 0
_POLL_SECONDS = 0.02
_KILL_SECONDS = 5.0  # a killed process with gigabytes to give back takes a moment
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
# The first line is the group; the second says that all is over. Neither comes when the supervisor was killed.
_GUARD = 'read -r group || exit 0; read -r over || kill -s KILL -- "-$group"'


def supervise(command: Sequence[str], stdin: int, grace: float = GRACE_SECONDS) -> int:
    """Run ``command`` until it ends or the descriptor ``stdin`` does; returns its exit code.

    ``grace`` is in seconds. Raises OSError when the command cannot be started.
    """
    # What the program leaves behind becomes this process's child, to be waited for.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with _guard() as guard:
        return _supervise(command, stdin, grace, guard)


@contextlib.contextmanager
def _guard() -> Iterator[subprocess.Popen[bytes]]:
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # not in a group that somebody kills together with the supervisor
        bufsize=0,
    )
    assert guard.stdin is not None
    try:
        yield guard
    finally:
        with contextlib.suppress(BrokenPipeError):  # the guard was killed
            guard.stdin.write(b"over\n")
        guard.stdin.close()
        guard.wait()


def _supervise(command: Sequence[str], stdin: int, grace: float, guard: subprocess.Popen[bytes]) -> int:
    assert guard.stdin is not None
    to_guard = guard.stdin.fileno()

    def tell_the_guard() -> None:
        """In the new process, before it becomes the command: there is no moment at which nobody would end it."""
        os.write(to_guard, f"{os.getpid()}\n".encode())

    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=tell_the_guard)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        _signal_group(program.pid, signal.Signals(number))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)

    ended = os.pidfd_open(program.pid)
    _wait_for_end_or_eof([ended, os.pidfd_open(guard.pid)], stdin)
    _end_group(program, grace)
    code = program.wait()
    return code if code >= 0 else 128 - code


def _wait_for_end_or_eof(ended: Sequence[int], stdin: int) -> None:
    while True:
        readable, _, _ = select.select([*ended, stdin], [], [])
        if set(ended) & set(readable) or (stdin in readable and not os.read(stdin, 4096)):
            return


def _end_group(program: subprocess.Popen[bytes], grace: float) -> None:
    """Also when the program itself has ended: what it started must not outlive it, and may have to tidy up."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILL_SECONDS)):
        _signal_group(program.pid, number)
        deadline = time.monotonic() + seconds
        while _group_lives(program) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _group_lives(program: subprocess.Popen[bytes]) -> bool:
    """False when everybody in the group has ended; who ended stays in it until its parent asks how."""
    if program.poll() is None:
        return True
    with contextlib.suppress(ChildProcessError):  # nobody is left to ask about
        while os.waitpid(-program.pid, os.WNOHANG) != (0, 0):
            pass
    try:
        os.killpg(program.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # nobody is left in it
        os.killpg(group, number)


def main(argv: Sequence[str]) -> int:
    """The command line: everything after ``--`` is the command."""
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="python -m workbook.supervise",
        usage="%(prog)s [--grace SECONDS] -- COMMAND [ARGUMENT...]",
        description="Run a command, and end its whole process group when stdin closes.",
    )
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help="seconds from SIGTERM to SIGKILL")
    options = parser.parse_args(argv[:split])
    command = argv[split + 1 :]
    if not command:
        parser.error("there is no command after --")
    try:
        return supervise(command, _STDIN, options.grace)
    except OSError as error:
        print(f"workbook.supervise: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
