"""Plausible log probabilities: the chosen token first, the runners-up below it, the same every time."""

from __future__ import annotations

import random
from typing import Any

from mock_vllm import phrases, tokenizer
from mock_vllm.prompt import Prompt
from mock_vllm.writer import derive_seed

_CANDIDATES = phrases.NOUNS + phrases.ADJECTIVES


def ranked(piece: str, position: int, count: int) -> list[tuple[str, float]]:
    """`count` tokens (at least one) with their natural-log probability, likeliest first; the first is `piece`."""
    rng = random.Random(derive_seed("logprobs", piece, position))
    logprob = -2.0 * rng.random()
    result = [(piece, logprob)]
    start = int(rng.random() * len(_CANDIDATES))
    for step in range(count - 1):
        logprob -= 0.1 + rng.random()
        # A step of four letters at most is one token, as every candidate must be.
        candidate = f" {_CANDIDATES[(start + step) % len(_CANDIDATES)][:4]}"
        result.append((candidate if candidate != piece else f"{candidate[:3]}{step % 10}", logprob))
    return result


def chat_entry(piece: str, position: int, top: int) -> dict[str, Any]:
    """One element of a chat choice's `logprobs.content`."""
    entries = [
        {"token": token, "logprob": logprob, "bytes": list(token.encode())}
        for token, logprob in ranked(piece, position, max(top, 1))
    ]
    return {**entries[0], "top_logprobs": entries[:top]}


def prompt_entries(prompt: Prompt, top: int) -> list[dict[str, Any] | None]:
    """`prompt_logprobs`: per token the token itself and the likeliest `top`, by id; nothing for the first."""
    entries: list[dict[str, Any] | None] = [None]
    for position, piece in enumerate(prompt.pieces[1:], 1):
        candidates = ranked(piece, position, max(top, 1))
        entries.append(
            {
                str(tokenizer.token_id(token)): {"logprob": logprob, "rank": rank, "decoded_token": token}
                for rank, (token, logprob) in enumerate(candidates, 1)
            }
        )
    return entries


def completion_block(pieces: list[str], first_position: int, top: int, text_offset: int) -> dict[str, Any]:
    """A text completion choice's `logprobs`: four lists, one element per token."""
    offsets: list[int] = []
    chosen: list[float] = []
    alternatives: list[dict[str, float]] = []
    for number, piece in enumerate(pieces):
        offsets.append(text_offset)
        text_offset += len(piece)
        candidates = ranked(piece, first_position + number, max(top, 1))
        chosen.append(candidates[0][1])
        alternatives.append(dict(candidates))
    return {
        "text_offset": offsets,
        "token_logprobs": chosen,
        "tokens": pieces,
        "top_logprobs": alternatives,
    }
