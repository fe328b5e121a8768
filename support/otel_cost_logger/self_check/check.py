"""The self-check: calls through the proxy's own application, to an engine of its own, and what their records say.

It runs in a forked copy of the proxy's process, which is thrown away: whatever a call changes in LiteLLM (callbacks,
caches, clients, the logging worker's loop) is changed in the copy alone, and its records go nowhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from otel_cost_logger.attributes import SCHEMA
from otel_cost_logger.identity import versions
from otel_cost_logger.self_check import interfaces

_CHILD_SECONDS = 60.0  # it takes one
_RECORD_SECONDS = 20.0  # LiteLLM's hooks run within milliseconds of the answer, on a machine that has time for them
_MORE_SECONDS = 1.0  # once a record was missed
_CALLBACKS = (
    *("callbacks", "input_callback", "success_callback", "failure_callback", "service_callback"),
    *("_async_input_callback", "_async_success_callback", "_async_failure_callback"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """What the self-check found, a line each: ``wrong`` is what makes records wrong, ``gone`` are the interfaces of the
    table that are no longer there, some of which a record can do without. ``seconds`` is how long it took."""

    wrong: tuple[str, ...]
    gone: tuple[str, ...]
    seconds: float

    @property
    def in_one_line(self) -> str:
        """What differs first, what is gone, and the versions."""
        more = f" (and {len(self.wrong) - 1} more)" if len(self.wrong) > 1 else ""
        said = f"{self.wrong[0]}{more}" if self.wrong else "every record is right"
        gone = f"; gone: {', '.join(self.gone)}" if self.gone else ""
        return f"{said}{gone}; with {versions()}"


def check(*, exporters: bool = False) -> Report:
    """Run the self-check in a copy of this process, which has loaded LiteLLM's proxy.

    ``exporters`` also looks for what the plugin uses of the OTLP exporters, which takes longer.
    """
    began = time.monotonic()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads, such as LiteLLM's, are not in the copy
        child = os.fork()
    if child == 0:
        os.close(reading)
        _run_and_exit(writing, exporters)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - began
    if not said:
        how = f"exit status {os.waitstatus_to_exitcode(status)}"
        return Report((f"the self-check came to no end ({how})",), (), seconds)
    wrong, gone = json.loads(said)
    return Report(tuple(wrong), tuple(gone), seconds)


def _run_and_exit(writing: int, exporters: bool) -> None:
    """In the child: write what is wrong and what is gone, and end without the exit handlers of the parent."""
    try:
        signal.set_wakeup_fd(-1)  # the parent's
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _CHILD_SECONDS)
        logging.disable()
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        found = _found(exporters)
        os.write(writing, json.dumps(found).encode())
    finally:
        os._exit(0)


def _found(exporters: bool) -> tuple[list[str], list[str]]:
    wrong: list[str] = []
    gone: list[interfaces.Interface] = []
    try:
        gone += interfaces.names_gone(exporters=exporters)
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(_calls(wrong, gone))
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {error}"[:300])
    return wrong, [str(row) for row in gone]


async def _calls(wrong: list[str], gone: list[interfaces.Interface]) -> None:
    """Make the calls; adds to ``wrong`` what differs, and to ``gone`` the missing keys, even where a call raises."""
    # Here, where an error in loading them is one of the check's results.
    from otel_cost_logger.budgets.bound import Bounds
    from otel_cost_logger.self_check import calls
    from otel_cost_logger.self_check.engine import Engine
    from otel_cost_logger.self_check.observed import Observed
    from otel_cost_logger.self_check.proxy_call import post

    logger = Observed()
    try:
        async with Engine().serving() as engine:
            app = _prepared(logger, engine.port)
            patience = _RECORD_SECONDS
            for call in calls.CALLS:
                call_id = call.name.replace(" ", "-")
                headers = {
                    "authorization": f"Bearer {call.key}",
                    "x-litellm-call-id": call_id,
                    "traceparent": calls.TRACEPARENT,
                }
                await asyncio.wait_for(post(app, call.path, call.body, headers, hang_up=call.hang_up), _CHILD_SECONDS)
                span = await _next(logger.kept.spans, patience)
                if span is None:
                    wrong.append(f"{call.name} left no record")
                    patience = _MORE_SECONDS
                    continue
                told = engine.traceparents[-1] if engine.traceparents else ""
                wrong += _differences(call.name, call.expected(call_id, engine.port, told), _fields(span))
                if call.hang_up:
                    record = logger.abandoned()
                    found = {name: getattr(record, name) for name in calls.ABANDONED}
                    wrong += _differences("a call abandoned at once", calls.ABANDONED, found)
            most = Bounds(lambda: None).of({"model": calls.MODEL}, with_output=True)
            wrong += _differences("a budget's bound", {"nano_usd": calls.Positive()}, {"nano_usd": most})
    finally:
        gone += logger.keys_gone()


def _prepared(logger: Any, port: int) -> Any:
    """The proxy's application, with ``logger`` as its only callback and our engine on ``port`` as its only backend."""
    import litellm

    from otel_cost_logger.asgi import wrap_proxy
    from otel_cost_logger.self_check import calls
    from otel_cost_logger.self_check.engine import BUSY_MODEL, MODEL

    for name in _CALLBACKS:
        setattr(litellm, name, [])
    litellm.callbacks = [logger]
    server = import_module("litellm.proxy.proxy_server")
    server.master_key = server.prisma_client = server.shared_aiohttp_session = None  # type: ignore[attr-defined]
    server.general_settings = {}  # type: ignore[attr-defined]
    server.user_custom_auth = _authenticate  # type: ignore[attr-defined]
    deployments = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"hosted_vllm/{served}",
                "api_base": f"http://127.0.0.1:{port}/v1",
                "api_key": "none",
            },
            "model_info": {"id": f"{name}-{number}", "max_tokens": 100, **calls.PRICES},
        }
        for name, served in ((calls.MODEL, MODEL), (calls.FALLING_BACK, BUSY_MODEL))
        for number in (1, 2)  # with two, the second attempt need not wait
    ]
    server.llm_router = litellm.Router(  # type: ignore[attr-defined]
        model_list=deployments,
        num_retries=1,
        disable_cooldowns=True,
        fallbacks=[{calls.FALLING_BACK: [calls.MODEL]}],
    )
    wrap_proxy(logger.watched)
    return server.app


async def _authenticate(request: Any, api_key: str) -> Any:
    from otel_cost_logger.auth import identity_of, unknown_key
    from otel_cost_logger.keys.entries import TenantKey, hash_key
    from otel_cost_logger.self_check import calls

    if api_key != calls.KEY:
        raise unknown_key()
    entry = TenantKey(hash_key(api_key), calls.TENANT, calls.ALIAS, models=(calls.MODEL, calls.FALLING_BACK))
    identity = await identity_of(entry, request)
    return identity.model_copy(update=calls.BUDGETS)  # as LiteLLM's own keys may have them


async def _next(spans: list[Any], patience: float) -> Any:
    deadline = time.monotonic() + patience
    while not spans and time.monotonic() < deadline:  # noqa: ASYNC110  (some hooks run in threads)
        await asyncio.sleep(0.002)
    return spans.pop() if spans else None


def _fields(span: Any) -> dict[str, Any]:
    """The fields of the record that ``span`` shows, its ids as W3C text, and its parent's."""
    context, parent = span.context, span.parent
    return {
        **{row.field: span.attributes.get(row.name) for row in reversed(SCHEMA)},  # ours come first, and so last here
        "span": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}",
        "parent": f"{parent.span_id:016x}" if parent else None,
    }


def _differences(name: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {field} is {found.get(field)!r} and must be {value!r}"
        for field, value in expected.items()
        if value != found.get(field)
    ]
