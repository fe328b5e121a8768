from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from workbook import accounts
from workbook.counters import EngineCounters, EngineRestarted, ModelCounters, OneEngine
from workbook.reconcile import Reconciliation, during, reconcile

START = pd.Timestamp("2026-01-01T00:00:00Z")
CONTEXT = 1000  # tokens
# One call that was answered in full: 10 tokens in, 5 out, none of them cached.
ANSWERED: dict[str, Any] = {
    "call_type": "acompletion",
    "operation": "chat",
    "stream": False,
    "choice_count": 1,
    "model": "gateway-name",
    "model_served": "m",
    "tenant_id": "acme",
    "outcome": "success",
    "usage_source": "engine",
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "cached_tokens": 0,
    "attempts": 1,
    "finish_reasons": ["stop"],
    "error_type": None,
    "error_status": None,
}
LEFT = {"outcome": "client_disconnected", "error_status": 499, "stream": True}
NOTHING_COUNTED = {"usage_source": "none", "prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": None}
FAILED = {"outcome": "failure", "finish_reasons": None} | NOTHING_COUNTED


def records(*calls: dict[str, Any]) -> pd.DataFrame:
    """A ledger's rows: each call is an answered one, changed by what is given."""
    rows = [
        ANSWERED | {"call_id": f"call-{n}", "trace_id": f"t{n}", "span_id": f"s{n}"} | call
        for n, call in enumerate(calls)
    ]
    frame = pd.DataFrame(rows, columns=[*ANSWERED, "cost_source", "call_id", "trace_id", "span_id"], dtype=object)
    counts = ("choice_count", "prompt_tokens", "completion_tokens", "cached_tokens", "attempts", "error_status")
    return frame.astype(dict.fromkeys(counts, "Int64")).assign(start=START)


def engine_spans(*requests: tuple[int, int, int]) -> pd.DataFrame:
    """``llm_request`` spans: number of the call, prompt tokens and generated tokens."""
    return pd.DataFrame(
        {
            "span_name": "llm_request",
            "span_id": [f"e{n}" for n in range(len(requests))],
            "trace_id": [f"t{call}" for call, _, _ in requests],
            "parent_span_id": [f"s{call}" for call, _, _ in requests],
            "gen_ai.usage.prompt_tokens": [prompt for _, prompt, _ in requests],
            "gen_ai.usage.completion_tokens": [generated for _, _, generated in requests],
        }
    )


def read(
    at: float = 0.0, *, started: float = 1.0, context: int | None = CONTEXT, **models: ModelCounters
) -> EngineCounters:
    """Counters, read ``at`` seconds after `START`; the engine also answers to "alias"."""
    names = {name: name for name in models} | {"alias": next(iter(models))}
    engine = OneEngine(models, started, names, context)
    return EngineCounters({"http://engine": engine}, START + pd.Timedelta(seconds=at))


def counted(
    prompt: int, generated: int, finished: tuple[int, int] | None = None, requests: int = 1, hits: int = 0
) -> ModelCounters:
    """Everything is finished unless ``finished`` tells the prompt and generated tokens that are."""
    finished_prompt, finished_generated = (prompt, generated) if finished is None else finished
    return ModelCounters(prompt, generated, finished_prompt, finished_generated, requests, prompt, hits)


def balance(
    spans: pd.DataFrame, m: ModelCounters, traces: pd.DataFrame | None = None, **options: Any
) -> Reconciliation:
    """Against an engine that had counted 100 of everything before."""
    earlier = ModelCounters(*([100] * 7))
    return reconcile(read(m=earlier, **options), read(9.0, m=earlier + m, **options), spans, traces)


def row(result: Reconciliation, quantity: str) -> dict[str, Any]:
    (found,) = result.table[result.table["quantity"] == quantity].to_dict("records")
    return {str(name): value for name, value in found.items()}


def only_call(result: Reconciliation) -> dict[str, Any]:
    (found,) = result.calls.to_dict("records")
    return {str(name): value for name, value in found.items()}


def bounds(call: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(call[name] for name in ("prompt_lowest", "prompt_highest", "generation_lowest", "generation_highest"))


def test_completed_calls_balance_to_the_token() -> None:
    result = balance(records({}, {"stream": True, "completion_tokens": 7}), counted(20, 12, requests=2))
    assert result.balanced
    assert result.verdict == "balanced exactly: 2 completed calls, 32 tokens"
    assert set(result.table["balance"]) == {"exact"}
    assert set(result.table["residual"]) == {0}
    assert result.calls.empty
    assert repr(result) == "<reconciliation: balanced exactly: 2 completed calls, 32 tokens>"


def test_an_answer_from_the_cache_is_in_the_books_once() -> None:
    cached = {"usage_source": "cache", "cost_source": "not_charged"}
    result = balance(records({}, cached), counted(10, 5))
    assert result.verdict == "balanced exactly: 1 completed calls, 15 tokens"
    assert list(result.calls["cause"]) == [accounts.CACHED]
    assert not balance(records({}, cached), counted(20, 10, requests=2)).balanced


@pytest.mark.parametrize("status", [400, 408, 500])
@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_what_nobody_counted_has_bounds_whatever_the_status(outcome: str, status: int) -> None:
    """A guardrail's 400 comes after the engine has worked."""
    uncounted = FAILED | {"outcome": outcome, "error_status": status, "cost_source": "unknown"}
    result = balance(records({}, uncounted), counted(20, 9, finished=(10, 5)))
    assert result.balanced
    assert only_call(result)["cause"] == (accounts.UNCOUNTED if outcome == "success" else accounts.FAILED)
    assert not balance(records({}, uncounted), counted(20 + 2 * CONTEXT, 9, finished=(10, 5))).balanced


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("what", ["prompt_tokens", "completion_tokens"])
def test_one_token_is_enough_to_be_out_of_balance(what: str, off: int) -> None:
    result = balance(records({}, {what: ANSWERED[what] + off}), counted(20, 10, requests=2))
    assert not result.balanced
    tokens = "prompt tokens" if what == "prompt_tokens" else "generated tokens"
    assert result.verdict.startswith(f"NOT balanced: m: {-off:+} {tokens}, of which the calls explain +0 to +0; m: ")


def test_a_record_that_is_missing_or_too_many_is_found() -> None:
    assert not balance(records({}), counted(20, 10, requests=2)).balanced
    assert not balance(records({}, {}), counted(10, 5)).balanced
    assert not balance(records(), counted(10, 5)).balanced


def test_the_engine_counts_the_prompt_of_each_choice() -> None:
    two = {"choice_count": 2, "completion_tokens": 9, "finish_reasons": ["stop", "length"]}
    result = balance(records(two), counted(20, 9, requests=2))
    assert set(result.table["balance"]) == {"exact"}
    assert not balance(records(two), counted(10, 9)).balanced
    assert result.tenants.to_dict("records") == [
        {"model": "m", "tenant": "acme", "calls": 1, "prompt_tokens": 20, "generation_tokens": 9}
    ]


def test_a_ledger_without_the_number_of_choices_has_one_each() -> None:
    assert balance(records({}).drop(columns="choice_count"), counted(10, 5)).balanced
    assert balance(records({"choice_count": None}), counted(10, 5)).balanced


def test_prompts_in_a_list_are_requests_of_their_own() -> None:
    three = {"operation": "text_completion", "finish_reasons": ["stop"] * 3}
    assert row(balance(records(three), counted(10, 5, requests=3)), "requests, finished")["balance"] == "exact"
    streamed = three | {"finish_reasons": ["stop"]}  # LiteLLM puts a stream's choices into one
    requests = row(balance(records(streamed), counted(10, 5, requests=3)), "requests, finished")
    assert (requests["residual"], requests["balance"]) == (2, "explained")
    assert pd.isna(requests["highest"])
    assert row(balance(records({}), counted(10, 5, requests=3)), "requests, finished")["balance"] == "NOT balanced"


def test_embeddings_generate_nothing() -> None:
    embedded = {"operation": "embeddings", "completion_tokens": 0, "finish_reasons": None}
    assert balance(records(embedded), counted(10, 0)).verdict.startswith("balanced exactly")
    failed = balance(records(embedded | FAILED | {"error_status": 500}), counted(10, 0, requests=0, finished=(0, 0)))
    assert bounds(only_call(failed))[2:] == (0, 0)


def test_cached_tokens_are_held_against_the_engines_hits() -> None:
    told = records({"cached_tokens": 8})
    assert row(balance(told, counted(10, 5, hits=8)), "cached prompt tokens")["balance"] == "exact"
    assert not balance(told, counted(10, 5, hits=7)).balanced
    untold = records({"cached_tokens": None})
    assert row(balance(untold, counted(10, 5, hits=8)), "cached prompt tokens")["balance"] == "explained"
    assert not balance(untold, counted(10, 5, hits=11)).balanced  # more than its prompt
    two = records({"cached_tokens": 8, "choice_count": 2})  # that of one choice
    result = balance(two, counted(20, 5, requests=2, hits=16))
    assert row(result, "cached prompt tokens")["residual"] == 8
    assert result.verdict.startswith("balanced exactly")


@pytest.mark.parametrize(
    ("call", "cause", "possible"),
    [
        # prompt from, to; generated from, to
        (LEFT | {"completion_tokens": 3}, accounts.ABANDONED, (10, 10, 3, 990)),
        (LEFT | {"usage_source": "estimated"}, accounts.ABANDONED_GUESSED, (0, 1000, 0, 1000)),
        (
            LEFT | {"usage_source": "estimated", "choice_count": 2},
            accounts.ABANDONED_GUESSED,
            (0, 2000, 0, 2000),
        ),
        (LEFT | NOTHING_COUNTED | {"model_served": None}, accounts.ABANDONED_UNCOUNTED, (0, 1000, 0, 1000)),
        (LEFT | {"operation": "text_completion"}, accounts.ABANDONED, (10, None, 5, None)),
        (FAILED | {"error_status": 401, "model_served": None}, accounts.REFUSED_BY_GATEWAY, (0, 0, 0, 0)),
        (FAILED | {"error_status": 400}, accounts.REFUSED_BY_ENGINE, (0, 0, 0, 0)),
        (FAILED | {"error_status": 500}, accounts.FAILED, (0, 1000, 0, 1000)),
        (FAILED | {"error_status": None}, accounts.FAILED, (0, 1000, 0, 1000)),
        (FAILED | {"error_status": 408}, accounts.FAILED, (0, 1000, 0, 1000)),  # the gateway's patience ended
        (FAILED | {"error_status": 500, "attempts": 3}, accounts.FAILED, (0, 3000, 0, 3000)),
        ({"attempts": 3}, accounts.REPEATED, (10, 30, 5, 2005)),
        ({"usage_source": "estimated"}, accounts.GUESSED, (0, 1000, 0, 1000)),
    ],
)
def test_each_other_call_has_a_cause_and_bounds(
    call: dict[str, Any], cause: str, possible: tuple[int | None, ...]
) -> None:
    spans = records({}, call)
    lowest, highest = possible[0] or 0, possible[3] if possible[3] is not None else 50
    within = counted(10 + lowest, 5 + highest, finished=(10, 5), requests=1)
    if cause == accounts.REPEATED:
        within = counted(20, 5 + highest, finished=(20, 10), requests=2)
    result = balance(spans, within)
    assert result.balanced, result.verdict
    explained = only_call(result)
    assert explained["cause"] == cause
    assert explained["call_id"] == "call-1"
    assert bounds(explained) == possible
    assert result.causes.to_dict("records") == [{"cause": cause, "calls": 1}]
    below = counted(10 + lowest - 1, 5 + highest, finished=(10, 5))
    assert not balance(spans, below).balanced
    if possible[3] is not None:
        above = counted(10 + lowest, 5 + highest + 1, finished=(10, 5))
        assert not balance(spans, above).balanced


def test_what_was_abandoned_does_not_hide_what_was_completed() -> None:
    """A token less in a completed record would fit into what the abandoned call explains, but for the finished ones."""
    spans = records({"completion_tokens": 4}, LEFT | NOTHING_COUNTED)
    lost = balance(spans, counted(20, 50, finished=(10, 5)))
    assert row(lost, "generated tokens")["balance"] == "explained"
    assert row(lost, "generated tokens, finished")["residual"] == 1
    # Without the engine's spans the abandoned call may have been the one that finished.
    traced = balance(spans, counted(20, 50, finished=(10, 5)), engine_spans((0, 10, 5)))
    assert not traced.balanced
    assert "1 calls differ from their own engine spans" in traced.verdict
    assert list(traced.contradicted["call_id"]) == ["call-0"]


def test_without_a_known_context_there_is_no_upper_bound() -> None:
    result = balance(records({}, LEFT | NOTHING_COUNTED), counted(20, 999_999, finished=(10, 5)), context=None)
    assert result.verdict == (
        "balanced within the explained calls: 1 completed calls; "
        "+10 prompt tokens and +999,994 generated tokens, explained by 1 others"
    )
    assert bounds(only_call(result)) == (0, None, 0, None)
    assert "unknown" in str(result)


def test_every_completed_call_is_proven_by_its_own_spans() -> None:
    spans = records({}, {"choice_count": 2, "completion_tokens": 9, "finish_reasons": ["stop", "stop"]}, {})
    m = counted(40, 19, requests=4)
    result = balance(spans, m, engine_spans((0, 10, 5), (1, 10, 4), (1, 10, 5), (2, 10, 5)))
    assert (result.proven, len(result.contradicted), len(result.untraced), len(result.unrecorded)) == (3, 0, 0, 0)
    assert "3 completed calls agree with their own engine spans" in str(result)
    # Two records that are wrong by as much in opposite directions: the sums do not show it.
    swapped = spans.assign(completion_tokens=[6, 9, 4])
    assert balance(swapped, m).balanced
    found = balance(swapped, m, engine_spans((0, 10, 5), (1, 10, 4), (1, 10, 5), (2, 10, 5)))
    assert list(found.contradicted["call_id"]) == ["call-0", "call-2"]
    assert (found.proven, found.balanced) == (1, False)


def test_a_request_that_nobody_recorded_is_named() -> None:
    """Also where an abandoned call would explain its tokens."""
    spans = records({}, LEFT | NOTHING_COUNTED)
    result = balance(spans, counted(20, 10, requests=2), engine_spans((0, 10, 5), (7, 10, 5)))
    assert result.verdict == "NOT balanced: 1 requests of the engine have no record"
    assert list(result.unrecorded["trace_id"]) == ["t7"]


def test_a_completed_call_without_a_span_is_named() -> None:
    result = balance(records({}, {}), counted(20, 10, requests=2), engine_spans((0, 10, 5)))
    assert result.balanced
    assert list(result.untraced["call_id"]) == ["call-1"]
    assert "1 completed calls have no engine span." in str(result)


def test_an_abandoned_call_that_the_engine_finished_is_known_exactly() -> None:
    spans = records(LEFT | {"completion_tokens": 3})
    result = balance(spans, counted(10, 8), engine_spans((0, 10, 8)))
    explained = only_call(result)
    assert (explained["cause"], bounds(explained)) == (accounts.FINISHED_UNSEEN, (10, 10, 8, 8))
    assert result.balanced
    assert not balance(spans, counted(10, 9), engine_spans((0, 10, 8))).balanced
    # Of two choices one has finished: that much at least.
    half = balance(
        records(LEFT | {"choice_count": 2, "usage_source": "estimated"}),
        counted(20, 12, finished=(10, 8)),
        engine_spans((0, 10, 8)),
    )
    assert bounds(only_call(half)) == (10, 2000, 8, 2000)


def test_a_span_that_no_record_can_have_contradicts_it() -> None:
    refused = records(FAILED | {"error_status": 400})
    result = balance(refused, counted(10, 5), engine_spans((0, 10, 5)))
    assert not result.balanced
    assert len(result.contradicted) == 1


def test_models_are_held_apart_by_the_engines_name() -> None:
    earlier = ModelCounters()
    spans = records({"model": "cheap"}, {"model": "dear"}, {"model_served": "alias"}, {"model_served": "x"})
    after = read(9.0, m=counted(30, 15, requests=3), x=counted(10, 5))
    result = reconcile(read(m=earlier, x=earlier), after, spans)
    assert result.verdict == "balanced exactly: 4 completed calls, 60 tokens"
    assert list(dict.fromkeys(result.table["model"])) == ["m", "x"]
    # As much in one as it is too much in the other.
    after = read(9.0, m=counted(20, 15, requests=3), x=counted(20, 5))
    assert not reconcile(read(m=earlier, x=earlier), after, spans).balanced


def test_a_call_without_a_served_model_is_put_where_its_name_belongs() -> None:
    earlier = ModelCounters()
    unknown = LEFT | NOTHING_COUNTED | {"model_served": None}
    after = read(9.0, m=counted(20, 50, finished=(10, 5)), x=counted(10, 5))
    known = reconcile(read(m=earlier, x=earlier), after, records({}, {"model": "other", "model_served": "x"}, unknown))
    assert known.balanced
    assert list(known.tenants["model"]) == ["m", "x"]
    # Nobody else called by that name: it may have been either model's.
    nobody = reconcile(
        read(m=earlier, x=earlier),
        after,
        records({}, {"model": "other", "model_served": "x"}, unknown | {"model": "third"}),
    )
    assert nobody.balanced
    assert list(nobody.tenants["model"]) == ["m", "unknown", "x"]


def test_calls_of_other_engines_are_left_out_and_counted() -> None:
    result = balance(records({}, {"model": "gpt", "model_served": "gpt"}), counted(10, 5))
    assert result.verdict.startswith("balanced exactly: 1 completed calls")
    assert result.elsewhere == {"gpt": 1}
    assert "1 calls of model gpt, which this engine does not serve, are left out." in str(result)


def test_tenants_add_up_to_the_records() -> None:
    spans = records({}, {"tenant_id": "globex", "prompt_tokens": 20}, {"tenant_id": "globex"}, LEFT)
    result = balance(spans, counted(50, 25, finished=(40, 15), requests=3))
    assert result.tenants.to_dict("records") == [
        {"model": "m", "tenant": "acme", "calls": 2, "prompt_tokens": 20, "generation_tokens": 10},
        {"model": "m", "tenant": "globex", "calls": 2, "prompt_tokens": 30, "generation_tokens": 10},
    ]
    assert result.tenants["prompt_tokens"].sum() == row(result, "prompt tokens")["records"]


def test_rows_that_are_no_records_are_left_out() -> None:
    spans = records({}, {"outcome": None, "prompt_tokens": 99})
    assert balance(spans, counted(10, 5)).verdict.startswith("balanced exactly: 1 completed calls")


def test_an_engine_that_was_started_anew_is_refused() -> None:
    before, after = read(m=counted(10, 5)), read(9.0, started=2.0, m=counted(20, 10))
    with pytest.raises(EngineRestarted):
        reconcile(before, after, records({}))


def test_calls_are_chosen_by_the_time_of_the_reads() -> None:
    spans = records({}, {}, {}).assign(start=START + pd.to_timedelta([-1, 5, 10], unit="s"))
    assert list(during(spans, read(m=ModelCounters()), read(9.0, m=ModelCounters()))["call_id"]) == ["call-1"]


def test_it_shows_the_same_each_time_in_text_and_in_a_notebook() -> None:
    spans, m = records({}, LEFT | {"completion_tokens": 2}), counted(20, 17, finished=(10, 5))
    result = balance(spans, m)
    text, html = str(result), result._repr_html_()
    assert text.startswith(
        "balanced within the explained calls: 1 completed calls; "
        "+0 prompt tokens and +10 generated tokens, explained by 1 others"
    )
    assert f"1 calls {accounts.ABANDONED}" in text
    for word in ("prompt tokens, finished", "residual", "explained", accounts.ABANDONED):
        assert word in html
    assert (str(balance(spans, m)), balance(spans, m)._repr_html_()) == (text, html)
    assert "call-1" not in text  # ids differ from run to run
