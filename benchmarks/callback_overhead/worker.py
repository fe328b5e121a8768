"""The process that is measured: ``python -m benchmarks.callback_overhead.worker PLAN`` reads a plan and prints samples.

A process of its own, in whichever environment: it needs LiteLLM, OpenTelemetry and the plugin, and nothing else of the
workbook. It prints one JSON object per line: first what it found, then a sample per block.
"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.callback_overhead.names import ASYNC, NONE

_OTHERS_PACKAGES = ("openinference-instrumentation-litellm", "opentelemetry-instrumentation-litellm", "openlit")


def main(argv: Sequence[str]) -> int:
    """Measure the plan in the file ``argv[0]``: ``arms`` and ``calls`` in a block by mode, ``rounds``,
    ``warm_up_rounds``, ``seed`` and a ``folder`` for files."""
    # LiteLLM takes seconds to import, and looks for the network unless told not to: the caller sets the environment.
    from benchmarks.callback_overhead import callbacks
    from benchmarks.callback_overhead.calls import Caller, Meter, prepare

    plan = json.loads(Path(argv[0]).read_text())
    callbacks.without_proxy()
    prepare()
    caller = Caller()
    ours, kept = callbacks.template()
    caller.block(ASYNC, 1, callback=ours, meter=Meter(ours))
    span = kept.last
    assert span is not None
    _print({"attributes": len(span.attributes or {}), "packages": _packages()})
    arms = sorted({arm for arms in plan["arms"].values() for arm in arms} - {NONE})
    made = {arm: callbacks.make(arm, span, Path(plan["folder"])) for arm in arms}
    meters = {arm: Meter(callback.logger) for arm, callback in made.items() if callback.logger}
    nothing = callbacks.Callback(None, lambda: 0)

    def sample(number: int, mode: str, arm: str) -> dict[str, Any]:
        callback, calls = made.get(arm, nothing), plan["calls"][mode]
        records = callback.records()
        with callback.in_place():
            measured = caller.block(
                mode,
                calls,
                callback=callback.logger,
                meter=meters.get(arm),
                flush=callback.flush,
                times=callback.times,
            )
        # One call comes before those that are measured.
        left = callback.records() - records - 1 if arm in made else None
        return {"round": number, "mode": mode, "arm": arm, "calls": calls, "records": left, **measured}

    gc.collect()
    gc.freeze()  # a collection of LiteLLM's own hundred thousands of objects would take longer than a block
    for number, mode, arm in _order(plan, plan["warm_up_rounds"]):
        sample(number, mode, arm)  # and not kept: first imports, caches, connections
    for number, mode, arm in _order(plan, plan["rounds"]):
        _print(sample(number, mode, arm))
    for callback in made.values():
        callback.close()
    return 0


def _order(plan: dict[str, Any], rounds: int) -> Iterator[tuple[int, str, str]]:
    chance = random.Random(plan["seed"])
    for number in range(rounds):
        blocks = [(mode, arm) for mode, arms in plan["arms"].items() for arm in arms]
        for mode, arm in chance.sample(blocks, len(blocks)):
            yield number, mode, arm


def _packages() -> dict[str, str]:
    names = ("litellm", "opentelemetry-sdk", *_OTHERS_PACKAGES)
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _print(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
