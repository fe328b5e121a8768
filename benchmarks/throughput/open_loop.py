"""An open loop: callers who come when they come, however slow the answers are.

Each request has an intended time, drawn from a Poisson process before anything is sent, and every latency counts from
there. A client that counts from when it got around to sending would be kind to a server that makes it wait (coordinated
omission). How late this client itself was is told too: where that is not small beside the latency, it was measured.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.streams import Answer, MakeRequest, ask


@dataclass(frozen=True)
class Arrival:
    """One request. Times are in seconds since the loop began; ``answer`` is a text where it failed."""

    intended: float
    sent: float
    answer: Answer | str

    @property
    def late(self) -> float:
        """How long after its time it was sent, in seconds."""
        return self.sent - self.intended

    def latency(self) -> float | None:
        """Seconds from the intended time to the last token; None for a request that failed."""
        return None if isinstance(self.answer, str) else self.late + self.answer.last_token

    def first_token(self) -> float | None:
        """Seconds from the intended time to the first token; None for a request that failed."""
        return None if isinstance(self.answer, str) else self.late + self.answer.first_token


def intended_times(rate: float, seconds: float, seed: int) -> list[float]:
    """The arrival times of a Poisson process of ``rate`` per second within ``seconds``; the same for the same seed."""
    draw = random.Random(seed)
    times, now = list[float](), draw.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += draw.expovariate(rate)
    return times


def open_loop(make: MakeRequest, times: Sequence[float], *, max_tokens: int, timeout: float = 60.0) -> list[Arrival]:
    """Send a request at each of ``times``, and return them all when the last is answered or ``timeout`` after it."""
    gc.collect()
    gc.disable()  # a collection of this process's heap would look like a stall of the server
    try:
        return asyncio.run(_all(make, times, max_tokens, timeout))
    finally:
        gc.enable()


async def _all(make: MakeRequest, times: Sequence[float], max_tokens: int, seconds: float) -> list[Arrival]:
    begun = time.perf_counter()

    async def one(number: int, intended: float) -> Arrival:
        request = make(number, max_tokens)
        await asyncio.sleep(begun + intended - time.perf_counter())
        sent = time.perf_counter() - begun
        return Arrival(intended, sent, await ask(request, max_tokens, seconds))

    return list(await asyncio.gather(*(one(number, intended) for number, intended in enumerate(times))))
