"""One table: which field of the record is exported under which attribute name.

The documentation of the schema is generated from here, so it cannot drift from what is emitted. The ``llm.*``
names come first; where the OpenTelemetry GenAI conventions have a name for the same fact it is emitted too.
Those conventions are in Development and have no tagged release; the names are those of August 2026. No cost
name is adopted there yet, and ``gen_ai.usage.cost`` may become a namespace, so it is no part of the table. Some
backends have cost views of their own that read it: `COST_VIEWS` are for these, where the operator asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_cost_logger.record import CallRecord

AttributeValue = str | bool | int | float | Sequence[str]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One exported attribute: its name, the `CallRecord` field it shows, type, unit (UCUM) and meaning."""

    name: str
    field: str
    type: str
    unit: str
    description: str
    scale: float | None = None  # the field's value times this, where a convention wants another unit


def _row(name: str, field: str, type_: str, description: str, unit: str = "", scale: float | None = None) -> Attribute:
    return Attribute(name, field, type_, unit, description, scale)


SCHEMA: tuple[Attribute, ...] = (
    _row("llm.model", "model", "string", "Model that answered, as callers ask for it"),
    _row(
        "llm.call_type",
        "call_type",
        "string",
        "LiteLLM's call type: completion, acompletion, aembedding, ...",
    ),
    _row("llm.tenant_id", "tenant_id", "string", "Who pays: the authenticated key's team"),
    _row("llm.prompt_tokens", "prompt_tokens", "int", "Tokens in the prompt, cached ones included", "{token}"),
    _row("llm.completion_tokens", "completion_tokens", "int", "Tokens generated, reasoning included", "{token}"),
    _row("llm.total_tokens", "total_tokens", "int", "Prompt plus completion", "{token}"),
    _row("llm.cost_usd", "cost_usd", "float", "Cost, for display", "USD"),
    _row("llm.duration_ms", "duration_ms", "float", "Wall-clock time of the call", "ms"),
    _row("llm.success", "success", "bool", "True when the call was answered in full"),
    _row(
        "llm.error",
        "error",
        "string",
        "Error class and status; the message only where the operator asked for it",
    ),
    _row("llm.outcome", "outcome", "string", "success, failure or client_disconnected"),
    _row("llm.call_id", "call_id", "string", "LiteLLM's call id; a caller may choose it with a header"),
    _row("llm.stream", "stream", "bool", "True when the answer was streamed"),
    _row(
        "llm.choice_count",
        "choice_count",
        "int",
        "Answers asked for: n; the engine counts the prompt for each",
        "{choice}",
    ),
    _row("llm.tenant_source", "tenant_source", "string", "Who says so: team, key_alias, caller or none"),
    _row(
        "llm.tenant_claimed",
        "tenant_claimed",
        "string",
        "Who the request said it was for, in body, headers or baggage: a claim, never used for money",
    ),
    _row("llm.key_alias", "key_alias", "string", "Name of the API key, never the key"),
    _row(
        "llm.model_requested",
        "model_requested",
        "string",
        "Model that the caller asked for, where a fallback answered in its place",
    ),
    _row("llm.model_served", "model_served", "string", "Model name sent to the backend"),
    _row("llm.cached_tokens", "cached_tokens", "int", "Prompt tokens read from the prefix cache", "{token}"),
    _row("llm.reasoning_tokens", "reasoning_tokens", "int", "Completion tokens spent on reasoning", "{token}"),
    _row("llm.usage_source", "usage_source", "string", "Who counted the tokens: engine, estimated, cache or none"),
    _row("llm.cache_hit", "cache_hit", "bool", "True when LiteLLM's response cache answered, and no engine"),
    _row("llm.cost_nano_usd", "cost_nano_usd", "int", "Cost in billionths of a dollar: sum this one", "nUSD"),
    _row(
        "llm.cost_source",
        "cost_source",
        "string",
        "Whose price: price_book, custom_price, cost_map or unpriced; not_charged where no engine worked, "
        "unknown where one may have and nobody counted",
    ),
    _row("llm.price_version", "price_version", "string", "Which version of those prices"),
    _row(
        "llm.budget_remaining_usd",
        "budget_remaining_usd",
        "float",
        "What the call leaves of the key's or the team's budget, whichever is less",
        "USD",
    ),
    _row("llm.time_to_first_token_ms", "time_to_first_token_ms", "float", "Start to first streamed chunk", "ms"),
    _row("llm.attempts", "attempts", "int", "Times the call was sent, repetitions and fallbacks included", "{attempt}"),
    _row("llm.error_status", "error_status", "int", "HTTP status of error.type"),
    _row("llm.schema_version", "schema_version", "string", "Version of this table"),
    _row("gen_ai.operation.name", "operation", "string", "chat, text_completion, embeddings, ..."),
    _row("gen_ai.provider.name", "provider", "string", "LiteLLM's provider: hosted_vllm, openai, ..."),
    _row("gen_ai.request.model", "model", "string", "As llm.model"),
    _row("gen_ai.request.choice.count", "choice_count", "int", "As llm.choice_count", "{choice}"),
    _row("gen_ai.request.stream", "stream", "bool", "As llm.stream"),
    _row("gen_ai.response.model", "model_served", "string", "As llm.model_served"),
    _row("gen_ai.response.id", "response_id", "string", "The backend's response id; it may repeat"),
    _row(
        "gen_ai.response.finish_reasons",
        "finish_reasons",
        "string[]",
        "Why each choice ended: stop, length, ...",
    ),
    _row(
        "gen_ai.response.time_to_first_chunk",
        "time_to_first_token_ms",
        "float",
        "As llm.time_to_first_token_ms",
        "s",
        scale=1e-3,
    ),
    _row("gen_ai.usage.input_tokens", "prompt_tokens", "int", "As llm.prompt_tokens", "{token}"),
    _row("gen_ai.usage.output_tokens", "completion_tokens", "int", "As llm.completion_tokens", "{token}"),
    _row("gen_ai.usage.cache_read.input_tokens", "cached_tokens", "int", "As llm.cached_tokens", "{token}"),
    _row(
        "gen_ai.usage.reasoning.output_tokens",
        "reasoning_tokens",
        "int",
        "As llm.reasoning_tokens",
        "{token}",
    ),
    _row("error.type", "error_type", "string", "Class of what went wrong, of a call that was not answered in full"),
    _row("server.address", "server_address", "string", "Host of the backend"),
    _row("server.port", "server_port", "int", "Port of the backend"),
)


COST_VIEWS: tuple[Attribute, ...] = (
    _row("gen_ai.usage.cost", "cost_usd", "float", "As llm.cost_usd; Langfuse takes it for the cost", "USD"),
    _row("llm.cost.total", "cost_usd", "float", "As llm.cost_usd; OpenInference's name, for Arize AX", "USD"),
    _row("gen_ai.server.ttft", "time_to_first_token_ms", "float", "As llm.time_to_first_token_ms; SigNoz", "s", 1e-3),
)

_NAMES = tuple(row.name for row in SCHEMA)
_SCALES = {row.name: row.scale for row in SCHEMA if row.scale is not None}
_values_of = attrgetter(*(row.field for row in SCHEMA))


def attributes_of(record: CallRecord, *, cost_views: bool = False) -> dict[str, AttributeValue]:
    """The attributes of ``record``'s span, by name, with ``cost_views`` those for backends' own views too. A field that
    is None has none, and what nobody has priced costs nothing known: a backend must not take it for free."""
    attributes = {name: value for name, value in zip(_NAMES, _values_of(record), strict=True) if value is not None}
    for name, scale in _SCALES.items():
        if name in attributes:
            attributes[name] *= scale
    if not cost_views:
        return attributes
    from otel_cost_logger.pricing import UNPRICED  # LiteLLM is loaded with it, and must not be to read a ledger

    for row in COST_VIEWS:
        value = getattr(record, row.field)
        if value is not None and not (row.field == "cost_usd" and record.cost_source == UNPRICED):
            attributes[row.name] = value * (row.scale or 1.0)
    return attributes


def schema_markdown() -> str:
    """The table as Markdown, for the documentation."""
    lines = ["| Attribute | Type | Unit | Meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{row.name}` | {row.type} | {row.unit} | {row.description} |" for row in SCHEMA]
    return "\n".join(lines)
