"""Sampling parameters: the checks a vLLM engine makes, with its messages, and what they mean for decoding."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from mock_vllm import structured
from mock_vllm.decoding import StopRule, decode
from mock_vllm.engine import Job, Sequence
from mock_vllm.errors import bad_parameter, bad_request, refused
from mock_vllm.prompt import Prompt
from mock_vllm.settings import Settings
from mock_vllm.tokenizer import VOCABULARY_SIZE
from mock_vllm.writer import derive_seed, prose

MAX_LOGPROBS = 20
_MAX_CHOICES = 16384
_GREEDY_BELOW = 1e-5

# Of the vocabulary in the recordings. The mock's own tokens are shorter.
_MOST_CHARACTERS_PER_TOKEN = 93


@dataclass(frozen=True, slots=True)
class Sampling:
    """Checked parameters."""

    n: int
    min_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    ignore_eos: bool
    stop: tuple[str, ...]
    stop_token_ids: frozenset[int]
    include_stop: bool
    constraint: structured.Constraint | None
    tool: dict[str, Any] | None

    @property
    def greedy(self) -> bool:
        return self.temperature < _GREEDY_BELOW


def read_sampling(
    body: dict[str, Any], max_tokens: int, logprobs: int | None, tool: dict[str, Any] | None = None
) -> Sampling:
    """From a body whose types were checked, and the function that must be called if one must be.

    Raises the 400 that vLLM's API server would, then the one that its engine would.
    """
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
    if max_tokens < 1:
        raise bad_parameter(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if min_tokens < 0:
        raise bad_request(f"min_tokens must be greater than or equal to 0, got {min_tokens}.")
    if min_tokens > max_tokens:
        raise bad_request(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}.")
    stop = body.get("stop")
    stop = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if "" in stop:
        raise bad_request("stop cannot contain an empty string.")
    bad_words = body.get("bad_words") or []
    if "" in bad_words:
        raise bad_request(f"bad_words cannot contain an empty string. Got bad_words={bad_words}")
    _check_logit_bias(body.get("logit_bias") or {})
    constraint = structured.constraint_of(body)
    sampling = Sampling(
        n=n,
        min_tokens=min_tokens,
        temperature=temperature,
        # Greedy decoding has no use for it, and vLLM forgets what was asked.
        top_p=1.0 if temperature < _GREEDY_BELOW else float(_given(body, "top_p", 1.0)),
        seed=body.get("seed"),
        ignore_eos=body.get("ignore_eos", False),
        stop=stop,
        stop_token_ids=frozenset(body.get("stop_token_ids") or ()),
        include_stop=body.get("include_stop_str_in_output", False),
        constraint=constraint,
        tool=tool,
    )
    if sampling.greedy and n > 1:
        raise bad_request(f"n must be 1 when using greedy sampling, got {n}.")
    _check_engine(body, logprobs)
    if constraint is not None:
        structured.check(constraint)
    return sampling


def checked_length(prompt: Prompt, max_tokens: int | None, max_model_len: int, limit: str = "max_tokens") -> int:
    """The output tokens that the context has room for, of those asked for: vLLM cuts what is asked for down to it.

    Raises the 400 for a prompt that the context cannot hold, and for more output than any prompt would allow.
    `max_tokens` None means that any answer will do; `limit` is the request's own name for it.
    """
    if max_tokens is not None and max_tokens > max_model_len:
        raise bad_parameter(
            f"{limit}={max_tokens} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens.",
            limit,
            max_tokens,
        )
    check_prompt(prompt, max_model_len)
    room = max_model_len - len(prompt)
    return room if max_tokens is None else min(max_tokens, room)


def check_prompt(prompt: Prompt, max_model_len: int) -> None:
    """Raises the 400 for a prompt that the context cannot hold. A very long one is counted in characters."""
    start = f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains"
    end = "Please reduce the length of the input prompt."
    if len(prompt) <= max_model_len:
        return
    most, characters = max_model_len * _MOST_CHARACTERS_PER_TOKEN, prompt.characters
    if characters > most and not prompt.as_ids:
        raise bad_parameter(
            f"{start} {characters} characters (more than {most} characters, which is the upper bound for "
            f"{max_model_len} input tokens). {end}",
            "input_text",
            characters,
        )
    # vLLM stops counting a text one token past the limit, hence "at least".
    count = len(prompt) if prompt.as_ids else max_model_len + 1
    raise bad_parameter(
        f"{start} {'' if prompt.as_ids else 'at least '}{count} input tokens, which exceeds this limit even without "
        f"any output tokens. {end}",
        "input_tokens",
        count,
    )


def make_job(prompts: list[Prompt], max_tokens: list[int], sampling: Sampling, settings: Settings) -> Job:
    """The sequences of one request, every token of which is decided here, before time comes in.

    `max_tokens` is the most that each prompt's answers may have.
    """
    sequences: list[Sequence] = []
    for prompt, most in zip(prompts, max_tokens, strict=True):
        text = prompt.text
        rule = StopRule(
            max_tokens=most,
            min_tokens=sampling.min_tokens,
            strings=sampling.stop,
            token_ids=sampling.stop_token_ids,
            include_string=sampling.include_stop,
        )
        for choice in range(sampling.n):
            # Greedy decoding has no use for a seed, so giving one must not change the answer.
            drawn = () if sampling.greedy else (sampling.seed, choice)
            seed = derive_seed("answer", settings.seed, text, *drawn)
            if sampling.tool is not None:
                pieces = iter(structured.tool_call(seed, sampling.tool))
            elif sampling.constraint is not None:
                pieces = iter(structured.constrained_text(seed, sampling.constraint))
            else:
                pieces = prose(seed, prompt.subject, sampling.min_tokens, sampling.ignore_eos)
            sequences.append(Sequence(len(sequences), prompt, decode(pieces, rule), most))
    latency_seed = derive_seed("latency", settings.seed, *(prompt.text for prompt in prompts), sampling.seed)
    return Job(sequences, sampling.n, latency_seed, temperature=sampling.temperature, top_p=sampling.top_p)


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


def _check_logit_bias(bias: dict[str, float]) -> None:
    keys = [key for key in bias if not re.fullmatch(r"\s*[-+]?\d+\s*", key)]
    if keys:
        raise bad_parameter(
            f"logit_bias contains key(s) that cannot be converted to integer token IDs: {keys}", "logit_bias", keys
        )


def _check_engine(body: dict[str, Any], logprobs: int | None) -> None:
    """What the API server passes on and the engine refuses."""
    for name, what, wanted in (
        ("logprobs", "sample", logprobs),
        ("prompt_logprobs", "prompt", body.get("prompt_logprobs")),
    ):
        wanted = VOCABULARY_SIZE if wanted == -1 else wanted
        if wanted is not None and wanted > MAX_LOGPROBS:
            raise refused(
                f"Requested {what} logprobs of {wanted}, which is greater than max allowed: {MAX_LOGPROBS}",
                name,
                wanted,
            )
    _check_vocabulary("stop_token_ids", body.get("stop_token_ids") or [])
    _check_vocabulary("logit_bias", [int(key) for key in body.get("logit_bias") or {}])
    allowed = body.get("allowed_token_ids")
    if allowed is not None and not allowed:
        raise refused("allowed_token_ids is not None and empty!", "allowed_token_ids", allowed)
    if allowed and not all(0 <= number < VOCABULARY_SIZE for number in allowed):
        raise refused("allowed_token_ids contains out-of-vocab token id!", "allowed_token_ids", allowed)
    if body.get("thinking_token_budget") not in (None, -1):
        raise refused(
            "thinking_token_budget is set but reasoning_config is not configured. Please set --reasoning-parser "
            "and/or --reasoning-config to use thinking_token_budget."
        )


def _check_vocabulary(name: str, numbers: list[int]) -> None:
    strangers = [number for number in numbers if not 0 <= number < VOCABULARY_SIZE]
    if strangers:
        raise refused(
            f"token_id(s) {strangers} in {name} contain out-of-vocab token ids. Vocabulary size: {VOCABULARY_SIZE}",
            name,
            strangers,
        )


def _given(body: dict[str, Any], name: str, default: Any) -> Any:
    value = body.get(name)
    return default if value is None else value
