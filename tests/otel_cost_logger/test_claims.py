"""What a request claims is written down, short, printable in the end, and without a key in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cost_logger.claims import claims_of
from otel_cost_logger.record import build_record


@pytest.mark.parametrize(
    ("request_", "claims"),
    [
        ({}, None),
        ({"body": {"metadata": {"tenant_id": "", "team_id": None}, "user": ""}}, None),
        ({"body": {"user": "alice", "metadata": {"team_id": "x"}}}, "user=alice, metadata.team_id=x"),
        ({"headers": {"x-litellm-customer-id": "x"}}, "x-litellm-customer-id=x"),
        (
            {"headers": {"baggage": "a=b, tenant_id=x,litellm.team.id = y"}},
            "baggage.tenant_id=x, baggage.litellm.team.id=y",
        ),
        ({"body": {"user": 7, "team_id": True, "metadata": {"tenant_id": {"a": "b"}}}}, "user=7"),
        ({"body": {"user": "sk-abcdef0123456789"}}, "user=sk-..."),
        ({"body": {"user": "x" * 10_000}}, "user=" + "x" * 100),
        ({"body": [], "headers": None}, None),
    ],
)
def test_claims(request_: dict[str, Any], claims: str | None) -> None:
    assert claims_of(request_) == claims


def test_a_record_keeps_at_most_256_printable_characters(make_call: Any) -> None:
    call = make_call()
    fields = ("tenant_id", "tenant", "team_id", "team_alias", "user_id")
    call["litellm_params"]["proxy_server_request"]["body"] = {"metadata": dict.fromkeys(fields, "\x00\ud800" * 500)}
    claimed = build_record(call, None, None, None, failed=False, behind_proxy=True).tenant_claimed
    assert claimed is not None
    assert len(claimed) == 256
    assert claimed.isprintable()


def test_in_library_mode_the_program_claims_nothing_it_says(make_call: Any) -> None:
    call = make_call(metadata={})
    call["litellm_params"]["metadata"] = {"tenant_id": "t"}
    call["litellm_params"]["proxy_server_request"]["body"] = {"user": "x"}
    record = build_record(call, None, None, None, failed=False, behind_proxy=False)
    assert (record.tenant_id, record.tenant_source, record.tenant_claimed) == ("t", "caller", None)


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["user", "metadata", "team_id"]), inner)
    ),
)


@given(junk, junk)
def test_no_request_is_too_strange(body: Any, headers: Any) -> None:
    claims = claims_of({"body": body, "headers": headers})
    assert claims is None or "=" in claims
