"""The prefix cache: whole blocks, in order from the start, the least recent out first."""

from __future__ import annotations

from mock_vllm.prefix_cache import PrefixCache


def words(count: int, first: int = 0) -> list[str]:
    return [f"w{number} " for number in range(first, first + count)]


def test_only_full_blocks_are_found_and_the_last_token_is_always_computed() -> None:
    cache = PrefixCache(100)
    assert cache.use(words(15)) == (0, 0)
    assert cache.use(words(15)) == (0, 0)
    assert cache.use(words(40)) == (0, 32)
    assert cache.use(words(40)) == (32, 0)
    assert cache.use(words(32)) == (16, 0)
    assert cache.use(words(33)) == (32, 0)


def test_a_block_counts_only_after_the_same_blocks() -> None:
    cache = PrefixCache(100)
    cache.use(words(33))
    assert cache.use(words(16, first=16) + words(16)) == (0, 32)


def test_the_least_recently_used_goes_first() -> None:
    cache = PrefixCache(3)
    cache.use(words(17))
    cache.use(words(17, first=100))
    cache.use(words(17))
    cache.use(words(33, first=200))
    assert cache.use(words(17)) == (16, 0)
    assert cache.use(words(17, first=100))[0] == 0
