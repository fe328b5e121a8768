"""Runs sequences through time: queueing, the prefix cache, the latency model, the counters, and aborts."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mock_vllm.connection import Client
from mock_vllm.decoding import Token
from mock_vllm.errors import EngineDead, queue_full
from mock_vllm.metrics import EngineMetrics
from mock_vllm.prefix_cache import BLOCK_SIZE, PrefixCache
from mock_vllm.prompt import Prompt
from mock_vllm.settings import Settings

# 8192 blocks of 16 tokens, about what a 7B model leaves on a 24 GB device.
CACHE_BLOCKS = 8192

# Without a latency model, how many steps a job makes before others have their turn and before it is looked
# whether its client is still there. A turn costs more than a step.
_STEPS_BETWEEN_TURNS = 16


@dataclass(slots=True)
class Sequence:
    """One choice in the making. `tokens` ends with the token that has a finish reason; pooling has none."""

    index: int
    prompt: Prompt
    tokens: Iterator[Token]
    max_tokens: int
    cached_tokens: int = 0
    created_cache_tokens: int = 0
    generated: int = 0
    finish_reason: str | None = None


@dataclass(slots=True)
class Timing:
    """Moments in seconds of `time.monotonic`, filled while the job runs."""

    arrived: float = 0.0
    scheduled: float = 0.0
    first_token: float = 0.0
    finished: float = 0.0


@dataclass(slots=True)
class Job:
    """What one HTTP request asks of the engine: `choices_per_prompt` sequences for each prompt, in order."""

    sequences: list[Sequence]
    choices_per_prompt: int
    latency_seed: int
    timing: Timing = field(default_factory=Timing)
    # What a span tells of a request: an id per prompt, and the sampling parameters (0 for greedy).
    request_ids: list[str] = field(default_factory=list)
    temperature: float = 0.0
    top_p: float = 1.0
    trace_headers: dict[str, str] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens as `usage` counts them: once per prompt, however many choices it has."""
        return sum(len(sequence.prompt) for sequence in self.sequences[:: self.choices_per_prompt])

    @property
    def completion_tokens(self) -> int:
        return sum(sequence.generated for sequence in self.sequences)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the first choice of each prompt found in the prefix cache."""
        return sum(sequence.cached_tokens for sequence in self.sequences[:: self.choices_per_prompt])

    @property
    def created_cache_tokens(self) -> int:
        """Prompt tokens that the first choice of each prompt added to the prefix cache."""
        return sum(sequence.created_cache_tokens for sequence in self.sequences[:: self.choices_per_prompt])


class Engine:
    """One engine core. Everything happens on the event loop, so nothing needs a lock."""

    def __init__(self, settings: Settings, finished: Callable[[Job], None] | None = None) -> None:
        """`finished` is called with each job that came to its end."""
        self._settings = settings
        self._finished = finished
        self._frozen = False
        self._died: float | None = None
        self._cache = PrefixCache(CACHE_BLOCKS)
        self._running: dict[int, Sequence] = {}
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._in_flight = 0
        self._slots_held = 0
        self.metrics = EngineMetrics(settings, CACHE_BLOCKS, self._kv_cache_usage)

    @property
    def dead(self) -> bool:
        return self._died is not None

    def dead_for(self, seconds: float) -> bool:
        return self._died is not None and time.monotonic() - self._died > seconds

    def crash(self) -> None:
        """Die: whatever is under way ends with an error, and nothing is taken any more."""
        self._died = time.monotonic()

    def freeze(self) -> None:
        """Make no more tokens, and tell nobody: whatever is under way waits until its client gives up."""
        self._frozen = True

    @property
    def in_flight(self) -> int:
        """Sequences running and waiting."""
        return self._in_flight

    def check_admission(self, sequences: int) -> None:
        """Raises the 503 of `--max-num-queued-reqs`, which counts running and waiting sequences alike."""
        if self.dead:
            raise EngineDead()
        limit = self._settings.max_num_queued_reqs
        if limit is not None and self._in_flight + sequences > limit:
            self.metrics.admission_rejections.inc()
            raise queue_full()

    async def generate(self, job: Job, client: Client) -> AsyncGenerator[tuple[Sequence, Token], None]:
        """Tokens of all sequences, one of each in turn, as they come.

        Raises `ClientDisconnected`, and the `EngineDead` of an engine that died. Closing the generator, or the
        client going, aborts: what was generated stays counted as tokens, but not as a request.
        """
        job.timing.arrived = time.monotonic()
        self._in_flight += len(job.sequences)
        try:
            with self._slots(len(job.sequences)) as admitted:
                if admitted is not None:
                    await client.wait_for(admitted)
                async for item in self._run(job, client):
                    yield item
        finally:
            self._in_flight -= len(job.sequences)

    async def _run(self, job: Job, client: Client) -> AsyncGenerator[tuple[Sequence, Token], None]:
        latency, timing = self._settings.latency, job.timing
        rng = random.Random(job.latency_seed) if latency.jitter else None
        timing.scheduled = time.monotonic()
        active = list(job.sequences)
        for sequence in active:
            self._running[id(sequence)] = sequence
        self.metrics.running.inc(len(active))
        try:
            for sequence in active:
                sequence.cached_tokens, sequence.created_cache_tokens = self._cache.use(sequence.prompt.pieces)
                self.metrics.prefix_queries.inc(len(sequence.prompt))
                self.metrics.prefix_hits.inc(sequence.cached_tokens)
            # Delays add up from a fixed start, so that a late wake-up does not make all later tokens late.
            due = timing.scheduled
            previous = 0.0
            steps = 1
            while active:
                others = len(self._running) - len(job.sequences)
                draw = rng.random() if rng else 0.5
                if previous:
                    due += latency.next_token_seconds(others, draw)
                else:
                    due += latency.first_token_seconds(others, draw)
                delay = due - time.monotonic()
                if delay > 0 or steps % _STEPS_BETWEEN_TURNS == 0:
                    await client.pause(delay)
                    if self._frozen:
                        await client.until_gone()
                    if self._died is not None:
                        raise EngineDead()
                steps += 1
                now = time.monotonic()
                if not previous:
                    timing.first_token = now
                    self._count_prefill(job)
                for sequence in active:
                    token = next(sequence.tokens, None)
                    if token is None:
                        sequence.finish_reason = "stop"
                        continue
                    sequence.generated += 1
                    sequence.finish_reason = token.finish_reason
                    self._count_token(sequence, now - previous if previous else None)
                    yield sequence, token
                previous = now
                active = [sequence for sequence in active if sequence.finish_reason is None]
            timing.finished = time.monotonic()
            self._count_finished(job)
            if self._finished is not None:
                self._finished(job)
        finally:
            for sequence in job.sequences:
                del self._running[id(sequence)]
            self.metrics.running.dec(len(job.sequences))

    @contextmanager
    def _slots(self, count: int) -> Iterator[asyncio.Future[None] | None]:
        """Hold `count` slots, first come first served; yields what to wait for, or None when there is room.

        A job larger than `--max-num-seqs` runs alone: its sequences share one schedule.
        """
        admitted: asyncio.Future[None] | None = None
        if self._queue or not self._has_room(count):
            admitted = asyncio.get_running_loop().create_future()
            self._queue.append((count, admitted))
            self._count_waiting(count)
        else:
            self._slots_held += count
        try:
            yield admitted
        finally:
            if admitted is None or admitted.done():
                self._slots_held -= count
                self._admit_waiting()
            else:
                self._queue.remove((count, admitted))
                self._count_waiting(-count)

    def _has_room(self, count: int) -> bool:
        return not self._slots_held or self._slots_held + count <= self._settings.max_num_seqs

    def _admit_waiting(self) -> None:
        while self._queue and self._has_room(self._queue[0][0]):
            count, future = self._queue.popleft()
            self._slots_held += count
            self._count_waiting(-count)
            future.set_result(None)

    def _count_waiting(self, change: int) -> None:
        self.metrics.waiting.inc(change)
        self.metrics.waiting_by_reason["capacity"].inc(change)

    def _count_prefill(self, job: Job) -> None:
        metrics, timing = self.metrics, job.timing
        for sequence in job.sequences:
            tokens, cached = len(sequence.prompt), sequence.cached_tokens
            metrics.prompt_tokens.inc(tokens)
            metrics.prompt_tokens_by_source["local_compute"].inc(tokens - cached)
            metrics.prompt_tokens_by_source["local_cache_hit"].inc(cached)
            metrics.prompt_tokens_cached.inc(cached)
            metrics.prompt_tokens_cached_by_source["device"].inc(cached)
            metrics.time_to_first_token.observe(timing.first_token - timing.arrived)

    def _count_token(self, sequence: Sequence, interval: float | None) -> None:
        self.metrics.generation_tokens.inc()
        if interval is None:
            self.metrics.iteration_tokens.observe(len(sequence.prompt) + 1)
        else:
            self.metrics.iteration_tokens.observe(1)
            self.metrics.inter_token_latency.observe(interval)

    def _count_finished(self, job: Job) -> None:
        metrics, timing = self.metrics, job.timing
        decode = timing.finished - timing.first_token
        for sequence in job.sequences:
            metrics.request_success[sequence.finish_reason or "stop"].inc()
            metrics.request_prompt_tokens.observe(len(sequence.prompt))
            metrics.request_generation_tokens.observe(sequence.generated)
            metrics.request_params_max_tokens.observe(sequence.max_tokens)
            metrics.time_per_output_token.observe(decode / max(1, sequence.generated - 1))
            metrics.e2e_latency.observe(timing.finished - timing.arrived)
            metrics.queue_time.observe(timing.scheduled - timing.arrived)
            metrics.inference_time.observe(timing.finished - timing.scheduled)
            metrics.prefill_time.observe(timing.first_token - timing.scheduled)
            metrics.decode_time.observe(decode)
            metrics.preemptions.observe(0)
            metrics.prefill_computed_tokens.observe(len(sequence.prompt) - sequence.cached_tokens)
        for first in range(0, len(job.sequences), job.choices_per_prompt):
            choices = job.sequences[first : first + job.choices_per_prompt]
            metrics.request_params_n.observe(job.choices_per_prompt)
            metrics.request_max_generation_tokens.observe(max(choice.generated for choice in choices))

    def _kv_cache_usage(self) -> float:
        """Share of the blocks that running sequences hold, in [0, 1]."""
        held = sum(-(-(len(sequence.prompt) + sequence.generated) // BLOCK_SIZE) for sequence in self._running.values())
        return min(1.0, held / CACHE_BLOCKS)
