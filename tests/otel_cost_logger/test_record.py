"""The record says what LiteLLM's payload says, and survives one that says nonsense."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_cost_logger.attributes import attributes_of
from otel_cost_logger.prices.reading import parse_book
from otel_cost_logger.progress import Progress, progress_in
from otel_cost_logger.record import CallRecord, build_record, clean

RESPONSE = SimpleNamespace(choices=[SimpleNamespace(finish_reason="stop"), SimpleNamespace(finish_reason="length")])


def build(kwargs: object, response: object = RESPONSE, **options: Any) -> CallRecord:
    return build_record(
        kwargs, response, None, None, **{"failed": False, "behind_proxy": True, "keep_error_message": False, **options}
    )


def seen_as(progress: Progress) -> dict[str, Any]:
    """LiteLLM's details of a call of which our hooks saw ``progress``."""
    details: dict[str, Any] = {}
    progress_in(details)
    return dict.fromkeys(details, progress)


def book(price: str, *, valid_until: str = "2026-11-22") -> Any:
    """A price book for "mistral", by default until the day before the payload's call began."""
    return parse_book(
        f"""\
currency: USD
prices:
  - model: mistral
    input_usd_per_million_tokens: {price}
    output_usd_per_million_tokens: 10
    cached_input_usd_per_million_tokens: 0
    usd_per_request: 0.000001
    valid_until: {valid_until}
    source: the old contract
  - served_model: mistral-7b
    input_usd_per_million_tokens: 2
    output_usd_per_million_tokens: 20
    source: the new contract
""",
        "prices.yaml",
    )


def test_a_successful_call_keeps_every_fact(make_call: Any) -> None:
    record = build(make_call())
    assert record.call_id == "11111111-2222-3333-4444-555555555555"
    assert (record.call_type, record.operation, record.stream) == ("acompletion", "chat", False)
    assert (record.model, record.model_served, record.provider) == ("mistral", "mistral-7b", "hosted_vllm")
    assert (record.tenant_id, record.tenant_source, record.key_alias) == ("tenant-acme", "team", "acme-key-1")
    assert (record.outcome, record.success) == ("success", True)
    assert (record.prompt_tokens, record.completion_tokens, record.total_tokens) == (10, 5, 15)
    assert (record.cached_tokens, record.reasoning_tokens, record.usage_source) == (4, 2, "engine")
    assert (record.cost_usd, record.cost_nano_usd, record.cost_source) == (5e-06, 5000, "custom_price")
    assert record.price_version is not None
    assert record.price_version.startswith("sha256:")
    assert (record.start_ns, record.end_ns) == (1_795_437_312_250_000_000, 1_795_437_313_500_000_000)
    assert (record.duration_ms, record.time_to_first_token_ms) == (1250.0, None)
    assert (record.response_id, record.finish_reasons) == ("chatcmpl-1", ("stop", "length"))
    assert (record.server_address, record.server_port) == ("10.1.2.3", 8001)
    assert (record.error, record.error_type, record.error_status, record.attempts) == (None, None, None, 1)


def test_a_stream_has_a_first_token_and_the_engines_count_when_it_was_asked_for(make_call: Any) -> None:
    asked = build(make_call({"stream": True, "stream_options": {"include_usage": True}}))
    assert (asked.time_to_first_token_ms, asked.usage_source) == (250.0, "engine")
    assert build(make_call({"stream": True})).usage_source == "estimated"


def test_a_disconnect_that_litellm_calls_a_success_is_reclassified(make_call: Any) -> None:
    call = make_call(
        {"stream": True, "stream_options": {"include_usage": True}},
        error_information={"error_class": "ClientDisconnected", "error_code": "499"},
    )
    record = build(call)
    assert (record.outcome, record.success, record.usage_source) == ("client_disconnected", False, "estimated")
    assert (record.error_status, record.cost_nano_usd) == (499, 5000)


def test_a_failure_names_the_error_but_not_its_text(make_call: Any) -> None:
    secret = "the prompt was: my account number"
    call = make_call(
        {"exception": ValueError(secret)},
        status="failure",
        error_str=secret,
        prompt_tokens=0,
        completion_tokens=0,
        total_tokens=0,
        response_cost=0.0,
        error_information={"error_class": "InternalServerError", "error_code": "500", "error_message": secret},
    )
    record = build(call, None, failed=True)
    assert (record.error, record.error_type, record.error_status) == (
        "InternalServerError 500",
        "InternalServerError",
        500,
    )
    assert (record.cost_source, record.usage_source, record.response_id) == ("unknown", "none", None)
    assert secret not in repr(record)
    assert build(call, None, failed=True, keep_error_message=True).error == secret


@pytest.mark.parametrize("refused", [True, False])
def test_only_a_key_that_the_proxy_refused_is_unauthenticated(make_call: Any, refused: bool) -> None:
    """A backend's 401 is the operator's own mistake, and still this tenant's call."""
    call = make_call(
        {"litellm_no_upstream_llm_call": refused}, error_information={"error_class": "X", "error_code": "401"}
    )
    record = build(call, None, failed=True)
    assert record.tenant_id == ("unauthenticated" if refused else "tenant-acme")
    assert record.model_served == (None if refused else "mistral-7b")


@pytest.mark.parametrize(
    ("identity", "claimed", "behind_proxy", "expected"),
    [
        ({"user_api_key_team_id": "t", "user_api_key_alias": "a"}, "x", True, ("t", "team")),
        ({"user_api_key_alias": "a"}, "x", True, ("a", "key_alias")),
        ({}, "x", True, ("default", "none")),
        ({"team_id": "x", "user_api_key_end_user_id": "x"}, "x", True, ("default", "none")),
        ({}, "x", False, ("x", "caller")),
        ({}, None, False, ("default", "none")),
    ],
)
def test_the_tenant_is_the_authenticated_one(
    make_call: Any, identity: dict[str, str], claimed: str | None, behind_proxy: bool, expected: tuple[str, str]
) -> None:
    call = make_call(metadata=identity)
    call["litellm_params"]["metadata"] = {"tenant_id": claimed, "team_id": claimed}
    call["user"] = claimed
    record = build(call, behind_proxy=behind_proxy)
    assert (record.tenant_id, record.tenant_source) == expected


def test_traceparent_comes_from_the_header(make_call: Any) -> None:
    call = make_call()
    call["litellm_params"]["proxy_server_request"]["headers"]["traceparent"] = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    assert build(call).traceparent == "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def test_the_hooks_times_stand_in_for_missing_payload_times() -> None:
    start, end = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC), datetime(2026, 11, 23, 12, 0, 1, tzinfo=UTC)
    record = build_record({}, None, start, end, failed=False, behind_proxy=True)
    assert (record.start_ns, record.duration_ms) == (int(start.timestamp()) * 10**9, 1000.0)


def test_usage_of_the_response_stands_in_for_a_missing_payload() -> None:
    response = SimpleNamespace(usage=SimpleNamespace(prompt_tokens=3, completion_tokens=4))
    record = build({"litellm_call_id": "x"}, response)
    assert (record.prompt_tokens, record.completion_tokens, record.total_tokens) == (3, 4, 7)


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -1.0, "free", None, True, 1e300])
def test_a_cost_that_is_no_amount_is_unpriced(make_call: Any, cost: object) -> None:
    record = build(make_call(response_cost=cost))
    assert (record.cost_usd, record.cost_nano_usd, record.cost_source) == (0.0, 0, "unpriced")


def test_tokens_that_litellm_charges_nothing_for_have_the_deployments_price(make_call: Any) -> None:
    call = make_call(response_cost=0.0, prompt_tokens=42, completion_tokens=0, total_tokens=42)
    call["litellm_params"]["metadata"] = {"model_info": {"input_cost_per_token": 2e-7, "output_cost_per_token": 6e-7}}
    record = build(call)
    assert (record.cost_nano_usd, record.cost_source) == (8400, "custom_price")


@pytest.mark.parametrize(
    ("budgets", "left"),
    [
        ({}, None),
        ({"max_budget": 10.0, "spend": 4.0}, 6.0),
        ({"max_budget": 10.0, "spend": 4.0, "team_max_budget": 5.0, "team_spend": 4.5}, 0.5),
        ({"max_budget": 1, "spend": 2.5, "team_max_budget": None}, -1.5),
        ({"team_max_budget": 3.0}, 3.0),
        ({"max_budget": float("nan"), "team_max_budget": 10**400}, None),
        ({"max_budget": 10.0, "spend": "much"}, 10.0),
    ],
)
def test_the_tightest_budget_is_what_is_left(make_call: Any, budgets: dict[str, Any], left: float | None) -> None:
    identity = {f"user_api_key_{name}": value for name, value in budgets.items()}
    remaining = build(make_call(metadata=identity)).budget_remaining_usd
    assert remaining == (None if left is None else pytest.approx(left - 5e-06, abs=1e-9))


@pytest.mark.parametrize("tokens", [float("nan"), -5, "many", None, 2**80, 10**400, True])
def test_a_token_count_that_is_no_count_fits_in_an_int64(make_call: Any, tokens: object) -> None:
    record = build(make_call(prompt_tokens=tokens, total_tokens=tokens))
    assert 0 <= record.prompt_tokens <= record.total_tokens < 2**63


def test_clean_keeps_exporters_alive() -> None:
    assert clean("tenant-é-漢") == "tenant-é-漢"
    assert clean("a\x00b\x1bc\ud800d\n") == "a\ufffdb\ufffdc\ufffdd\ufffd"
    assert len(clean("x" * 1_000_000)) == 256
    assert clean(None) == ""
    assert clean(7) == "7"


# Anything at all, anywhere: as kwargs, as payload, as each field of the payload.
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PAYLOAD_FIELDS = [
    "id", "call_type", "status", "model_group", "prompt_tokens", "completion_tokens", "total_tokens", "response_cost",
    "startTime", "endTime", "completionStartTime", "api_base", "error_information", "metadata", "error_str",
]  # fmt: skip
CALL_FIELDS = [
    "litellm_call_id", "call_type", "model", "custom_llm_provider", "stream", "litellm_params", "exception",
    "optional_params", "stream_options", "standard_logging_object", "cache_hit", "otel_cost_logger_progress",
]  # fmt: skip


def check_exportable(record: CallRecord) -> None:
    for name, value in attributes_of(record).items():
        assert value is not None, name
        for part in value if isinstance(value, tuple) else (value,):
            assert isinstance(part, str | bool | int | float), name
            if isinstance(part, str):
                part.encode("utf-8")
                assert len(part) <= 1024
            elif isinstance(part, int):
                assert -(2**63) <= part < 2**63
            else:
                assert part == part
    assert 0 < record.start_ns <= record.end_ns < 2**63


@given(kwargs=junk, response=junk, failed=st.booleans(), proxied=st.booleans())
@settings(max_examples=200, deadline=None)
def test_junk_in_place_of_the_arguments(kwargs: Any, response: Any, failed: bool, proxied: bool) -> None:
    check_exportable(build(kwargs, response, failed=failed, behind_proxy=proxied))


@given(
    payload=st.fixed_dictionaries({}, optional=dict.fromkeys(PAYLOAD_FIELDS, junk)),
    call=st.fixed_dictionaries({}, optional=dict.fromkeys(CALL_FIELDS, junk)),
    response=junk,
    failed=st.booleans(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_in_any_field(make_call: Any, payload: Any, call: Any, response: Any, failed: bool) -> None:
    check_exportable(build(make_call(call, **payload), response, failed=failed))


def test_the_book_prices_a_call_at_the_price_of_its_beginning(make_call: Any) -> None:
    """The call began on 2026-11-23, and its record may be written years later."""
    expected = {"2026-11-22": 10 * 2000 + 5 * 20_000, "2026-11-23": 6 * 1000 + 5 * 10_000 + 1000}
    for valid_until, nano_usd in expected.items():
        prices = book("1", valid_until=valid_until)
        record = build(make_call(), book=prices)
        assert (record.cost_nano_usd, record.cost_source) == (nano_usd, "price_book")
        assert record.price_version == prices.version


def test_a_new_book_leaves_records_as_they_are(make_call: Any) -> None:
    before = build(make_call(), book=book("1", valid_until="2026-12-31"))
    after = build(make_call(), book=book("3", valid_until="2026-12-31"))
    assert after.cost_nano_usd - before.cost_nano_usd == 6 * 2000
    assert before.price_version != after.price_version
    assert before.cost_nano_usd == 6 * 1000 + 5 * 10_000 + 1000


def test_what_the_book_does_not_price_is_litellms_to_price(make_call: Any) -> None:
    call = make_call({"model": "another"}, model_group="another")
    assert build(call, book=book("1")).cost == build(call).cost
    assert build(call, book=book("1")).cost_source == "custom_price"


NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "response_cost": 0.0}


@pytest.mark.parametrize(
    ("status", "by_proxy", "seen", "source"),
    [
        ("400", False, Progress(attempts=1, begun=True), "not_charged"),  # the engine says so
        ("404", False, Progress(attempts=2, begun=True), "unknown"),  # of the first attempt it does
        ("500", False, Progress(begun=True), "not_charged"),  # LiteLLM could not make a request of it
        ("408", False, Progress(attempts=1, begun=True), "unknown"),
        ("500", False, Progress(attempts=1, begun=True), "unknown"),
        ("429", True, Progress(attempts=1), "not_charged"),  # the proxy's own, before it asked anybody
        ("400", True, Progress(attempts=1, begun=True), "unknown"),  # and after: a guardrail, say
        ("400", True, Progress(begun=True), "unknown"),  # or just before it is sent
    ],
)
def test_counted_zero_is_not_the_same_as_counted_by_nobody(
    make_call: Any, status: str, by_proxy: bool, seen: Progress, source: str
) -> None:
    call = make_call(
        seen_as(seen) | {"litellm_no_upstream_llm_call": by_proxy},
        error_information={"error_class": "X", "error_code": status},
        **NO_TOKENS,
    )
    for prices in (None, book("1", valid_until="2026-12-31")):
        record = build(call, None, failed=True, book=prices)
        assert (record.cost_nano_usd, record.cost_source, record.price_version) == (0, source, None)


def test_an_answer_without_a_count_is_not_free_but_unknown(make_call: Any) -> None:
    for prices in (None, book("1", valid_until="2026-12-31")):
        record = build(make_call(**NO_TOKENS), book=prices)
        assert (record.cost_nano_usd, record.cost_source, record.usage_source) == (0, "unknown", "none")


def test_a_price_by_the_second_needs_no_tokens(make_call: Any) -> None:
    record = build(make_call(**NO_TOKENS | {"response_cost": 0.001}))
    assert (record.cost_nano_usd, record.cost_source) == (1_000_000, "custom_price")


def test_the_answers_own_count_comes_before_the_payloads(make_call: Any) -> None:
    """After a fallback LiteLLM's payload has the tokens, the cost and the error of the attempt before."""
    call = make_call(
        seen_as(Progress(attempts=2, begun=True, sent=True)) | {"stream": True, "exception": ValueError("the first")},
        prompt_tokens=10,
        completion_tokens=0,
        total_tokens=10,
        response_cost=0.0,
        error_information={"error_class": "InternalServerError", "error_code": "500"},
    )
    call["litellm_params"]["metadata"]["original_model_group"] = "small"
    usage = {"prompt_tokens": 20, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}}
    record = build(call, {"usage": usage})
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (20, 7, 3)
    assert (record.cost_nano_usd, record.cost_source) == (20 * 200 + 7 * 600, "custom_price")
    assert (record.attempts, record.model, record.model_requested) == (2, "mistral", "small")
    assert (record.outcome, record.error, record.error_type, record.error_status) == ("success", None, None, None)


def test_the_cost_of_an_attempt_before_is_not_that_of_the_answer(make_call: Any) -> None:
    call = make_call(seen_as(Progress(attempts=2, begun=True, sent=True)), response_cost=0.0)
    assert build(call).cost_nano_usd == 10 * 200 + 5 * 600
    assert build(call).price_version == build(make_call()).price_version


def test_only_an_answer_of_another_model_names_the_one_that_was_asked_for(make_call: Any) -> None:
    call = make_call()
    call["litellm_params"]["metadata"]["original_model_group"] = "mistral"
    assert build(call).model_requested is None


@pytest.mark.parametrize("prices", [None, book("1", valid_until="2026-12-31")])
def test_an_answer_from_litellms_cache_costs_nothing(make_call: Any, prices: Any) -> None:
    hit = build(make_call(seen_as(Progress(begun=True)) | {"cache_hit": True}), book=prices)
    assert (hit.usage_source, hit.cache_hit, hit.total_tokens) == ("cache", True, 15)
    assert (hit.cost_nano_usd, hit.cost_source, hit.price_version) == (0, "not_charged", None)
    # A caller can say so, too; whether the call was sent, nobody but the proxy can say.
    sent = build(make_call(seen_as(Progress(attempts=1, begun=True, sent=True)) | {"cache_hit": True}), book=prices)
    assert (sent.usage_source, sent.cache_hit) == ("engine", None)
    assert sent.cost_nano_usd > 0


def test_an_answer_that_its_caller_never_saw_is_counted(make_call: Any) -> None:
    """A guardrail blocks it: LiteLLM's payload has nothing of it."""
    answer = {"usage": {"prompt_tokens": 8, "completion_tokens": 12}}
    seen = Progress(call_type="anthropic_messages", attempts=1, begun=True, sent=True, served="served", answer=answer)
    call = make_call(seen_as(seen) | {"litellm_no_upstream_llm_call": True}, **NO_TOKENS)
    record = build(call, None, failed=True)
    assert (record.outcome, record.usage_source, record.call_type) == ("failure", "engine", "anthropic_messages")
    assert (record.prompt_tokens, record.completion_tokens, record.model_served) == (8, 12, "served")
    assert (record.cost_nano_usd, record.cost_source) == (8 * 200 + 12 * 600, "custom_price")
