"""One table: every interface of LiteLLM and OpenTelemetry that the plugin uses and nobody promised to keep.

A name is looked up where it is defined. A key is looked for in what LiteLLM gives to the plugin's hooks, during the
self-check's calls. A new use of either needs a row here; a test reads the plugin's source and asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

LITELLM = "LiteLLM"
OPENTELEMETRY = "OpenTelemetry"

# Where a key is looked for.
REPORT = "report"  # ``kwargs`` of the logging hooks, which become a record
REQUEST = "request"  # ``data`` of the proxy's hook before each call
ATTEMPT = "attempt"  # ``kwargs`` of the hook before each attempt
IDENTITY = "identity"  # the proxy's ``user_api_key_dict``
EXCEPTION = "exception"  # what the proxy gave up with
ANSWER = "answer"  # what the proxy is about to give to the caller

_STEP = re.compile(r"(\w+)(\(\))?")


@dataclass(frozen=True, slots=True)
class Interface:
    """``name`` is ``module:attribute.attribute`` where ``place`` is empty ("()" calls without arguments), else the path
    of a key, or attribute, in what ``place`` stands for. ``used_in`` are modules of the plugin."""

    owner: str
    name: str
    used_in: str
    place: str = ""

    @property
    def identifier(self) -> str:
        """The last part of the name: what a new version may call otherwise."""
        return re.split(r"[:.]", self.name)[-1]

    def __str__(self) -> str:
        return f"{self.owner}'s {self.place + ' ' if self.place else ''}{self.name}"

    def is_there(self) -> bool:
        """Whether a name is still where it was; for a key ask `found_in`. Imports its module."""
        module, _, path = self.name.partition(":")
        try:
            found: Any = import_module(module)
            for step, call in _STEP.findall(path):
                found = found[step] if isinstance(found, Mapping) else getattr(found, step)
                found = found() if call else found
        except (ImportError, AttributeError, LookupError, TypeError):
            return False
        return True

    def found_in(self, thing: Any) -> bool:
        """Whether ``thing`` has this key."""
        for step in self.name.split("."):
            if isinstance(thing, Mapping):
                if step not in thing:
                    return False
                thing = thing[step]
            elif not hasattr(thing, step):
                return False
            else:
                thing = getattr(thing, step)
        return thing is not None


def _names(owner: str, used_in: str, module: str, *attributes: str) -> tuple[Interface, ...]:
    return tuple(Interface(owner, f"{module}:{attribute}", used_in) for attribute in attributes)


def _keys(place: str, used_in: str, prefix: str, *names: str) -> tuple[Interface, ...]:
    return tuple(Interface(LITELLM, f"{prefix}{name}", used_in, place) for name in names)


_PAYLOAD = "standard_logging_object."
_PROXY = "litellm.proxy."
_OTLP = "opentelemetry.exporter.otlp.proto"
_HOOKS = (
    *("log_pre_api_call", "log_success_event", "log_failure_event", "async_log_success_event"),
    *("async_log_failure_event", "async_pre_call_deployment_hook", "async_pre_call_hook"),
    *("async_post_call_failure_hook", "async_post_call_response_headers_hook"),
    "async_post_call_success_deployment_hook",
)

INTERFACES: tuple[Interface, ...] = (
    *_names(LITELLM, "logger, record", "litellm.constants", "LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL"),
    *_names(LITELLM, "logger", "litellm.integrations.custom_logger", *(f"CustomLogger.{hook}" for hook in _HOOKS)),
    *_names(LITELLM, "logger", "litellm", "global_disable_no_log_param"),
    *_names(LITELLM, "pricing, deployments", "litellm", "model_cost", "provider_list"),
    *_names(LITELLM, "record, net.record", "litellm", "stream_chunk_builder", "token_counter"),
    *_names(LITELLM, "budgets.manager", "litellm", "BudgetExceededError"),
    *_names(LITELLM, "pricing", "litellm.litellm_core_utils.litellm_logging", "use_custom_pricing_for_model"),
    *_names(LITELLM, "pricing", "litellm.types.utils", "CustomPricingLiteLLMParams.model_fields"),
    *_names(LITELLM, "auth", f"{_PROXY}_types", "LitellmUserRoles.PROXY_ADMIN", "LitellmUserRoles.INTERNAL_USER"),
    *_names(LITELLM, "auth, logger, budgets.refusal", f"{_PROXY}_types", "ProxyException"),
    *(
        row
        for field in ("api_key", "key_alias", "team_id", "team_alias", "models", "user_role")
        for row in _names(LITELLM, "auth", f"{_PROXY}_types", f"UserAPIKeyAuth.model_fields.{field}")
    ),
    *_names(LITELLM, "auth", f"{_PROXY}auth.auth_utils", "get_request_route"),
    *_names(LITELLM, "auth", f"{_PROXY}auth.user_api_key_auth", "enforce_key_and_fallback_model_access"),
    *_names(LITELLM, "auth", f"{_PROXY}auth.user_api_key_auth", "enterprise_custom_auth"),
    *_names(LITELLM, "auth", f"{_PROXY}common_utils.http_parsing_utils", "_read_request_body"),
    *_names(LITELLM, "auth", f"{_PROXY}common_utils.http_parsing_utils", "safe_get_request_query_params"),
    *_names(LITELLM, "auth, deployments", f"{_PROXY}proxy_server", "llm_model_list", "llm_router", "prisma_client"),
    *_names(LITELLM, "asgi", f"{_PROXY}proxy_server", "app.middleware_stack", "app.build_middleware_stack"),
    *_names(LITELLM, "self_check", f"{_PROXY}proxy_server", "user_custom_auth", "shared_aiohttp_session"),
    *_names(LITELLM, "self_check, net.boundary", f"{_PROXY}proxy_server", "master_key", "general_settings"),
    *_names(
        LITELLM,
        "net.boundary",
        f"{_PROXY}pass_through_endpoints.pass_through_endpoints",
        "InitPassThroughEndpointHelpers.get_registered_pass_through_route",
    ),
    *_names(LITELLM, "budgets.bound, deployments", "litellm", "Router().get_model_list", "Router().model_list"),
    *_keys(REPORT, "record", "", "litellm_call_id", "call_type", "model", "custom_llm_provider", "stream", "exception"),
    *_keys(REPORT, "record, logger", "", "litellm_params", "standard_logging_object"),
    *_keys(REPORT, "record", "", "optional_params.stream_options"),
    *_keys(REPORT, "record", "litellm_params.", "api_base", "metadata", "proxy_server_request.headers"),
    *_keys(REPORT, "record, claims", "litellm_params.", "proxy_server_request.body"),
    *_keys(REPORT, "logger", "litellm_params.metadata.", "user_api_key_hash"),
    *_keys(REPORT, "record", "litellm_params.metadata.", "attempted_retries", "client_disconnected", "model_group"),
    *_keys(REPORT, "record", "litellm_params.metadata.", "original_model_group"),
    *_keys(REPORT, "record", "", "cache_hit"),
    *_keys(REPORT, "record", _PAYLOAD, "call_type", "id", "model_group", "api_base", "stream", "error_str"),
    *_keys(REPORT, "record", _PAYLOAD, "prompt_tokens", "completion_tokens", "total_tokens"),
    *_keys(REPORT, "record", _PAYLOAD, "startTime", "endTime", "completionStartTime"),
    *_keys(REPORT, "pricing", _PAYLOAD, "response_cost"),
    *_keys(REPORT, "pricing", "litellm_params.metadata.", "model_info"),
    *_keys(REPORT, "record", f"{_PAYLOAD}metadata.", "usage_object", "user_api_key_team_id", "user_api_key_alias"),
    *_keys(REPORT, "record", f"{_PAYLOAD}metadata.", "user_api_key_max_budget", "user_api_key_spend"),
    *_keys(REPORT, "record", f"{_PAYLOAD}metadata.", "user_api_key_team_max_budget", "user_api_key_team_spend"),
    *_keys(REPORT, "record", "litellm_params.", "litellm_metadata"),
    *_keys(REPORT, "record", f"{_PAYLOAD}error_information.", "error_class", "error_code", "error_message"),
    *_keys(REQUEST, "logger, record", "", "litellm_call_id", "model", "litellm_logging_obj.model_call_details"),
    *_keys(REQUEST, "record", "", "metadata.user_api_key_team_id", "proxy_server_request.arrival_time"),
    *_keys(ATTEMPT, "upstream", "", "litellm_logging_obj", "api_base", "model", "stream", "proxy_server_request"),
    *_keys(IDENTITY, "logger, record, budgets.enforcement", "", "api_key", "team_id", "key_alias"),
    *_keys(ANSWER, "record", "", "chunks", "messages"),
    *_keys(EXCEPTION, "logger", "", "num_retries", "max_retries"),
    *_names(OPENTELEMETRY, "span", "opentelemetry.sdk.trace", "TracerProvider()._active_span_processor"),
    *_names(OPENTELEMETRY, "span", "opentelemetry.sdk.trace", "ReadableSpan"),
    *_names(OPENTELEMETRY, "span", "opentelemetry.trace", "TraceFlags.RANDOM_TRACE_ID"),
    *_names(OPENTELEMETRY, "ledger.drain", "opentelemetry.context", "_SUPPRESS_INSTRUMENTATION_KEY"),
    *_names(OPENTELEMETRY, "span", "opentelemetry.sdk.trace.id_generator", "RandomIdGenerator().is_trace_id_random"),
    *_names(
        OPENTELEMETRY, "metrics", "opentelemetry.sdk.metrics.export", "PeriodicExportingMetricReader._receive_metrics"
    ),
    *(
        row
        for name in ("_client._submit", "_client._compress", "_client._timeout", "_client._transport.close")
        for row in _names(OPENTELEMETRY, "otlp.sending", f"{_OTLP}.http.trace_exporter", f"OTLPSpanExporter().{name}")
    ),
    *(
        row
        for name in ("_channel.unary_unary", "_headers", "_timeout", "_initialize_channel_and_stub")
        for row in _names(OPENTELEMETRY, "otlp.sending", f"{_OTLP}.grpc.trace_exporter", f"OTLPSpanExporter().{name}")
    ),
    *_names(OPENTELEMETRY, "otlp.answers", f"{_OTLP}.grpc.exporter", "RetryInfo"),
)


def names_gone(*, exporters: bool) -> list[Interface]:
    """The names in the table that are no longer there; ``exporters`` asks for those of the OTLP exporters as well."""
    asked = (row for row in INTERFACES if not row.place and (exporters or not row.name.startswith(_OTLP)))
    return [row for row in asked if not row.is_there()]
