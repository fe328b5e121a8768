"""Blocks of LiteLLM calls that are answered without a network, and what a block took.

LiteLLM answers a call with ``mock_response`` itself: everything of a call happens but for the upstream, so what is
left is LiteLLM's own work, about a millisecond, and the callback's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from benchmarks.callback_overhead.names import CONCURRENCY, STREAM, SYNC

MODEL = "hosted_vllm/mistral-7b"
_REPLY = "The cost of a call is what its tokens cost."
_FINAL_HOOKS = ("log_success_event", "async_log_success_event")
_HOOKS = ("log_pre_api_call", "async_pre_call_deployment_hook", *_FINAL_HOOKS)
_PATIENCE_SECONDS = 30.0
_STEP_SECONDS = 0.002
_STILL_SECONDS = 0.0002  # of CPU time in a step: beyond that something is still at work


def timed(hook: Callable[..., Any], add: Callable[[int], None]) -> Callable[..., Any]:
    """``hook``, which may be a coroutine function; ``add`` is told at its end what its thread's CPU time (ns) was at
    its beginning."""
    if inspect.iscoroutinefunction(hook):

        @functools.wraps(hook)
        async def awaited(*arguments: Any, **keywords: Any) -> Any:
            began = time.thread_time_ns()
            try:
                return await hook(*arguments, **keywords)
            finally:
                add(began)

        return awaited

    @functools.wraps(hook)
    def called(*arguments: Any, **keywords: Any) -> Any:
        began = time.thread_time_ns()
        try:
            return hook(*arguments, **keywords)
        finally:
            add(began)

    return called


def own_hooks(callback: CustomLogger) -> list[str]:
    """The hooks that ``callback`` has of its own."""
    return [name for name in _HOOKS if getattr(type(callback), name, None) is not getattr(CustomLogger, name, None)]


class Meter:
    """CPU time that a callback's hooks use of the threads that call them, and how often they were called."""

    def __init__(self, callback: CustomLogger) -> None:
        self.nanoseconds = 0
        self.before_nanoseconds = 0  # part of it: in hooks before the call
        self.finished = 0
        self._lock = threading.Lock()
        for name in own_hooks(callback):
            setattr(callback, name, timed(getattr(callback, name), functools.partial(self._add, name)))

    def _add(self, name: str, began: int) -> None:
        nanoseconds = time.thread_time_ns() - began
        with self._lock:
            self.nanoseconds += nanoseconds
            if name in _FINAL_HOOKS:
                self.finished += 1
            else:
                self.before_nanoseconds += nanoseconds


def prepare() -> None:
    """LiteLLM as every block needs it: silent, and with a price for the model."""
    litellm.suppress_debug_info = True
    litellm.register_model(
        {
            MODEL: {
                "input_cost_per_token": 1.5e-07,
                "output_cost_per_token": 1.5e-07,
                "litellm_provider": "hosted_vllm",
                "mode": "chat",
            }
        }
    )


class Caller:
    """Makes calls, the async ones in one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def block(
        self,
        mode: str,
        calls: int,
        *,
        callback: CustomLogger | None,
        meter: Meter | None,
        flush: Callable[[], object] = lambda: None,
        times: Mapping[str, int] | None = None,
    ) -> dict[str, float]:
        """Make ``calls`` calls with ``callback`` in place, wait until the last of them is recorded, and flush.

        Returns the seconds that the callers waited, and of CPU time those of the process and, with ``meter``, those of
        the hooks; also what ``times`` (nanoseconds so far, by name) grew by meanwhile. Raises TimeoutError when hooks
        are missing after half a minute.
        """
        with _registered(callback):
            finished = meter.finished if meter else 0
            self._calls(mode, 1)  # the first call with a callback sets LiteLLM's lists up
            self._finish(mode, meter, finished + 1 if meter else None)
            gc.collect()
            finished = meter.finished if meter else 0
            hooks, before_hooks = (meter.nanoseconds, meter.before_nanoseconds) if meter else (0, 0)
            parts = dict(times or {})
            began, cpu = time.perf_counter(), time.process_time()
            self._calls(mode, calls)
            wall = time.perf_counter() - began
            self._finish(mode, meter, finished + calls if meter else None)
            flush()
            cpu = time.process_time() - cpu
        measured = {"seconds": wall, "process_cpu_seconds": cpu}
        if meter:
            measured["hooks_cpu_seconds"] = (meter.nanoseconds - hooks) / 1e9
            measured["hooks_before_cpu_seconds"] = (meter.before_nanoseconds - before_hooks) / 1e9
        return measured | {f"{name}_cpu_seconds": ((times or {})[name] - part) / 1e9 for name, part in parts.items()}

    def _calls(self, mode: str, calls: int) -> None:
        if mode == SYNC:
            for _ in range(calls):
                litellm.completion(**_arguments())
        else:
            self._loop.run_until_complete(_concurrently(_streamed if mode == STREAM else _answered, calls))

    def _finish(self, mode: str, meter: Meter | None, target: int | None) -> None:
        """Wait until ``target`` final hooks have run, and until nothing is at work any more."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while target is not None and meter is not None and meter.finished < target:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{target - meter.finished} hooks of {target} did not run")
            self._rest(mode)
        while True:
            used = time.process_time()
            self._rest(mode)
            if time.process_time() - used < _STILL_SECONDS:
                return

    def _rest(self, mode: str) -> None:
        if mode == SYNC:
            time.sleep(_STEP_SECONDS)
        else:
            self._loop.run_until_complete(_rested())


async def _rested() -> None:
    await GLOBAL_LOGGING_WORKER.flush()
    await asyncio.sleep(_STEP_SECONDS)


def _arguments() -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What does a call cost?"}],
        "mock_response": _REPLY,
        "metadata": {"tenant_id": "tenant-acme"},
    }


async def _answered() -> None:
    await litellm.acompletion(**_arguments())


async def _streamed() -> None:
    async for _ in await litellm.acompletion(**_arguments(), stream=True, stream_options={"include_usage": True}):
        pass


async def _concurrently(make: Callable[[], Awaitable[None]], calls: int) -> None:
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            await make()

    await asyncio.gather(*(worker() for _ in range(min(CONCURRENCY, calls))))


@contextlib.contextmanager
def _registered(callback: CustomLogger | None) -> Iterator[None]:
    lists = ("callbacks", "input_callback", "success_callback", "failure_callback")
    names = (*lists, "_async_success_callback", "_async_failure_callback")
    for name in names:
        setattr(litellm, name, [])
    if callback is not None:
        litellm.callbacks = [callback]
    try:
        yield
    finally:
        for name in names:
            setattr(litellm, name, [])
