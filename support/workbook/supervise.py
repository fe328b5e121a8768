"""Run a program that does not watch its stdin, and end it when ours closes.

``python -m workbook.supervise -- COMMAND...`` starts the command in a process group of its own and exits with its
exit code (128 + n for signal n). SIGTERM, SIGINT and SIGHUP are passed on to the group. When stdin closes, which
it does however the parent ends, the group gets SIGTERM, some seconds, and SIGKILL. If this supervisor itself is
killed with SIGKILL, the kernel kills the command (PR_SET_PDEATHSIG). Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

GRACE_SECONDS = 10.0
_STDIN = 0
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def supervise(command: Sequence[str], stdin: int, grace: float = GRACE_SECONDS) -> int:
    """Run ``command`` until it ends or the descriptor ``stdin`` does; returns its exit code.

    Raises OSError when the command cannot be started.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    supervisor = os.getpid()

    def die_with_the_supervisor() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it ended before the line above
            os._exit(1)

    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=die_with_the_supervisor)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        _signal_group(program.pid, signal.Signals(number))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)

    ended = os.pidfd_open(program.pid)
    _wait_for_end_or_eof(ended, stdin)
    _end_group(program, ended, grace)
    code = program.wait()
    return code if code >= 0 else 128 - code


def _wait_for_end_or_eof(ended: int, stdin: int) -> None:
    while True:
        readable, _, _ = select.select([ended, stdin], [], [])
        if ended in readable or (stdin in readable and not os.read(stdin, 4096)):
            return


def _end_group(program: subprocess.Popen[bytes], ended: int, grace: float) -> None:
    deadline = time.monotonic() + grace
    if program.poll() is None:
        _signal_group(program.pid, signal.SIGTERM)
        select.select([ended], [], [], max(0.0, deadline - time.monotonic()))
    # Also when the program itself has ended: what it started must not outlive it.
    _signal_group(program.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # nobody is left in it
        os.killpg(group, number)


def main(argv: Sequence[str]) -> int:
    """The command line: everything after ``--`` is the command."""
    if argv[:1] != ["--"] or len(argv) < 2:
        print("usage: python -m workbook.supervise -- COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    try:
        return supervise(argv[1:], _STDIN)
    except OSError as error:
        print(f"workbook.supervise: cannot start {argv[1]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
