"""One trace per call, from the gateway into the engine: the cost span and the ``llm_request`` spans below it.

vLLM leaves one ``llm_request`` span per choice and prompt when that is finished, as a child of the ``traceparent`` it
was sent (``--otlp-traces-endpoint``); the callback sends the cost span's own. An aborted request leaves none.
"""

from __future__ import annotations

import pandas as pd

ENGINE_SPAN = "llm_request"
PROMPT_TOKENS = "gen_ai.usage.prompt_tokens"
GENERATION_TOKENS = "gen_ai.usage.completion_tokens"
_FIRST_TOKEN = "gen_ai.latency.time_to_first_token"
# Seconds, measured in the engine, and what `join` calls them in milliseconds.
_PHASES = {
    "queue_ms": "gen_ai.latency.time_in_queue",
    "prefill_ms": "gen_ai.latency.time_in_model_prefill",
    "decode_ms": "gen_ai.latency.time_in_model_decode",
}
_REQUEST_ID = "gen_ai.request.id"
_ATTRIBUTES = (PROMPT_TOKENS, GENERATION_TOKENS, _FIRST_TOKEN, _REQUEST_ID, *_PHASES.values())
# In order of time; together they are the call's duration.
PHASES = (
    "gateway_before_ms",
    "engine_before_ms",
    "queue_ms",
    "prefill_ms",
    "decode_ms",
    "engine_after_ms",
    "gateway_after_ms",
)
# What `join` takes from the engine's span.
_ENGINE_COLUMNS = (
    *("engine_requests", "engine_span_id", "engine_start", "engine_end", "request_id"),
    *("engine_before_ms", *_PHASES, "engine_after_ms"),
)


def engine_requests(engine_spans: pd.DataFrame) -> pd.DataFrame:
    """The ``llm_request`` spans of a ledger (see `spans.read_ledger`); a starting engine leaves others as well."""
    requests = engine_spans[engine_spans["span_name"] == ENGINE_SPAN]
    return requests.reindex(columns=list(dict.fromkeys([*requests.columns, *_ATTRIBUTES])))


def join(spans: pd.DataFrame, engine_spans: pd.DataFrame) -> pd.DataFrame:
    """One row per call: the cost record's columns (see `spans.read_ledger`), and where its time went.

    Added are engine_requests (how many spans of the engine the call has), engine_span_id, engine_start and
    engine_end (UTC), request_id (the engine's), and in milliseconds, in order of time: gateway_before_ms,
    engine_before_ms (checks, the text's tokens, and the step that the model is in the middle of), queue_ms,
    prefill_ms, decode_ms, engine_after_ms (the tokens' text, the way back) and gateway_after_ms. They add up to the
    call's duration.

    Of a call with several choices they are those of the request that ended last: the call waited for it. A call
    without an engine span (aborted, refused, not traced) has NA. The engine does not say when its phases began:
    engine_before_ms is its time to the first token less queue and prefill, as far as the whole has room for it.

    Start and end are by the clock of each machine: where they are two, gateway_before_ms and gateway_after_ms are off
    by the clocks' difference, in opposite directions.
    """
    requests = engine_requests(engine_spans).sort_values(["end", "span_id"])
    of_call = ["trace_id", "parent_span_id"]
    counts = requests.groupby(of_call)["span_id"].transform("size")
    engine = requests.assign(
        engine_requests=counts,
        request_id=requests[_REQUEST_ID],
        **{name: 1e3 * requests[attribute].astype("Float64") for name, attribute in _PHASES.items()},
    ).drop_duplicates(of_call, keep="last")
    until_first_token = 1e3 * engine[_FIRST_TOKEN].astype("Float64") - engine["queue_ms"] - engine["prefill_ms"]
    beside = _milliseconds(engine["end"] - engine["start"]) - engine[list(_PHASES)].sum(axis=1, skipna=False)
    engine = engine.assign(
        engine_before_ms=until_first_token.clip(upper=beside),
        engine_after_ms=beside - until_first_token.clip(upper=beside),
    ).rename(columns={"span_id": "engine_span_id", "start": "engine_start", "end": "engine_end"})
    calls = spans[spans["outcome"].notna()].merge(
        engine[[*of_call, *_ENGINE_COLUMNS]].rename(columns={"parent_span_id": "span_id"}),
        on=["trace_id", "span_id"],
        how="left",
    )
    return calls.assign(
        engine_requests=calls["engine_requests"].fillna(0).astype("Int64"),
        gateway_before_ms=_milliseconds(calls["engine_start"] - calls["start"]),
        gateway_after_ms=_milliseconds(calls["end"] - calls["engine_end"]),
    )


def _milliseconds(durations: pd.Series) -> pd.Series:
    return (durations / pd.Timedelta(milliseconds=1)).astype("Float64")
