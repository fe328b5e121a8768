"""Calls whose answers are remembered by their ids: the caller's own list of what there must be a record of.

A closed loop of threads with the standard library's HTTP client: beside a proxy that needs milliseconds for a call,
what a client needs does not matter, and a list of calls is wanted more than their rate.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from benchmarks.harness.load import Request

CALL_ID = "x-litellm-call-id"  # LiteLLM names each call in its answer


class _NotAnswered(Exception):
    """The answer is none to the question; the message says why and becomes the error's name."""


@dataclass
class Calls:
    """What became of some calls: ids and durations (s) of the ``answered`` ones, and the others by kind.

    ``seconds`` are those from the first request to the last answer.
    """

    call_ids: list[str] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def sent(self) -> int:
        """All of them, answered or not."""
        return len(self.call_ids) + self.failed.total()


class Callers:
    """``at_a_time`` threads that make one call after the other; ``timeout`` in seconds is for one answer."""

    def __init__(self, request: Request, *, at_a_time: int, timeout: float = 60.0) -> None:
        self._request = request
        self._body = json.dumps(request.body).encode()
        self._headers = {"Content-Type": "application/json", **request.headers}
        self._at_a_time = at_a_time
        self._timeout = timeout

    def make(self, calls: int, *, until: float = float("inf"), break_off: bool = False) -> Calls:
        """Make that many ``calls``, or fewer: none begins after ``until`` (monotonic seconds).

        With ``break_off`` a thread ends when its connection breaks; else it connects again for its next call.
        """
        with self.making(calls, until=until, break_off=break_off) as (made, _):
            pass
        return made

    @contextmanager
    def making(
        self, calls: int, *, until: float = float("inf"), break_off: bool = False
    ) -> Iterator[tuple[Calls, Future[None]]]:
        """As `make`, in the background: what there is so far, and a future of the end, which is waited for."""
        made, lock = Calls(), threading.Lock()
        numbers = iter(range(calls))

        def another() -> bool:
            with lock:
                return time.monotonic() < until and next(numbers, None) is not None

        def work() -> None:
            parts = urlsplit(self._request.url)
            with closing(HTTPConnection(parts.netloc, timeout=self._timeout)) as connection:
                while another():
                    began = time.perf_counter()
                    try:
                        call_id = self._ask(connection)
                    except _NotAnswered as error:
                        kind, broken = str(error), False
                    except TimeoutError:
                        kind, broken = "timed out", True
                    except (OSError, HTTPException):
                        kind, broken = "disconnected", True
                    else:
                        with lock:
                            made.call_ids.append(call_id)
                            made.durations.append(time.perf_counter() - began)
                        continue
                    with lock:
                        made.failed[kind] += 1
                    if broken:
                        connection.close()  # the next request opens it again
                        if break_off:
                            return

        def everybody() -> None:
            began = time.perf_counter()
            with ThreadPoolExecutor(self._at_a_time) as pool:
                for done in [pool.submit(work) for _ in range(self._at_a_time)]:
                    done.result()
            made.seconds = time.perf_counter() - began

        with ThreadPoolExecutor(1) as background:
            end = background.submit(everybody)
            yield made, end
            end.result()

    def _ask(self, connection: HTTPConnection) -> str:
        connection.request("POST", urlsplit(self._request.url).path, self._body, self._headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise _NotAnswered(f"HTTP {answer.status}")
        if self._request.expected not in body:
            raise _NotAnswered("unexpected answer")
        call_id = answer.headers[CALL_ID]
        if not call_id:
            raise _NotAnswered(f"an answer without {CALL_ID}")
        return call_id
