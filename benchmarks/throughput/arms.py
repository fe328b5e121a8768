"""The ways to the engine: directly, and through proxies that differ in what they do with a finished call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import yaml

from benchmarks.throughput import findings
from workbook.services import DEFAULT_CONFIG
from workbook.stacks import Processor, Stack, stack

TENANT = "tenant-acme"
_PROCESSORS: dict[str, Processor] = {findings.SIMPLE: "simple", findings.BATCH: "batch", findings.DURABLE: "durable"}


@contextmanager
def proxies(name: str, arms: Sequence[str], engine_url: str, workers: int) -> Iterator[dict[str, Stack]]:
    """A running proxy, with a receiver of its own, for each of ``arms``; all of them start at the same time.

    ``name`` begins the names of their folders. Raises what starting one raises; none is left then.
    """
    made = {arm: _stack(f"{name}_{arm}", arm, engine_url, workers) for arm in arms}
    with ExitStack() as started:
        for one in made.values():
            started.callback(one.stop)
        with ThreadPoolExecutor(max(1, len(made))) as pool:
            for begun in [pool.submit(one.start) for one in made.values()]:
                begun.result()
        yield made


def _stack(name: str, arm: str, engine_url: str, workers: int) -> Stack:
    env = {"OTEL_TRACES_EXPORTER": "none"} if arm == findings.CALLBACK else {}
    return stack(
        name,
        config=config(arm),
        tenants=[TENANT],
        backend=engine_url,
        env=env,
        processor=_PROCESSORS.get(arm, "batch"),
        workers=workers,
    )


def config(arm: str) -> dict[str, Any]:
    """The configuration that ships, with the callbacks of ``arm``. Keys are checked by the same code in all of them."""
    shipped: dict[str, Any] = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))
    if arm in (findings.PROXY, findings.PROXY_AGAIN):
        del shipped["litellm_settings"]["callbacks"]
    elif arm == findings.LITELLM_OTEL:
        shipped["litellm_settings"]["callbacks"] = ["otel"]
    return shipped
