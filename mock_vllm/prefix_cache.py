"""Which prompt tokens an engine with automatic prefix caching would not compute again."""

from __future__ import annotations

import itertools
from collections import OrderedDict

BLOCK_SIZE = 16


class PrefixCache:
    """Full blocks of 16 tokens, found by their content and everything before them, least recent out first.

    As in vLLM the last token is always computed, so a prompt that is wholly cached still misses its last
    block when it ends on a block boundary.
    """

    def __init__(self, capacity_blocks: int) -> None:
        self._capacity = capacity_blocks
        self._numbers = itertools.count(1)
        # (number of the block before, tokens) -> number of this block
        self._blocks: OrderedDict[tuple[int, str], int] = OrderedDict()

    def use(self, pieces: list[str]) -> tuple[int, int]:
        """Store a prompt's full blocks; returns the leading tokens found, and the tokens newly stored."""
        usable = (len(pieces) - 1) // BLOCK_SIZE
        hits = created = parent = 0
        for index in range(len(pieces) // BLOCK_SIZE):
            key = (parent, "".join(pieces[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]))
            block = self._blocks.get(key)
            if block is None:
                block = self._blocks[key] = next(self._numbers)
                created += 1
            else:
                self._blocks.move_to_end(key)
                hits += index < usable
            parent = block
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return hits * BLOCK_SIZE, created * BLOCK_SIZE
