"""What a call may cost at most, from its request and before it is dispatched.

Each prompt token takes at least one byte of the request, so its bytes bound the prompt; what a chat template or the
engine adds has an allowance. The answer is bounded by what the request allows, else by what its deployment declares
(``max_tokens`` in ``litellm_params``, ``max_output_tokens`` or ``max_tokens`` in ``model_info``), else by
`DEFAULT_OUTPUT_TOKENS`. Not bounded are images and files that a request only names by address.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from otel_cost_logger.deployments import router, served_name, serving
from otel_cost_logger.prices.book import PriceBook
from otel_cost_logger.prices.price import Price
from otel_cost_logger.pricing import price_for

DEFAULT_OUTPUT_TOKENS = 4096
_TEMPLATE_TOKENS = 256  # for what stands around the messages: system prompts and tool instructions of a chat template
_PART_TOKENS = 8  # for what stands around one message or another part
# What may become part of the prompt. ``extra_body`` is merged into the request to the engine, whatever is in it.
_PROMPT_FIELDS = (
    *("messages", "prompt", "input", "system", "instructions", "suffix", "tools", "functions", "response_format"),
    *("documents", "chat_template", "chat_template_kwargs", "guided_json", "structured_outputs", "text", "extra_body"),
    *("query", "text_1", "text_2", "contents", "systemInstruction"),
)
_OUTPUT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_CHOICE_FIELDS = ("n", "best_of")
_FALLBACK_FIELDS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks")
_MAX_TOKENS = 10**9  # no engine has a longer context
_OFFER_SECONDS = 1.0
_REMEMBERED = 1000  # model names
MAX_BOUND = 10**17  # nano-USD, more than any budget: whoever asks for so much goes alone


@dataclass(frozen=True, slots=True)
class _Offer:
    """A deployment's price, the most tokens that it declares for an answer, and what it generates when nobody asks."""

    price: Price
    declared: int | None
    unasked: int


class Bounds:
    """Tells what calls may cost at most. ``book`` gives the price book in force, where there is one."""

    def __init__(self, book: Callable[[], PriceBook | None]) -> None:
        self._book = book
        self._offers: dict[str, tuple[float, list[_Offer]]] = {}  # for a second: looking them up is the larger part

    def of(self, request: Mapping[str, Any], *, with_output: bool) -> int:
        """The most that the call may cost, in billionths of a US dollar, at the dearest of the deployments that may
        serve it; 0 when none has a price.

        ``request`` is the proxy's request data. ``with_output`` is False for calls that generate no token.
        """
        body = _merged(request)
        prompt = _TEMPLATE_TOKENS + sum(_tokens_in(body.get(field)) for field in _PROMPT_FIELDS)
        answers = sequences(body) if with_output else 0
        asked = [number for field in _OUTPUT_FIELDS if (number := _number(body.get(field))) is not None]
        bounds = [0]
        for offer in self._offers_for(str(request.get("model")), request):
            output = max(asked) if asked else offer.unasked
            # What the model can do at all limits what a request may ask for.
            output = output if offer.declared is None else min(output, offer.declared)
            bounds.append(offer.price.nano_usd(prompt, answers * output))
        return min(max(bounds), MAX_BOUND)

    def _offers_for(self, model: str, request: Mapping[str, Any]) -> list[_Offer]:
        now = time.monotonic()
        if any(request.get(field) for field in _FALLBACK_FIELDS):
            return self._looked_up(model, everybody=True)
        until, offers = self._offers.get(model, (0.0, []))
        if now >= until:
            if len(self._offers) >= _REMEMBERED:  # callers choose the names
                self._offers.clear()
            offers = self._looked_up(model, everybody=False)
            self._offers[model] = (now + _OFFER_SECONDS, offers)
        return offers

    def _looked_up(self, model: str, *, everybody: bool) -> list[_Offer]:
        book, now, found = self._book(), time.time_ns(), []
        for deployment in _deployments(model, everybody=everybody):
            params, info = _mapping(deployment.get("litellm_params")), _mapping(deployment.get("model_info"))
            price = price_for(model, served_name(params), {**params, "model_info": info}, now, book=book)
            if price is not None:
                declared = _number(info.get("max_output_tokens")) or _number(info.get("max_tokens"))
                unasked = _number(params.get("max_tokens")) or declared or DEFAULT_OUTPUT_TOKENS
                found.append(_Offer(price, declared, unasked))
        return found


def _merged(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request's fields, with the larger of two limits where ``extra_body`` has another."""
    extra = _mapping(request.get("extra_body"))
    larger = {
        field: max(numbers)
        for field in (*_OUTPUT_FIELDS, *_CHOICE_FIELDS)
        if (numbers := [n for n in (_number(request.get(field)), _number(extra.get(field))) if n is not None])
    }
    return {**request, **larger}


def sequences(body: Mapping[str, Any]) -> int:
    """How many answers a request asks for: choices of each prompt."""
    choices = max(1, *(_number(body.get(field)) or 1 for field in _CHOICE_FIELDS))
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and not (prompt and isinstance(prompt[0], int))  # of token ids it is one
    return choices * max(1, len(prompt) if several and isinstance(prompt, list) else 1)


def _tokens_in(value: Any) -> int:
    """At most so many tokens: bytes of text, one for each number (a token id), and some for each part."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, Mapping):
        return sum(_PART_TOKENS + len(str(key)) + _tokens_in(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        if value and all(type(item) is int for item in value):
            return len(value)
        return sum(_PART_TOKENS + _tokens_in(item) for item in value)
    return 1


def _deployments(model: str, *, everybody: bool) -> Iterable[Mapping[str, Any]]:
    """Those that may serve a call, or, with ``everybody``, one that names fallbacks.

    The operator's fallbacks may lead to another model, too, and a caller can name a deployment by its id. Where the
    name alone does not say who serves, all deployments may.
    """
    known = router()
    if known is None:
        return [{"litellm_params": {"model": model}}]
    if not everybody and not any(getattr(known, field, None) for field in _FALLBACK_FIELDS):
        named = serving(model)
        if named:
            return named
    return list(known.model_list)


def _number(value: Any) -> int | None:
    """A count in a request as the engine would understand it; None for what it would refuse."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value.strip()[:12])
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return int(min(value, _MAX_TOKENS))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
