"""Child processes: started with a log, watched until ready, and gone when this process goes.

Every child's stdin is a pipe whose other end only this process holds. When this process ends, however it ends,
the pipe closes; a child that exits when its stdin ends needs no other goodbye. Programs that do not watch their
stdin run under `workbook.supervise`, which does it for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from workbook.environment import child_environment
from workbook.paths import shown
from workbook.terminal import without_colours

_Ready = TypeVar("_Ready")
_TAIL_LINES = 20
# An exception as Python prints it; that a task was cancelled is never the reason.
_REASON = re.compile(r"^(?!.*CancelledError)(?:\w+\.)*\w*(?:Error|Exception)\b.*", re.MULTILINE)


class ChildError(RuntimeError):
    """A child process is not there. ``name``, ``log`` (its path) and ``tail`` (the log's last lines) say more."""

    def __init__(self, child: Child, what: str) -> None:
        self.name = child.name
        self.log = child.log
        self.tail = child.tail()
        super().__init__(
            f"{child.name} {what}\n  command: {child.shown_command}\n  log: {shown(child.log)}\n"
            + "\n".join(f"  | {line}" for line in self.tail.splitlines())
        )


class ChildDied(ChildError):
    """The child ended by itself. ``exit_code`` is negative for a signal; ``reason`` is its own last error."""

    def __init__(self, child: Child, exit_code: int) -> None:
        self.exit_code = exit_code
        self.reason = child.reason()
        super().__init__(child, f"ended with exit code {exit_code}: {self.reason}")


class ChildNotReady(ChildError, TimeoutError):
    """The child runs but was not ready in time."""


class Child:
    """One child process in a session of its own, with stdout and stderr in one log file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._stopped = False
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(environment),
                cwd=cwd or log.parent,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The child's process id, and its process group's."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """True until the child has ended."""
        return self._process.poll() is None

    @property
    def shown_command(self) -> str:
        """The command as a reader would type it."""
        words = ["python" if word == sys.executable else word for word in self.command]
        return shlex.join(shown(Path(word)) if os.path.isabs(word) else word for word in words)

    def wait_until(self, ready: Callable[[], _Ready | None], timeout: float) -> _Ready:
        """Ask ``ready`` until it answers something, and return that.

        Raises `ChildDied` as soon as the child ends, `ChildNotReady` after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            ended = self._process.poll()  # before asking: a child may answer and end
            if (answer := ready()) is not None:
                return answer
            if ended is not None:
                raise ChildDied(self, ended)
            if time.monotonic() > deadline:
                raise ChildNotReady(self, f"was not ready after {timeout:g} s")
            time.sleep(0.02)

    def wait_for_announcement(self, timeout: float) -> dict[str, Any]:
        """Wait for the JSON object that the child prints as a line of its own when it is ready."""
        return self.wait_until(self._announcement, timeout)

    def _announcement(self) -> dict[str, Any] | None:
        for line in self.text().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                announcement: dict[str, Any] = json.loads(line)
                return announcement
        return None

    def text(self) -> str:
        """The log so far, without terminal colours."""
        return without_colours(self.log.read_text(encoding="utf-8", errors="replace"))

    def tail(self) -> str:
        """The last lines of the log."""
        lines = [line for line in self.text().splitlines() if line.strip()]
        return "\n".join(lines[-_TAIL_LINES:])

    def reason(self) -> str:
        """The child's own last word on what went wrong: the last exception in its log, or its last line."""
        errors = _REASON.findall(self.text())
        last_line = self.tail().rpartition("\n")[2]
        return (errors[-1] if errors else last_line).strip() or "it wrote nothing"

    def stop(self, grace: float = 15.0) -> int:
        """End the child and its whole process group; returns its exit code. Safe to call again.

        Closing stdin asks it to end. What is left of the group then, or after ``grace`` seconds, is killed.
        """
        if self._stopped:
            return self._process.wait()
        self._stopped = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        with contextlib.suppress(ProcessLookupError):  # nobody is left
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()
