"""Which road an address is on."""

from __future__ import annotations

import pytest

from otel_cost_logger.net.roads import CLOSED, NO_ENGINE, OPENED, RAW, REPORTED, ROADS, TRANSLATED, Roads


@pytest.mark.parametrize(
    ("address", "kind", "method"),
    [
        ("/v1/chat/completions", REPORTED, "POST"),
        ("/engines/a/model/with/slashes/chat/completions", REPORTED, "POST"),
        ("/v1/rerank", TRANSLATED, "POST"),
        ("/v1beta/models/a/b:streamGenerateContent", TRANSLATED, "POST"),
        ("/vllm/v1/chat/completions", RAW, "POST"),
        ("/v1/models", NO_ENGINE, "GET"),
        ("/models/a:countTokens", NO_ENGINE, "POST"),
        ("/key/generate", NO_ENGINE, "POST"),
        ("/key/health", CLOSED, "POST"),
        ("/health", CLOSED, "POST"),
        ("/health/liveliness", NO_ENGINE, "GET"),
        ("/health/liveliness", NO_ENGINE, "HEAD"),
        ("/health/liveliness", CLOSED, "POST"),
        ("/team/x", NO_ENGINE, "PATCH"),
        ("/team/x", CLOSED, "POST"),
        ("/key/what-a-later-version-adds", CLOSED, "GET"),
        ("/azure/chat/completions", CLOSED, "POST"),
        ("/vllm/load_lora_adapter", CLOSED, "POST"),
        ("/v2/chat/completions", CLOSED, "POST"),
        ("/V1/chat/completions", CLOSED, "POST"),
        ("//v1/chat/completions", CLOSED, "POST"),
        ("/v1/chat/completions/", CLOSED, "POST"),
        ("/key/../vllm/sleep\n", CLOSED, "POST"),
        ("", CLOSED, "POST"),
    ],
)
def test_an_address_is_on_the_first_road_that_fits(address: str, kind: str, method: str) -> None:
    assert Roads().of(address, method).kind == kind


def test_what_fits_no_row_is_closed_until_the_operator_opens_it() -> None:
    roads = Roads(("/azure/*", "/v1/images/generations", "/key/info"))
    assert roads.of("/azure/chat/completions", "POST").kind == OPENED
    assert roads.of("/v1/images/generations", "POST").kind == OPENED
    assert roads.of("/azure_ai/chat/completions", "POST").kind == CLOSED
    assert roads.of("/key/info", "POST").kind == OPENED
    assert roads.of("/key/info", "GET").kind == NO_ENGINE


def test_opening_a_road_does_not_take_a_count_away() -> None:
    roads = Roads(("/*",))
    assert roads.of("/v1/chat/completions", "POST").kind == REPORTED
    assert roads.of("/vllm/chat/completions", "POST").kind == RAW
    assert roads.of("/key/health", "POST").kind == OPENED


def test_every_row_says_why() -> None:
    assert all(road.why and road.pattern.startswith("/") for road in ROADS)
    patterns = [road.pattern for road in ROADS]
    assert len(patterns) == len(set(patterns))
