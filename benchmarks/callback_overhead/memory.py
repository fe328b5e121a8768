"""How much a process grows as calls are reported: ``python -m benchmarks.callback_overhead.memory PLAN``.

One real call is reported again and again to one callback's own hooks, each time under another call id, and nothing else
of LiteLLM runs. So a hundred thousand calls take seconds, and what grows is the callback's.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.callback_overhead.names import ASYNC

_FIRST = 2_000  # calls before anything is counted: caches fill


def main(argv: Sequence[str]) -> int:
    """The plan in the file ``argv[0]`` has an ``arm``, ``checkpoints`` (numbers of calls) and a ``folder``."""
    from litellm.integrations.custom_logger import CustomLogger

    from benchmarks.callback_overhead import callbacks
    from benchmarks.callback_overhead.calls import Caller, prepare

    class Capture(CustomLogger):
        """Keeps what the hook was given."""

        async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            self.reported = (kwargs, response_obj, start_time, end_time)

    plan = json.loads(Path(argv[0]).read_text())
    callbacks.without_proxy()
    prepare()
    capture = Capture()
    ours, kept = callbacks.template()
    for callback in (capture, ours):
        Caller().block(ASYNC, 1, callback=callback, meter=None)
    assert kept.last is not None
    made = callbacks.make(plan["arm"], kept.last, Path(plan["folder"]))
    kwargs, response, start, end = capture.reported

    async def report(calls: int) -> None:
        logger = made.logger
        assert logger is not None
        for _ in range(calls):
            call_id = str(uuid.uuid4())
            payload = {**kwargs["standard_logging_object"], "litellm_call_id": call_id}
            call = {**kwargs, "litellm_call_id": call_id, "standard_logging_object": payload}
            logger.log_pre_api_call(kwargs["model"], kwargs["messages"], call)
            await logger.async_log_success_event(call, response, start, end)

    asyncio.run(report(_FIRST))
    began, done = _resident(), 0
    for checkpoint in plan["checkpoints"]:
        asyncio.run(report(checkpoint - done))
        done = checkpoint
        print(json.dumps({"arm": plan["arm"], "calls": done, "grown_bytes": _resident() - began}), flush=True)
    left = made.records()
    if left != _FIRST + done:
        print(f"{left} records of {_FIRST + done} calls", file=sys.stderr)
        return 1
    return 0


def _resident() -> int:
    """Bytes of memory in use, after what is free has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
