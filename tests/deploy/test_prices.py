"""The price book that an operator copies says what the proxy's configuration says."""

from __future__ import annotations

from decimal import Decimal

import yaml

from otel_cost_logger.prices.reading import read_book
from workbook.paths import DEPLOY


def test_the_sample_book_has_the_prices_of_the_shipped_configuration() -> None:
    deployments = yaml.safe_load((DEPLOY / "litellm_config.yaml").read_text())["model_list"]
    (priced,) = [deployment for deployment in deployments if "model_info" in deployment]
    (entry,) = read_book(DEPLOY / "prices.yaml").entries
    price = entry.price
    assert entry.model == priced["model_name"]
    fields = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
    assert [price.input, price.output, price.cached_input] == [
        Decimal(repr(priced["model_info"][field])) for field in fields
    ]


def test_the_compose_stack_uses_it() -> None:
    proxy = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["proxy"]
    inside = proxy["environment"]["OTEL_COST_LOGGER_PRICES_FILE"]
    assert f"./prices.yaml:{inside}:ro" in proxy["volumes"]
