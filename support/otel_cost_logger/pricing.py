"""What did the call cost, and who says so.

LiteLLM has already priced the call when the hook runs, so nothing is looked up again here. What it does not
say is *whose* price that was, nor that a cost of 0.0 means "no price known". Both matter more than the number:
"free" and "nobody knows" must not look alike on an invoice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from litellm.litellm_core_utils.litellm_logging import use_custom_pricing_for_model

# Cost sources.
CUSTOM_PRICE = "custom_price"  # model_info or litellm_params of the deployment
COST_MAP = "cost_map"  # LiteLLM's map: the bundled one, and what litellm.register_model added
UNPRICED = "unpriced"  # nobody has a price for this model
NOT_CHARGED = "not_charged"  # no token was counted, so there is nothing to price

_COST_MAP_VERSION = f"litellm-{version('litellm')}"
_MAX_USD = 9e9  # in nano-dollars just under 2**63: OTLP carries integers as int64


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost in billionths of a US dollar, who set the price, and which version of the prices it was."""

    nano_usd: int
    source: str
    price_version: str | None


def cost_of(payload: Mapping[Any, Any], litellm_params: Mapping[Any, Any], *, used_tokens: bool) -> Cost:
    """The cost that LiteLLM computed for a call, with its source.

    ``payload`` is the standard logging payload, ``litellm_params`` the call's LiteLLM parameters with the
    deployment's ``model_info``, ``used_tokens`` says whether any token was counted. A cost that is not a finite,
    non-negative number counts as unpriced.
    """
    nano_usd = to_nano_usd(payload.get("response_cost"))
    if not nano_usd and not used_tokens:
        return Cost(0, NOT_CHARGED, None)
    if nano_usd is None:
        return Cost(0, UNPRICED, None)
    if use_custom_pricing_for_model(litellm_params):
        return Cost(nano_usd, CUSTOM_PRICE, _version_of(_prices(litellm_params)))
    # The map gives 0.0, not "unknown", for a model that it does not have.
    return Cost(nano_usd, COST_MAP, _COST_MAP_VERSION) if nano_usd else Cost(0, UNPRICED, None)


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
    for key in ("metadata", "litellm_metadata"):
        metadata = litellm_params.get(key)
        model_info = metadata.get("model_info") if isinstance(metadata, Mapping) else None
        if isinstance(model_info, Mapping):
            sources.append(model_info)
    prices = {
        str(name): float(value)
        for source in sources
        for name, value in source.items()
        if "cost" in str(name) and isinstance(value, int | float)
    }
    return tuple(sorted(prices.items()))


@lru_cache(maxsize=1024)
def _version_of(prices: tuple[tuple[str, float], ...]) -> str:
    """A short fingerprint of a deployment's prices: it changes when a price does."""
    return "sha256:" + hashlib.sha256(repr(prices).encode()).hexdigest()[:12]
