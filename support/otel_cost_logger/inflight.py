"""Proxied calls that no hook ever reports.

When a caller hangs up before the first streamed token, LiteLLM cancels the call and fires neither the success nor
the failure hook. The engine has worked for that caller all the same, so the call must leave a record. This module
notices: a request that has ended, and of which nothing was heard for a while after.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

# After the end of a request. LiteLLM's success hooks run in a queue of their own, usually within milliseconds.
_GRACE_SECONDS = 10.0
_HOOKS_SECONDS = 1.0  # for these hooks, where there is no time to be patient


class InFlight:
    """Calls between the proxy's first hook and their report, by call id and API key.

    ``on_unreported`` gets the request of each call that ended ``grace_seconds`` ago without a report, and the time of
    that end in nanoseconds since the epoch; it is called on the event loop. `begin` belongs to the event loop,
    `reported` may come from any thread.
    """

    def __init__(self, on_unreported: Callable[[Any, int], None], grace_seconds: float = _GRACE_SECONDS) -> None:
        self._on_unreported = on_unreported
        self._grace_seconds = grace_seconds
        self._open: dict[Hashable, deque[_Call]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        if not self._open:  # as in a program without a proxy
            return 0
        with self._lock:
            return sum(map(len, self._open.values()))

    def begin(self, key: Hashable, request: Any) -> None:
        """A call begins in the current task, which ends with the request."""
        task = asyncio.current_task()
        if task is None:
            return
        call = _Call(key, request)
        with self._lock:
            self._open.setdefault(key, deque()).append(call)
        task.add_done_callback(lambda _: self._request_ended(call))

    def reported(self, key: Hashable) -> Any:
        """A hook has reported a call under ``key``: with several (a caller may choose the id), the oldest. Returns its
        request; None when there is none."""
        with self._lock:
            if not (calls := self._open.get(key)):
                return None
            call = calls[0]
            self._forget(call)
            return call.request

    def take(self, which: Callable[[Any], bool]) -> list[Any]:
        """The requests of calls that ``which`` is true of; whoever takes them reports them."""
        with self._lock:
            taken = [call for calls in self._open.values() for call in calls if which(call.request)]
            for call in taken:
                self._forget(call)
        return [call.request for call in taken]

    def wait_no_longer(self) -> None:
        """From now on a call whose request ends without a report is given up at once, and one whose request has ended
        a second after that. On the event loop."""
        self._grace_seconds = 0.0
        with self._lock:
            ended = [call for calls in self._open.values() for call in calls if call.ended_ns]
        for call in ended:
            self._give_up_after(call, _HOOKS_SECONDS)

    def _request_ended(self, call: _Call) -> None:
        with self._lock:
            if not self._is_open(call):
                return
        call.ended_ns = time.time_ns()
        self._give_up_after(call, self._grace_seconds)

    def _give_up_after(self, call: _Call, seconds: float) -> None:
        waited = (time.time_ns() - call.ended_ns) / 1e9
        asyncio.get_running_loop().call_later(seconds - waited, self._give_up, call)

    def _give_up(self, call: _Call) -> None:
        with self._lock:
            if not self._is_open(call):
                return
            self._forget(call)
        self._on_unreported(call.request, call.ended_ns)

    def _is_open(self, call: _Call) -> bool:
        return call in self._open.get(call.key, ())

    def _forget(self, call: _Call) -> None:
        calls = self._open[call.key]
        calls.remove(call)
        if not calls:
            del self._open[call.key]


class _Call:  # compared by identity: two calls may look the same
    __slots__ = ("ended_ns", "key", "request")

    def __init__(self, key: Hashable, request: Any) -> None:
        self.key = key
        self.request = request
        self.ended_ns = 0  # of its request, once it has
