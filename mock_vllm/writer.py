"""Deterministic prose: from a prompt and a seed to an endless or a naturally ending run of tokens."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence

from mock_vllm import phrases, tokenizer

_WORDS = re.compile(r"[A-Za-z][a-z]{3,}")
_SUBJECT_CHARACTERS = 2000
_MOST_SENTENCES = 7


def derive_seed(*parts: object) -> int:
    """A 64-bit seed from the `str` of each part: the same on every platform, whatever PYTHONHASHSEED is."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def prose(seed: int, subject: str, min_tokens: int = 0, ignore_eos: bool = False) -> Iterator[str]:
    """Tokens of one to seven sentences about the subject, then `tokenizer.EOS`.

    The end waits for `min_tokens` tokens, and with `ignore_eos` never comes, as in vLLM.
    """
    rng = random.Random(seed)
    topics = _topics(subject)
    length = 1 + int(rng.random() * _MOST_SENTENCES)
    made = number = 0
    while ignore_eos or number < length or made < min_tokens:
        choices: Sequence[str] = phrases.SENTENCES
        if number == 0:
            choices = phrases.OPENINGS
        elif number == length - 1:
            choices = phrases.CLOSINGS
        sentence = _fill(rng, _draw(rng, choices), topics)
        for piece in tokenizer.pieces(sentence if number == 0 else f" {sentence}"):
            made += 1
            yield piece
        number += 1
    yield tokenizer.EOS


def _fill(rng: random.Random, template: str, topics: Sequence[str]) -> str:
    return template.format(
        topic=_draw(rng, topics),
        noun=_draw(rng, phrases.NOUNS),
        noun2=_draw(rng, phrases.NOUNS),
        adjective=_draw(rng, phrases.ADJECTIVES),
        adjective2=_draw(rng, phrases.ADJECTIVES),
        verb=_draw(rng, phrases.VERBS),
    )


def _topics(subject: str) -> Sequence[str]:
    words = _WORDS.findall(subject[-_SUBJECT_CHARACTERS:])
    return [word for word in words if word.lower() not in phrases.COMMON_WORDS] or ("this",)


def _draw(rng: random.Random, choices: Sequence[str]) -> str:
    # random() alone is promised to give the same sequence in every Python version.
    return choices[int(rng.random() * len(choices))]
