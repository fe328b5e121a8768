"""Sampling parameters: the checks a vLLM engine makes, with its messages, and what they mean for decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mock_vllm import structured
from mock_vllm.decoding import StopRule, decode
from mock_vllm.engine import Job, Sequence
from mock_vllm.errors import bad_parameter, bad_request
from mock_vllm.prompt import Prompt
from mock_vllm.settings import Settings
from mock_vllm.tokenizer import VOCABULARY_SIZE
from mock_vllm.writer import derive_seed, prose

MAX_LOGPROBS = 20
_MAX_CHOICES = 16384
_GREEDY_BELOW = 1e-5


@dataclass(frozen=True, slots=True)
class Sampling:
    """Checked parameters. `max_tokens` None leaves room for as much as the context holds."""

    n: int
    max_tokens: int | None
    min_tokens: int
    temperature: float
    seed: int | None
    ignore_eos: bool
    stop: tuple[str, ...]
    stop_token_ids: frozenset[int]
    include_stop: bool
    constraint: structured.Constraint | None

    @property
    def greedy(self) -> bool:
        return self.temperature < _GREEDY_BELOW


def read_sampling(body: dict[str, Any], max_tokens: int | None, logprobs: int | None) -> Sampling:
    """From a body whose types were checked; raises the 400 that vLLM's engine would."""
    n = _given(body, "n", 1)
    temperature = float(_given(body, "temperature", 1.0))
    min_tokens = body.get("min_tokens", 0)
    if n < 1:
        raise bad_request(f"n must be at least 1, got {n}.")
    if n > _MAX_CHOICES:
        raise bad_request(
            f"n must be at most {_MAX_CHOICES}, got {n}. "
            "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
        )
    _check_ranges(body, temperature)
    if max_tokens is not None and max_tokens < 1:
        raise bad_parameter(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if min_tokens < 0:
        raise bad_request(f"min_tokens must be greater than or equal to 0, got {min_tokens}.")
    if max_tokens is not None and min_tokens > max_tokens:
        raise bad_request(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}.")
    _check_logprobs(logprobs)
    stop = body.get("stop")
    stop = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if "" in stop:
        raise bad_request("stop cannot contain an empty string.")
    sampling = Sampling(
        n=n,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=temperature,
        seed=body.get("seed"),
        ignore_eos=body.get("ignore_eos", False),
        stop=stop,
        stop_token_ids=frozenset(body.get("stop_token_ids") or ()),
        include_stop=body.get("include_stop_str_in_output", False),
        constraint=structured.constraint_of(body),
    )
    if sampling.greedy and n > 1:
        raise bad_request(f"n must be 1 when using greedy sampling, got {n}.")
    return sampling


def check_length(prompt: Prompt, max_tokens: int | None, max_model_len: int) -> None:
    """Raises the 400 for a prompt, or a prompt and its answer, that the context cannot hold.

    `max_tokens` None means that any answer will do, and every answer has a token; 0 is for pooling.
    """
    if max_tokens is not None and max_tokens > max_model_len:
        raise bad_parameter(
            f"max_tokens={max_tokens} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens.",
            "max_tokens",
            max_tokens,
        )
    wanted = 1 if max_tokens is None else max(max_tokens, 0)
    longest = max_model_len - wanted
    if len(prompt) <= longest:
        return
    # vLLM stops counting one token past the limit, hence "at least".
    limit = f"This model's maximum context length is {max_model_len} tokens. However, "
    if len(prompt) > max_model_len:
        raise bad_parameter(
            f"{limit}your prompt contains at least {max_model_len + 1} input tokens, which exceeds this limit "
            "even without any output tokens. Please reduce the length of the input prompt.",
            "input_tokens",
            max_model_len + 1,
        )
    raise bad_parameter(
        f"{limit}you requested {wanted} output tokens and your prompt contains at least {longest + 1} input "
        f"tokens, for a total of at least {wanted + longest + 1} tokens. Please reduce the length of the input "
        "prompt or the number of requested output tokens.",
        "input_tokens",
        longest + 1,
    )


def make_job(prompts: list[Prompt], sampling: Sampling, settings: Settings) -> Job:
    """The sequences of one request, every token of which is decided here, before time comes in."""
    sequences: list[Sequence] = []
    for prompt in prompts:
        text = prompt.text
        room = settings.max_model_len - len(prompt)
        max_tokens = room if sampling.max_tokens is None else sampling.max_tokens
        rule = StopRule(
            max_tokens=max_tokens,
            min_tokens=sampling.min_tokens,
            strings=sampling.stop,
            token_ids=sampling.stop_token_ids,
            include_string=sampling.include_stop,
        )
        for choice in range(sampling.n):
            # Greedy decoding has no use for a seed, so giving one must not change the answer.
            drawn = () if sampling.greedy else (sampling.seed, choice)
            seed = derive_seed("answer", settings.seed, text, *drawn)
            if sampling.constraint is not None:
                pieces = iter(structured.constrained_text(seed, sampling.constraint))
            else:
                pieces = prose(seed, prompt.subject, sampling.min_tokens, sampling.ignore_eos)
            sequences.append(Sequence(len(sequences), prompt, decode(pieces, rule), max_tokens))
    latency_seed = derive_seed("latency", settings.seed, *(prompt.text for prompt in prompts), sampling.seed)
    return Job(sequences, sampling.n, latency_seed)


def pooling_job(prompts: list[Prompt], settings: Settings) -> Job:
    """The same for embeddings: prompts are read and nothing is generated."""
    sequences = [Sequence(index, prompt, iter(()), 0) for index, prompt in enumerate(prompts)]
    return Job(sequences, 1, derive_seed("latency", settings.seed, *(prompt.text for prompt in prompts)))


def _check_ranges(body: dict[str, Any], temperature: float) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        value = float(_given(body, name, 0.0))
        if not -2.0 <= value <= 2.0:
            raise bad_request(f"{name} must be in [-2, 2], got {value}.")
    penalty = float(_given(body, "repetition_penalty", 1.0))
    if not penalty > 0.0:
        raise bad_request(f"repetition_penalty must be greater than zero, got {penalty}.")
    if not math.isfinite(temperature):
        raise bad_parameter(f"temperature must be a finite number, got {temperature}.", "temperature", temperature)
    if temperature < 0.0:
        raise bad_parameter(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if temperature > 2.0:
        raise bad_parameter(f"temperature must be in [0, 2], got {temperature}.", "temperature", temperature)
    top_p = float(_given(body, "top_p", 1.0))
    if not 0.0 < top_p <= 1.0:
        raise bad_parameter(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    top_k = _given(body, "top_k", 0)
    if top_k < -1:
        raise bad_request(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    min_p = float(_given(body, "min_p", 0.0))
    if not 0.0 <= min_p <= 1.0:
        raise bad_request(f"min_p must be in [0, 1], got {min_p}.")


def _check_logprobs(logprobs: int | None) -> None:
    if logprobs is None:
        return
    wanted = VOCABULARY_SIZE if logprobs == -1 else logprobs
    if wanted > MAX_LOGPROBS:
        raise bad_parameter(
            f"Requested sample logprobs of {wanted}, which is greater than max allowed: {MAX_LOGPROBS}",
            "logprobs",
            wanted,
        )


def _given(body: dict[str, Any], name: str, default: Any) -> Any:
    value = body.get(name)
    return default if value is None else value
