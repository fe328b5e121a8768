"""What the engine is told beside the caller's request: the cost span's trace context, and to count as it goes.

LiteLLM sends no trace context to the backend (measured with 1.106.2), so vLLM's ``llm_request`` span would be a
trace of its own. And a stream's usage comes with its last chunk, which a caller who hangs up never lets come; with
``continuous_usage_stats`` vLLM puts its count so far into every chunk, and LiteLLM takes it out again before the
caller sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace.id_generator import IdGenerator

from otel_cost_logger.planned import PlannedSpan, plan, planned_for_logging_object
from otel_cost_logger.record import caller_traceparent
from otel_cost_logger.span import parent_of

_HEADER = "traceparent"
_VLLM = "hosted_vllm"  # LiteLLM's provider for vLLM's OpenAI-compatible server
# With an address of its own, vLLM is also served under these; without one they are OpenAI's service.
_MAY_BE_VLLM = frozenset({"openai", "text-completion-openai", "openai_like", "custom_openai"})


def with_trace_context(request: dict[str, Any], ids: IdGenerator) -> dict[str, Any]:
    """``request`` (a deployment hook's ``kwargs``) with a ``traceparent`` header that names the call's cost span.

    Unchanged when its backend is somebody else's service.
    """
    if not _may_be_vllm(request):
        return request
    planned = _planned_span(request, ids)
    given = request.get("extra_headers")
    others = given if isinstance(given, Mapping) else {}
    headers = {name: value for name, value in others.items() if str(name).lower() != _HEADER}
    # The span is always recorded, so the flag is always "sampled".
    headers[_HEADER] = f"00-{planned.trace_id:032x}-{planned.span_id:016x}-01"
    return {**request, "extra_headers": headers}


def with_stream_usage(
    request: dict[str, Any], call_type: object, *, behind_proxy: bool, always: bool = False
) -> dict[str, Any]:
    """``request`` so that its stream, if it is one from vLLM, carries the engine's count.

    The proxy asks for it in the last chunk of each chat, and hides that chunk from a caller who did not. Of streamed
    text completions it asks nothing, and records 0 tokens: they are made to end with their usage, which the caller
    sees. Where LiteLLM translates between two forms of an API it asks for nothing either; ``always`` says so. A program
    in library mode decides for itself.
    """
    if not (request.get("stream") and _may_be_vllm(request)):
        return request
    given = request.get("stream_options")
    options = dict(given) if isinstance(given, Mapping) else {}
    kind = getattr(call_type, "value", call_type)
    if behind_proxy and (kind == "atext_completion" or (always and kind == "acompletion")):
        options["include_usage"] = True
    if options.get("include_usage") and _provider(request) == _VLLM:
        options["continuous_usage_stats"] = True  # vLLM's own; others may refuse it
    return {**request, "stream_options": options} if options else request


def _planned_span(request: Mapping[str, Any], ids: IdGenerator) -> PlannedSpan:
    """The ids of this call's span: chosen once, and kept when the router repeats the call."""
    logging_object = request.get("litellm_logging_obj")
    if planned := planned_for_logging_object(logging_object):
        return planned
    traceparent = caller_traceparent(request)
    parent = parent_of(traceparent)
    planned = PlannedSpan(
        trace_id=parent.trace_id if parent else ids.generate_trace_id(),
        span_id=ids.generate_span_id(),
        parent=traceparent,
    )
    plan(logging_object, planned)
    return planned


def _may_be_vllm(request: Mapping[str, Any]) -> bool:
    provider = _provider(request)
    return provider == _VLLM or (provider in _MAY_BE_VLLM and bool(request.get("api_base")))


def _provider(request: Mapping[str, Any]) -> str:
    return str(request.get("custom_llm_provider") or str(request.get("model")).partition("/")[0])
