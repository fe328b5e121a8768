"""What becomes of the open requests when the proxy is told to stop.

uvicorn waits for them without a limit, and gunicorn kills its workers after 30 seconds: a stream that is open then
leaves nothing, although its tokens were counted. So requests get some seconds to end. What is open after them is
recorded with what was counted until then, and is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from otel_cost_logger.net.passage import Passage
from otel_cost_logger.termination import on_sigterm


class ProxyStopped(Exception):
    """The proxy stopped before the answer was complete."""

    status_code = 503


class OpenRequests:
    """The requests that the net lets through, until they end. ``stopping`` is True from SIGTERM on."""

    def __init__(self) -> None:
        self.stopping = False
        self._tasks: dict[Passage, asyncio.Task[object]] = {}

    def begin(self, passage: Passage) -> None:
        """The current task serves ``passage``."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[passage] = task

    def end(self, passage: Passage) -> None:
        """The request is over."""
        del self._tasks[passage]

    def end_after_sigterm(self, seconds: float, stopping: Callable[[], None], stopped: Callable[[], None]) -> None:
        """From now on SIGTERM ends what is still open ``seconds`` later. ``stopping`` is called at once, ``stopped``
        when it is known of the passages that they are ended and before they are; both on the event loop."""

        def begin() -> None:
            self.stopping = True
            stopping()

        def end() -> None:
            open_now = dict(self._tasks)
            for passage in open_now:
                passage.stopped = True
            stopped()
            for task in open_now.values():
                task.cancel()

        def handle() -> None:
            with suppress(RuntimeError):  # no event loop runs: nothing is open
                loop = asyncio.get_running_loop()
                loop.call_soon_threadsafe(begin)
                # The other handlers of the signal, which may take their time, come after this one.
                loop.call_soon_threadsafe(loop.call_at, loop.time() + seconds, end)

        on_sigterm(first=handle)
