"""What one call has made the engine count, as far as its record tells: a number, or bounds and the cause.

What counts what (vLLM 0.32, measured):

- ``usage.prompt_tokens`` counts the prompt once, the engine once per choice: a record is multiplied by its choices.
- ``usage...cached_tokens`` is that of one choice and of one prompt alone, so a call with several has bounds. Without
  ``--enable-prompt-tokens-details`` the engine does not tell it at all.
- A streamed completion whose caller hangs up has told its prompts one by one, so there may be more of them.
- An engine's own span stands for a finished request: one per choice and prompt, none for an aborted one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from otel_cost_logger.pricing import UNKNOWN_COST
from otel_cost_logger.record import (
    CLIENT_DISCONNECTED,
    MAY_HAVE_WORKED,
    SUCCESS,
    USAGE_CACHE,
    USAGE_ENGINE,
    USAGE_NONE,
)

# Causes: why the engine may have counted something else than the record says. The first three leave no doubt.
COMPLETED = "completed"
CACHED = "answered from the gateway's cache: nothing expected"
REFUSED_BY_GATEWAY = "refused by the gateway, never sent to the engine: nothing expected"
REFUSED_BY_ENGINE = "refused by the engine before it began: nothing expected"
REPEATED = "an attempt was repeated: what the failed attempts generated was not delivered"
GUESSED = "completed, but the gateway guessed the tokens"
UNCOUNTED = "completed, but nobody counted: what was generated is in no record"
ABANDONED = "caller hung up: tokens generated after the last delivered one"
ABANDONED_GUESSED = "caller hung up, and the gateway guessed the tokens"
ABANDONED_UNCOUNTED = "caller hung up, and nobody counted: what was generated is in no record"
FAILED = "failed in the engine or on the way to it: what was generated was not delivered"
FINISHED_UNSEEN = "not delivered in full, but finished by the engine: its own span has the tokens"

# The counters of `counters.ModelCounters` that a call is held against.
COUNTERS = (
    "prompt_tokens",
    "generation_tokens",
    "finished_prompt_tokens",
    "finished_generation_tokens",
    "cache_hits",
    "requests",
)

# Operations whose prompt may be a list of prompts, and nobody says how many.
_MANY_PROMPTS = ("text_completion", "embeddings")
_EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Range:
    """A count that is at least ``low`` and at most ``high``; None where no upper bound is known."""

    low: int
    high: int | None

    def __add__(self, other: Range) -> Range:
        high = None if self.high is None or other.high is None else self.high + other.high
        return Range(self.low + other.low, high)

    def __contains__(self, count: int) -> bool:
        return self.low <= count and (self.high is None or count <= self.high)

    def at_least(self, count: int) -> Range:
        """The same, where ``count`` is known to be in it."""
        return Range(max(self.low, count), self.high)


NOTHING = Range(0, 0)


def exactly(count: int) -> Range:
    """A count that is known."""
    return Range(count, count)


@dataclass(frozen=True, slots=True)
class Finished:
    """A call's finished requests as the engine's own spans tell them."""

    requests: int
    prompt_tokens: int
    generation_tokens: int


@dataclass(frozen=True, slots=True)
class Account:
    """One call: its record, what that says by counter, what the engine has counted by counter, and why they differ.

    ``finished`` are its engine spans, if there are any; ``agrees`` is False when they contradict the record.
    """

    call: Mapping[str, Any]
    cause: str
    recorded: Mapping[str, int]
    counted: Mapping[str, Range]
    finished: Finished | None = None
    agrees: bool = True

    @property
    def answered(self) -> bool:
        """True when the record has the engine's own final count."""
        return self.cause in (COMPLETED, REPEATED)


def account_of(call: Mapping[str, Any], context: int | None, finished: Finished | None) -> Account:
    """The account of ``call``, a row of `spans.read_ledger` with None for what is missing.

    ``context`` is the most tokens that one request can have, prompt included; None where it is not known.
    ``finished`` is what the engine's own spans say of it, None where there are none.
    """
    choices = _choices(call)
    prompt, generated = call["prompt_tokens"] * choices, call["completion_tokens"]
    cause = _cause(call)
    recorded = {"prompt_tokens": prompt, "generation_tokens": generated, "cache_hits": call["cached_tokens"] or 0}
    if cause == CACHED:
        recorded = {}  # those tokens are in the books of an earlier call
    most = _most(call, context)
    if cause in (COMPLETED, REPEATED):
        requests = max(choices, len(call["finish_reasons"] or ()))
        recorded |= {
            "finished_prompt_tokens": prompt,
            "finished_generation_tokens": generated,
            "requests": requests,
        }
        counted = {name: exactly(count) for name, count in recorded.items()}
        counted["cache_hits"] = _cache_hits(call, prompt)
        counted["requests"] = Range(requests, None if _many_prompts(call) else requests)
        most |= {"prompt_tokens": prompt, "finished_prompt_tokens": prompt, "cache_hits": prompt}
    elif cause in (CACHED, REFUSED_BY_GATEWAY, REFUSED_BY_ENGINE):
        counted = dict.fromkeys(COUNTERS, NOTHING)
    else:
        counted = {name: Range(0, most[name]) for name in COUNTERS}
        if cause == ABANDONED:
            counted["prompt_tokens"] = Range(prompt, None if _many_prompts(call) else prompt)
            room = most["generation_tokens"]
            counted["generation_tokens"] = Range(generated, None if room is None else max(room - prompt, generated))
    for _ in range((call["attempts"] or 1) - 1):  # whatever became of them
        counted = {name: counted[name] + Range(0, most[name]) for name in COUNTERS}
    account = Account(call, cause, {name: recorded.get(name, 0) for name in COUNTERS}, counted)
    return account if finished is None else _proven(account, finished)


def _cause(call: Mapping[str, Any]) -> str:
    status, source = call["error_status"], call["usage_source"]
    if source == USAGE_CACHE:
        return CACHED
    if call["outcome"] == SUCCESS:
        if source != USAGE_ENGINE:
            return UNCOUNTED if source == USAGE_NONE else GUESSED
        return COMPLETED if (call["attempts"] or 1) == 1 else REPEATED
    if call["outcome"] == CLIENT_DISCONNECTED:
        return {USAGE_ENGINE: ABANDONED, USAGE_NONE: ABANDONED_UNCOUNTED}.get(source, ABANDONED_GUESSED)
    if source != USAGE_NONE or call.get("cost_source") == UNKNOWN_COST:
        return FAILED
    if call["model_served"] is None:
        return REFUSED_BY_GATEWAY
    if status is not None and 400 <= status < 500 and status not in MAY_HAVE_WORKED:
        return REFUSED_BY_ENGINE
    return FAILED


def _most(call: Mapping[str, Any], context: int | None) -> dict[str, int | None]:
    """The most that one attempt of the call can have made the engine count, by counter."""
    many = _many_prompts(call)
    requests = None if many else _choices(call)
    tokens = None if many or context is None else context * _choices(call)
    most: dict[str, int | None] = dict.fromkeys(COUNTERS, tokens)
    most["requests"] = requests
    if call["operation"] == _EMBEDDINGS:
        most |= {"generation_tokens": 0, "finished_generation_tokens": 0}
    return most


def _cache_hits(call: Mapping[str, Any], prompt: int) -> Range:
    cached = call["cached_tokens"]
    if cached is not None and _choices(call) == 1 and not _many_prompts(call):
        return exactly(cached)
    return Range(cached or 0, prompt)


def _proven(account: Account, finished: Finished) -> Account:
    """``account`` with what the engine's own spans say of the call."""
    call, counted = account.call, dict(account.counted)
    once = (call["attempts"] or 1) == 1
    seen = {"prompt_tokens": finished.prompt_tokens, "generation_tokens": finished.generation_tokens}
    for name, count in seen.items():
        possible = counted[name] if account.answered else replace(counted[name], low=0)
        if count not in possible:
            return replace(account, finished=finished, agrees=False)
    whole = once and not account.answered and not _many_prompts(call) and finished.requests == _choices(call)
    for name, count in seen.items():
        for counter in (name, f"finished_{name}"):
            counted[counter] = exactly(count) if whole else counted[counter].at_least(count)
    counted["requests"] = exactly(finished.requests) if once else counted["requests"].at_least(finished.requests)
    return replace(account, counted=counted, finished=finished, cause=FINISHED_UNSEEN if whole else account.cause)


def _choices(call: Mapping[str, Any]) -> int:
    return call.get("choice_count") or 1


def _many_prompts(call: Mapping[str, Any]) -> bool:
    return call["operation"] in _MANY_PROMPTS
