"""Do the books balance? The engine's own counters against the records of the calls, per model and call by call.

::

    before = wait_idle(s.engine_url)
    ...                                    # calls
    after = wait_idle(s.engine_url)
    reconcile(before, after, during(s.wait_for_records(n), before, after))

A completed call is in both books with the same numbers, and nothing is left over. Of a call that was not completed the
engine has counted more than was delivered: it has bounds, and a cause in words (see `accounts`). Beside all tokens
the engine counts those of finished requests (see `counters`). Abandoned calls are not among them, so those rows show
that the residual of the completed calls is zero, whatever was abandoned at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbook.accounts import COMPLETED, NOTHING, Account, Finished, account_of
from workbook.counters import EngineCounters, ModelCounters
from workbook.counters import read_counters as read_counters
from workbook.counters import wait_idle as wait_idle
from workbook.traces import GENERATION_TOKENS, PROMPT_TOKENS, engine_requests

_QUANTITIES = {
    "prompt_tokens": "prompt tokens",
    "generation_tokens": "generated tokens",
    "finished_prompt_tokens": "prompt tokens, finished",
    "finished_generation_tokens": "generated tokens, finished",
    "cache_hits": "cached prompt tokens",
    "requests": "requests, finished",
}
_TOKENS = ("prompt_tokens", "generation_tokens")

EXACT = "exact"
EXPLAINED = "explained"
NOT_BALANCED = "NOT balanced"

_CALL_COLUMNS = (
    *("call_id", "tenant_id", "model", "call_type", "stream", "outcome", "usage_source"),
    *("attempts", "error_type", "error_status"),
)


@dataclass(frozen=True)
class Reconciliation:
    """What `reconcile` found. A notebook shows it as a table; ``print`` gives the same as text.

    ``verdict`` begins with "balanced exactly", "balanced within the explained calls" or "NOT balanced".

    ``table`` has a row per model and quantity: model (as the engine names it), quantity, engine and records (counts),
    residual (engine less records), lowest and highest (the residual that the calls explain; highest is NA where
    nobody knows a bound), balance (exact, explained, NOT balanced).

    ``calls`` has a row per call that was not completed at the first attempt: the record's call_id, tenant_id, model,
    call_type, stream, outcome, usage_source, attempts, error_type and error_status, then cause, and per kind of
    tokens what is recorded (prompt_tokens times the choices, generation_tokens) and what the engine has counted
    (prompt_lowest, prompt_highest, generation_lowest, generation_highest).

    ``tenants`` has the recorded tokens per model and tenant: model, tenant, calls, prompt_tokens (times the choices),
    generation_tokens. A model's rows add up to the records' sums in ``table``.

    Of the engine's own spans, if they were given: ``proven`` is the number of completed calls that agree with theirs;
    ``contradicted`` has the calls that do not, ``untraced`` the completed calls that have none, as rows of the ledger;
    ``unrecorded`` the engine's spans that no record names. ``elsewhere`` are the calls of models that these
    engines do not serve, counted by model; they are left out.
    """

    verdict: str
    table: pd.DataFrame
    calls: pd.DataFrame
    tenants: pd.DataFrame
    proven: int
    contradicted: pd.DataFrame
    untraced: pd.DataFrame
    unrecorded: pd.DataFrame
    elsewhere: Mapping[str, int]

    @property
    def balanced(self) -> bool:
        """False when the engine and the records differ by more than the calls explain."""
        return not self.verdict.startswith(NOT_BALANCED)

    @property
    def causes(self) -> pd.DataFrame:
        """The explained calls by cause: cause, calls."""
        return self.calls.groupby("cause").size().rename("calls").reset_index()

    def _notes(self) -> list[str]:
        notes = []
        if self.proven:
            notes.append(f"{self.proven} completed calls agree with their own engine spans, call by call.")
        if len(self.untraced):
            notes.append(f"{len(self.untraced)} completed calls have no engine span.")
        return notes + [
            f"{count} calls of model {model}, which this engine does not serve, are left out."
            for model, count in self.elsewhere.items()
        ]

    def __repr__(self) -> str:
        return f"<reconciliation: {self.verdict}>"

    def _shown(self) -> pd.DataFrame:
        return self.table.astype(object).where(self.table.notna(), "unknown")

    def __str__(self) -> str:
        tables = [self._shown().to_string(index=False)]
        if len(self.calls):
            tables.append("\n".join(f"{row.calls:,} calls {row.cause}" for row in self.causes.itertuples()))
        return "\n\n".join([self.verdict, *tables, *self._notes()])

    def _repr_html_(self) -> str:
        tables = [self._shown().to_html(index=False, border=0)]
        if len(self.calls):
            tables.append(self.causes.to_html(index=False, border=0))
        return "\n".join([f"<p><b>{self.verdict}</b></p>", *tables, *(f"<p>{note}</p>" for note in self._notes())])


def during(spans: pd.DataFrame, before: EngineCounters, after: EngineCounters) -> pd.DataFrame:
    """The rows of ``spans`` that began between the two reads, by the gateway's clock and that of the reader."""
    return spans[(spans["start"] >= before.read_at) & (spans["start"] <= after.read_at)]


def reconcile(
    before: EngineCounters,
    after: EngineCounters,
    spans: pd.DataFrame,
    engine_spans: pd.DataFrame | None = None,
) -> Reconciliation:
    """Hold what the engine counted between two reads against the records of the calls made in between.

    ``before`` and ``after`` are from `wait_idle`. ``spans`` are rows of `spans.read_ledger`: all calls of that time
    and no others, see `during`; rows that are no cost records are left out. ``engine_spans`` are the engine's own
    spans of that time, from a ledger too: with them each call is compared with its own, and a request that the
    engine served and nobody recorded is found.

    Raises ValueError for reads of different engines, and `EngineRestarted` when one was started anew in between.
    """
    grown = after.since(before)
    records = spans[spans["outcome"].notna()]
    records = records.assign(engine_model=_engine_models(records, after.names, list(grown)))
    away = records["engine_model"].notna() & ~records["engine_model"].isin(list(grown))
    requests = None if engine_spans is None else engine_requests(engine_spans)
    finished = {} if requests is None else _finished(requests)
    accounts = [
        account_of(call, after.context, finished.get((call["trace_id"], call["span_id"])))
        for call in _plain(records[~away])
    ]
    table = _table(grown, accounts)
    here = records[~away]
    completed = pd.Series([account.cause == COMPLETED for account in accounts], here.index, dtype=bool)
    traced = pd.Series([account.finished is not None for account in accounts], here.index, dtype=bool)
    agrees = pd.Series([account.agrees for account in accounts], here.index, dtype=bool)
    unrecorded = _unrecorded(requests, records)
    return Reconciliation(
        verdict=_verdict(table, accounts, int((~agrees).sum()), len(unrecorded)),
        table=table,
        calls=_explained(accounts),
        tenants=_tenants(accounts),
        proven=int((completed & traced & agrees).sum()),
        contradicted=here[~agrees],
        untraced=here[completed & ~traced] if requests is not None else here.iloc[:0],
        unrecorded=unrecorded,
        elsewhere=records.loc[away, "engine_model"].value_counts().sort_index().to_dict(),
    )


def _engine_models(records: pd.DataFrame, names: Mapping[str, str], models: Sequence[str]) -> pd.Series:
    """The engine's name of each record's model; NA for one that the record does not tell.

    A call that its caller abandoned early, or that the gateway refused, has only the gateway's name: it is that of
    the other calls under this name, or the engine's only one.
    """
    served = records["model_served"].map(lambda name: names.get(name, name), na_action="ignore")
    told = pd.DataFrame({"asked": records["model"], "served": served}).dropna().drop_duplicates()
    told = told.drop_duplicates("asked", keep=False)  # those that always mean the same
    guessed = records["model"].map(dict(zip(told["asked"], told["served"], strict=True)))
    if len(models) == 1:
        guessed = guessed.fillna(models[0])
    return served.fillna(guessed)


def _plain(records: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as Python values, with None for what is missing."""
    values = records.astype(object).where(records.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in values.to_dict("records")]


def _finished(requests: pd.DataFrame) -> dict[tuple[str, str], Finished]:
    """By trace id and id of the cost span: the engine's spans below it."""
    sums = requests.groupby(["trace_id", "parent_span_id"]).agg(
        requests=("span_id", "size"),
        prompt_tokens=(PROMPT_TOKENS, "sum"),
        generation_tokens=(GENERATION_TOKENS, "sum"),
    )
    return {
        (str(trace), str(parent)): Finished(int(row.requests), int(row.prompt_tokens), int(row.generation_tokens))
        for (trace, parent), row in sums.iterrows()
    }


def _unrecorded(requests: pd.DataFrame | None, records: pd.DataFrame) -> pd.DataFrame:
    if requests is None:
        return pd.DataFrame()
    known = pd.MultiIndex.from_frame(records[["trace_id", "span_id"]])
    return requests[~pd.MultiIndex.from_frame(requests[["trace_id", "parent_span_id"]]).isin(known)]


def _table(grown: Mapping[str, ModelCounters], accounts: Sequence[Account]) -> pd.DataFrame:
    rows = []
    for model, counters in grown.items():
        # A call whose model nobody knows may have been any model's.
        calls = [account for account in accounts if account.call["engine_model"] in (model, None)]
        for counter, quantity in _QUANTITIES.items():
            counted = getattr(counters, counter)
            recorded = sum(account.recorded[counter] for account in calls)
            possible = sum((account.counted[counter] for account in calls), NOTHING)
            matches = EXACT if counted == recorded else EXPLAINED
            rows.append(
                {
                    "model": model,
                    "quantity": quantity,
                    "engine": counted,
                    "records": recorded,
                    "residual": counted - recorded,
                    "lowest": possible.low - recorded,
                    "highest": pd.NA if possible.high is None else possible.high - recorded,
                    "balance": matches if counted in possible else NOT_BALANCED,
                }
            )
    return pd.DataFrame(rows).astype(dict.fromkeys(("engine", "records", "residual", "lowest", "highest"), "Int64"))


def _verdict(table: pd.DataFrame, accounts: Sequence[Account], contradicted: int, unrecorded: int) -> str:
    problems = [
        f"{row.model}: {row.residual:+,} {row.quantity}, of which the calls explain "
        + (f"{row.lowest:+,} at least" if pd.isna(row.highest) else f"{row.lowest:+,} to {row.highest:+,}")
        for row in table[table["balance"] == NOT_BALANCED].itertuples()
    ]
    if contradicted:
        problems.append(f"{contradicted} calls differ from their own engine spans")
    if unrecorded:
        problems.append(f"{unrecorded} requests of the engine have no record")
    if problems:
        return f"{NOT_BALANCED}: {'; '.join(problems)}"
    tokens = table[table["quantity"].isin([_QUANTITIES[counter] for counter in _TOKENS])]
    completed = sum(account.cause == COMPLETED for account in accounts)
    if (tokens["balance"] == EXACT).all():
        return f"balanced exactly: {completed:,} completed calls, {tokens['engine'].sum():,} tokens"
    sums = tokens.groupby("quantity", sort=False)["residual"].sum()
    residual = " and ".join(f"{sums[_QUANTITIES[counter]]:+,} {_QUANTITIES[counter]}" for counter in _TOKENS)
    return (
        f"balanced within the explained calls: {completed:,} completed calls; "
        f"{residual}, explained by {len(accounts) - completed:,} others"
    )


def _explained(accounts: Sequence[Account]) -> pd.DataFrame:
    bounds = ("prompt_lowest", "prompt_highest", "generation_lowest", "generation_highest")
    rows = [
        {
            **{name: account.call[name] for name in _CALL_COLUMNS},
            "cause": account.cause,
            **{counter: account.recorded[counter] for counter in _TOKENS},
            "prompt_lowest": account.counted["prompt_tokens"].low,
            "prompt_highest": account.counted["prompt_tokens"].high,
            "generation_lowest": account.counted["generation_tokens"].low,
            "generation_highest": account.counted["generation_tokens"].high,
        }
        for account in accounts
        if account.cause != COMPLETED
    ]
    frame = pd.DataFrame(rows, columns=[*_CALL_COLUMNS, "cause", *_TOKENS, *bounds], dtype=object)
    return frame.astype(dict.fromkeys(("attempts", "error_status", *_TOKENS, *bounds), "Int64"))


def _tenants(accounts: Sequence[Account]) -> pd.DataFrame:
    rows = [
        {
            "model": account.call["engine_model"] or "unknown",
            "tenant": account.call["tenant_id"],
            "calls": 1,
            **{counter: account.recorded[counter] for counter in _TOKENS},
        }
        for account in accounts
    ]
    frame = pd.DataFrame(rows, columns=["model", "tenant", "calls", *_TOKENS])
    return frame.groupby(["model", "tenant"], as_index=False).sum()
