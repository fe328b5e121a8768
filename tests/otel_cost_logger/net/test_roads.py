"""Which road an address is on."""

from __future__ import annotations

import pytest

from otel_cost_logger.net.roads import CLOSED, NO_ENGINE, OPENED, RAW, REPORTED, ROADS, TRANSLATED, Roads


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("/v1/chat/completions", REPORTED),
        ("/engines/a/model/with/slashes/chat/completions", REPORTED),
        ("/v1/rerank", TRANSLATED),
        ("/v1beta/models/a/b:streamGenerateContent", TRANSLATED),
        ("/vllm/v1/chat/completions", RAW),
        ("/v1/models", NO_ENGINE),
        ("/models/a:countTokens", NO_ENGINE),
        ("/key/generate", NO_ENGINE),
        ("/key/health", CLOSED),
        ("/health", CLOSED),
        ("/health/liveliness", NO_ENGINE),
        ("/azure/chat/completions", CLOSED),
        ("/vllm/load_lora_adapter", CLOSED),
        ("/v2/chat/completions", CLOSED),
        ("/V1/chat/completions", CLOSED),
        ("//v1/chat/completions", CLOSED),
        ("/v1/chat/completions/", CLOSED),
        ("/key/../vllm/sleep\n", CLOSED),
        ("", CLOSED),
    ],
)
def test_an_address_is_on_the_first_road_that_fits(address: str, kind: str) -> None:
    assert Roads().of(address).kind == kind


def test_what_fits_no_row_is_closed_until_the_operator_opens_it() -> None:
    roads = Roads(("/azure/*", "/v1/images/generations"))
    assert roads.of("/azure/chat/completions").kind == OPENED
    assert roads.of("/v1/images/generations").kind == OPENED
    assert roads.of("/azure_ai/chat/completions").kind == CLOSED


def test_opening_a_road_does_not_take_a_count_away() -> None:
    roads = Roads(("/*",))
    assert roads.of("/v1/chat/completions").kind == REPORTED
    assert roads.of("/vllm/chat/completions").kind == RAW
    assert roads.of("/key/health").kind == OPENED


def test_every_row_says_why() -> None:
    assert all(road.why and road.pattern.startswith("/") for road in ROADS)
    patterns = [road.pattern for road in ROADS]
    assert len(patterns) == len(set(patterns))
