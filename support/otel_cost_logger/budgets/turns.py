"""Who waits for the same thing waits in line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Turns:
    """One at a time per key, in the order of arrival. For the tasks of one event loop."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, tuple[asyncio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """It is this task's turn within; nothing is kept of a key that nobody waits for."""
        lock, waiting = self._lines.setdefault(key, (asyncio.Lock(), []))
        waiting.append(None)
        try:
            async with lock:
                yield
        finally:
            waiting.pop()
            if not waiting:
                del self._lines[key]
