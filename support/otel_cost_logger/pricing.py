"""What did the call cost, and who says so.

The price book comes first, where the operator has one (see `prices`). Without one, or for a model that it does not
price, LiteLLM has already priced the call when the hook runs, and nothing is looked up again here. What it does not
say is *whose* price that was, nor that a cost of 0.0 means "no price known". Both matter more than the number:
"free" and "nobody knows" must not look alike on an invoice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import litellm
from litellm.litellm_core_utils.litellm_logging import use_custom_pricing_for_model
from litellm.types.utils import CustomPricingLiteLLMParams

from otel_cost_logger.prices.book import PriceBook
from otel_cost_logger.prices.price import Price

# Cost sources, in the order in which they are asked.
PRICE_BOOK = "price_book"  # the operator's own price book
CUSTOM_PRICE = "custom_price"  # model_info or litellm_params of the deployment
COST_MAP = "cost_map"  # LiteLLM's map: the bundled one, and what litellm.register_model added
UNPRICED = "unpriced"  # nobody has a price for this model
NOT_CHARGED = "not_charged"  # no engine worked, or it counted zero: a call was refused, or LiteLLM's cache answered
UNKNOWN_COST = "unknown"  # an engine may have worked, and nobody counted

_COST_MAP_VERSION = f"litellm-{version('litellm')}"
# LiteLLM refuses a request that names one of these. Anything else with "cost" in its name may be a caller's.
_PRICE_FIELDS = frozenset(CustomPricingLiteLLMParams.model_fields)
_MAX_USD = 9e9  # in nano-dollars just under 2**63: OTLP carries integers as int64
_MAX_NANO_USD = int(_MAX_USD) * 10**9


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost in billionths of a US dollar, who set the price, and which version of the prices it was."""

    nano_usd: int
    source: str
    price_version: str | None


def cost_of(
    payload: Mapping[Any, Any], litellm_params: Mapping[Any, Any], *, without_tokens: str | None = None
) -> Cost:
    """The cost that LiteLLM computed for a call, with its source.

    ``payload`` is the standard logging payload, ``litellm_params`` the call's LiteLLM parameters with the
    deployment's ``model_info``. ``without_tokens`` is the source to tell of a call of which no token was counted, where
    LiteLLM has no cost either: `NOT_CHARGED` or `UNKNOWN_COST`. A cost that is not a finite, non-negative number counts
    as unpriced.
    """
    nano_usd = to_nano_usd(payload.get("response_cost"))
    if not nano_usd and without_tokens is not None:
        return Cost(0, without_tokens, None)
    if nano_usd is None:
        return Cost(0, UNPRICED, None)
    if has_custom_price(litellm_params):
        return Cost(nano_usd, CUSTOM_PRICE, _version_of(_prices(litellm_params)))
    # The map gives 0.0, not "unknown", for a model that it does not have.
    return Cost(nano_usd, COST_MAP, _COST_MAP_VERSION) if nano_usd else Cost(0, UNPRICED, None)


def has_custom_price(litellm_params: Mapping[Any, Any]) -> bool:
    """True when the deployment has prices of its own."""
    return bool(use_custom_pricing_for_model(litellm_params))


def cost_by_book(
    book: PriceBook,
    model: str,
    served: str | None,
    at_ns: int,
    *,
    prompt_tokens: int,
    completion_tokens: int,
    cached_tokens: int,
) -> Cost | None:
    """The cost of a call that began at ``at_ns`` and used these tokens, by the price book; None where that has no price
    for it. See `PriceBook.find` and `Price.nano_usd`. An amount that no record can carry counts as unpriced."""
    entry = book.find(model, served, at_ns)
    if entry is None:
        return None
    return _recordable(entry.price.nano_usd(prompt_tokens, completion_tokens, cached_tokens), PRICE_BOOK, book.version)


def _recordable(nano_usd: int, source: str, version: str) -> Cost:
    return Cost(nano_usd, source, version) if nano_usd <= _MAX_NANO_USD else Cost(0, UNPRICED, None)


def cost_of_tokens(
    book: PriceBook | None,
    model: str,
    served: str | None,
    litellm_params: Mapping[Any, Any],
    at_ns: int,
    *,
    prompt_tokens: int,
    completion_tokens: int,
    cached_tokens: int,
) -> Cost | None:
    """The cost of these tokens by the price book, and where that has no price by the same as `cost_of`: for a call
    whose cost LiteLLM does not say, or says of another attempt. None where nobody has a price per token. The arguments
    are those of `cost_by_book` and `price_for`."""
    tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "cached_tokens": cached_tokens}
    if book is not None and (cost := cost_by_book(book, model, served, at_ns, **tokens)) is not None:
        return cost
    price = price_for(model, served, litellm_params, at_ns)
    if price is None:
        return None
    custom = has_custom_price(litellm_params)
    nano_usd = price.nano_usd(prompt_tokens, completion_tokens, cached_tokens)
    source, version = (CUSTOM_PRICE, _version_of(_prices(litellm_params))) if custom else (COST_MAP, _COST_MAP_VERSION)
    return _recordable(nano_usd, source, version)


def price_for(
    model: str, served: str | None, litellm_params: Mapping[Any, Any], at_ns: int, *, book: PriceBook | None = None
) -> Price | None:
    """The price that a call which begins at ``at_ns`` (nanoseconds since the epoch) would be charged at, from the same
    sources in the same order as `cost_of`; None when nobody has one.

    ``model`` is the name that the caller asks for, ``served`` the one that the backend is asked for, as far as it is
    known. ``litellm_params`` are the call's, as in `cost_of`, or a deployment's (``model``, ``custom_llm_provider`` and
    prices, with its ``model_info`` under that name). Of LiteLLM's prices only those per token are told: not per second
    or image, and not the tiers for long prompts or for another service tier, at which LiteLLM may charge more.
    """
    if book is not None and (entry := book.find(model, served, at_ns)) is not None:
        return entry.price
    own = _token_price(dict(_prices(litellm_params)))
    if own is not None:
        return own
    return next(filter(None, (_token_price(entry) for entry in _map_entries(model, served, litellm_params))), None)


def _map_entries(model: str, served: str | None, litellm_params: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """What LiteLLM's map holds for the model that serves, under the names that LiteLLM looks for."""
    provider = litellm_params.get("custom_llm_provider")
    name = litellm_params.get("model") or served or model
    for key in (f"{provider}/{name}", name):
        entry = litellm.model_cost.get(key)
        if isinstance(entry, Mapping):
            yield entry


def _token_price(prices: Mapping[Any, Any]) -> Price | None:
    names = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
    input_, output, cached = (_decimal(prices.get(name)) for name in names)
    if input_ is None and output is None:
        return None
    return Price(input_ or Decimal(0), output or Decimal(0), cached)


def _decimal(usd: object) -> Decimal | None:
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd <= _MAX_USD:
        return None
    return Decimal(repr(usd))  # the shortest decimal that is this float: what the operator wrote


def to_nano_usd(usd: object) -> int | None:
    """``usd`` in billionths of a dollar, rounded half to even; None for anything that is not an amount."""
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd <= _MAX_USD:
        return None
    nano_usd = usd * 1e9
    nearest = round(nano_usd)
    # The product is off by less than a billionth of a nano-dollar up to here: only near a half does that matter.
    if nano_usd < 1e6 and abs(nano_usd - nearest) < 0.499:
        return nearest
    # repr() gives the shortest decimal that is this float: 7e-06 is 7e-06 and not 6.999999999999999e-06.
    return int((Decimal(repr(usd)) * 1_000_000_000).quantize(Decimal(1), ROUND_HALF_EVEN))


def _prices(litellm_params: Mapping[Any, Any]) -> tuple[tuple[str, float], ...]:
    sources: list[Mapping[Any, Any]] = [litellm_params]
    for holder in (litellm_params, *(litellm_params.get(key) for key in ("metadata", "litellm_metadata"))):
        model_info = holder.get("model_info") if isinstance(holder, Mapping) else None
        if isinstance(model_info, Mapping):
            sources.append(model_info)
    prices = {
        str(name): float(value)
        for source in sources
        for name, value in source.items()
        if name in _PRICE_FIELDS and isinstance(value, int | float)
    }
    return tuple(sorted(prices.items()))


@lru_cache(maxsize=1024)
def _version_of(prices: tuple[tuple[str, float], ...]) -> str:
    """A short fingerprint of a deployment's prices: it changes when a price does."""
    return "sha256:" + hashlib.sha256(repr(prices).encode()).hexdigest()[:12]
