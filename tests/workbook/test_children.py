import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workbook.children import Child, ChildDied, ChildNotReady

WATCHES_STDIN = "import sys; print('{\"url\": \"here\"}', flush=True); sys.stdin.read(); print('goodbye')"


def python(code: str, log: Path) -> Child:
    return Child("sample", [sys.executable, "-c", code], log=log)


def test_a_child_announces_itself_and_ends_with_its_stdin(tmp_path: Path) -> None:
    child = python(WATCHES_STDIN, tmp_path / "child.log")
    assert child.wait_for_announcement(30) == {"url": "here"}
    assert child.running
    assert child.stop() == 0
    assert not child.running
    assert child.tail().endswith("goodbye")
    assert child.stop() == 0  # again


def test_an_early_death_shows_command_exit_code_log_and_reason(build: Path) -> None:
    log = build / "runs" / "x" / "child.log"
    child = python("print('\\x1b[31mstarting\\x1b[0m', flush=True); raise OSError('no disk')", log)
    with pytest.raises(ChildDied) as caught:
        child.wait_for_announcement(30)
    assert caught.value.exit_code == 1
    assert caught.value.reason == "OSError: no disk"
    message = str(caught.value)
    assert message.startswith("sample ended with exit code 1: OSError: no disk\n  command: python -c ")
    assert "log: build/runs/x/child.log" in message
    assert "  | starting" in message
    child.stop()


def test_a_silent_death_is_told_too(tmp_path: Path) -> None:
    child = python("raise SystemExit(7)", tmp_path / "child.log")
    with pytest.raises(ChildDied, match="exit code 7: it wrote nothing"):
        child.wait_for_announcement(30)
    child.stop()


def test_a_child_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    child = python("import sys; print('warming up', flush=True); sys.stdin.read()", tmp_path / "child.log")
    child.wait_until(lambda: "warming up" in child.text() or None, 30)
    with pytest.raises(ChildNotReady, match=r"not ready after 0.1 s(.|\n)*warming up"):
        child.wait_for_announcement(0.1)
    child.stop()


def test_stop_kills_a_whole_group_that_does_not_listen(
    tmp_path: Path, eventually: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    code = (
        "import json, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "below = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(json.dumps({'pid': below.pid}), flush=True)\n"
        "time.sleep(600)\n"
    )
    child = python(code, tmp_path / "child.log")
    below = child.wait_for_announcement(30)["pid"]
    assert child.stop(grace=0.1) == -9
    eventually(lambda: not alive(below), "the end of the grandchild")


def test_a_child_does_not_see_the_terminal_or_our_folder(tmp_path: Path) -> None:
    child = python('import os; print(\'{"cwd": "%s", "sid": %d}\' % (os.getcwd(), os.getsid(0)))', tmp_path / "c.log")
    said = child.wait_for_announcement(30)
    child.stop()
    assert said == {"cwd": str(tmp_path), "sid": child.pid}
    assert os.getsid(0) != child.pid
