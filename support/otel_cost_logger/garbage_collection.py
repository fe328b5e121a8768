"""Python 3.11: garbage is collected by the event loop, and never inside ``ContextVar.set``.

CPython 3.10 and 3.11 can crash there (python/cpython#148891): ``ContextVar.set`` allocates, an allocation may start the
collector, and a finaliser that the collector runs may set a context variable too, which frees what the first is using.
LiteLLM sets context variables in each request, and in the finaliser of a stream that was left. From 3.12 on Python
collects between two instructions only, and nothing here is done.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import sys
from contextvars import Context

_LOOK_SECONDS = 0.05
_log = logging.getLogger(__name__)
_collecting: asyncio.Task[None] | None = None  # a loop keeps no hold of its tasks


def warning() -> str | None:
    """What an operator of this Python must know, in one sentence; None for a Python that does not crash."""
    if sys.version_info >= (3, 12):
        return None
    return (
        f"Python {platform.python_version()} can crash in any LiteLLM proxy (python/cpython#148891): use Python 3.12; "
        "until then this plugin, behind the proxy, leaves garbage to the event loop to collect, which avoids the crash"
    )


def guard() -> None:
    """Behind the proxy: on a Python that can crash, say so, and collect in the running event loop from now on.

    Automatic collection is off for the whole process until the loop ends, for its threads too: the loop collects what
    they leave. Without a running loop nobody would, so there it stays on. Where it is off already nothing is done.
    """
    global _collecting
    words = warning()
    if words is None or not gc.isenabled():
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _log.warning("%s. No event loop is running here: this process is not guarded", words)
        return
    _log.warning("%s", words)
    os.register_at_fork(after_in_child=gc.enable)  # the loop stays behind in the parent
    gc.disable()
    # A context of its own: what finalisers set there nobody else sees.
    _collecting = loop.create_task(collect_for_ever(), context=Context())


async def collect_for_ever() -> None:
    """Collect garbage where CPython would, by its own counts and thresholds; automatic again when this is cancelled.

    A step of a task is no part of a ``ContextVar.set``, so what finalisers do there is safe. The counts of
    `gc.get_count` go on while automatic collection is off, and `gc.get_threshold` is asked each time, so that
    `gc.set_threshold` and LiteLLM's ``PYTHON_GC_THRESHOLD`` work as ever.
    """
    # As CPython counts, which looks at all objects only when a quarter has come to the old ones.
    old, come_since = len(gc.get_objects(2)), 0
    try:
        while True:
            gc.disable()  # each time: somebody may have enabled it, as a library does that disables it for a moment
            counts, thresholds = gc.get_count(), gc.get_threshold()
            if 0 < thresholds[0] < counts[0]:
                if counts[2] > thresholds[2] and come_since > old / 4:
                    gc.collect(2)
                    old, come_since = len(gc.get_objects(2)), 0
                elif counts[1] > thresholds[1]:
                    young = len(gc.get_objects(0)) + len(gc.get_objects(1))
                    come_since += young - gc.collect(1)
                else:
                    gc.collect(0)
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        gc.enable()
