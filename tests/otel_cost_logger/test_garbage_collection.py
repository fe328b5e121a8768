"""The guard against Python 3.11's crash, in bare interpreters: this one, and any 3.11 that is installed.

`test_mixed_load.py` has it in the real proxy. The programs load the module by its path and need nothing else.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otel_cost_logger import garbage_collection
from workbook.paths import ROOT

HEAD = f"""
import asyncio, contextvars, gc, importlib.util, json, logging, os, sys, time
logging.basicConfig(format="%(message)s")
spec = importlib.util.spec_from_file_location("garbage_collection", {garbage_collection.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

async def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not within 30 s"
        await asyncio.sleep(0.01)
"""


def python_3_11() -> str:
    command = [ROOT / "support" / "find_python.sh", "3.11"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


PYTHON_3_11 = python_3_11()
needs_3_11 = pytest.mark.skipif(not PYTHON_3_11, reason="no Python 3.11 is installed here")
PYTHONS = [sys.executable, pytest.param(PYTHON_3_11, marks=needs_3_11)]


def run(python: str, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", HEAD + body, *arguments], capture_output=True, text=True, timeout=100)


DEADLY = """
names = [contextvars.ContextVar(f"name_{number}") for number in range(100)]
finalised = 0

class Garbage:
    def __init__(self):
        self.me = self

    def __del__(self):
        global finalised
        finalised += 1
        for name in names:
            name.set(object())
        self.in_the_place_of_what_was_freed = [bytes([255]) * size for size in range(16, 400, 8) for _ in range(8)]

async def main():
    if sys.argv[1] == "guarded":
        module.guard()
    for number in range(5_000):
        gc.set_threshold(3 + number % 23)  # or collections fall on the same instruction again and again
        Garbage()
        for name in names:
            name.set([number])
        if number % 100 == 0:
            await asyncio.sleep(0)
    await until(lambda: finalised > 4_900)

asyncio.run(main())
"""


@needs_3_11
def test_python_3_11_dies_without_the_guard_and_lives_with_it() -> None:
    unguarded = (run(PYTHON_3_11, DEADLY, "unguarded").returncode for _ in range(10))  # one of twenty survives
    assert any(code in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT) for code in unguarded)
    guarded = run(PYTHON_3_11, DEADLY, "guarded")
    assert guarded.returncode == 0, guarded.stderr
    assert guarded.stderr.startswith("Python 3.11.")
    assert guarded.stderr.count("python/cpython#148891") == 1


COLLECTING = """
name = contextvars.ContextVar("name", default="untouched")
finalised, collected, kept = [], [], []

class Garbage:
    def __init__(self):
        self.me = self

    def __del__(self):
        name.set("touched")
        finalised.append(name.get())

def grow(count):
    kept.extend([] for _ in range(count))

async def grow_until(condition):
    await until(lambda: condition() or grow(60))

async def main():
    grow(100_000)
    gc.collect()
    gc.set_threshold(50, 2, 2)
    gc.callbacks.append(lambda phase, info: phase == "start" and collected.append(info["generation"]))
    task = asyncio.create_task(module.collect_for_ever(), context=contextvars.Context())
    await until(lambda: not gc.isenabled())
    for _ in range(100):
        Garbage()
    assert not finalised
    await until(lambda: len(finalised) == 100)
    assert name.get() == "untouched"

    await grow_until(lambda: collected.count(1) > 3)
    assert collected.count(0) >= 2 * collected.count(1)
    assert 2 not in collected, "a full collection although less than a quarter is new"
    grow(30_000)
    await grow_until(lambda: 2 in collected)

    gc.set_threshold(0)  # off, says the operator
    collected.clear()
    grow(1000)
    gc.enable()  # as a library does that turned it off for a moment
    await until(lambda: not gc.isenabled())
    assert not collected

asyncio.run(main())
assert gc.isenabled(), "the loop has ended, and nobody collects"
"""


@pytest.mark.parametrize("python", PYTHONS)
def test_the_loop_collects_by_the_rules_of_automatic_collection(python: str) -> None:
    done = run(python, COLLECTING)
    assert done.returncode == 0, done.stderr


WITHOUT_A_LOOP = """
module.guard()
assert gc.isenabled()
gc.disable()

async def main():
    module.guard()
    assert len(asyncio.all_tasks()) == 1
    assert not gc.isenabled()

asyncio.run(main())
print(module.warning())
"""

FORKED = """
async def main():
    module.guard()
    module.guard()
    assert len(asyncio.all_tasks()) == 2
    assert not gc.isenabled()
    child = os.fork()
    if not child:
        os._exit(0 if gc.isenabled() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

asyncio.run(main())
"""


@needs_3_11
def test_a_forked_child_which_has_no_loop_collects_as_ever() -> None:
    done = run(PYTHON_3_11, FORKED)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("python/cpython#148891") == 1


@needs_3_11
def test_without_a_loop_or_with_collection_off_nothing_is_changed() -> None:
    done = run(PYTHON_3_11, WITHOUT_A_LOOP)
    assert done.returncode == 0, done.stderr
    (said,) = done.stderr.splitlines()  # once: for the process without a loop
    assert said.endswith("No event loop is running here: this process is not guarded")
    assert said.startswith(done.stdout.strip())


def test_the_warning_is_for_this_python_only_where_it_can_crash() -> None:
    assert (garbage_collection.warning() is None) == (sys.version_info >= (3, 12))
    assert Path(garbage_collection.__file__).is_relative_to(ROOT)
