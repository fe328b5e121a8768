"""vLLM's own spans: one `llm_request` for each finished sequence, by OTLP to `--otlp-traces-endpoint`.

Imported only when there is an endpoint: OpenTelemetry takes as long to load as everything else together.
Spans are sent in batches by a thread of their own, and no request waits for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mock_vllm.engine import Job, Sequence

_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
_CARRIED = ("traceparent", "tracestate")


class SpanWriter:
    """Parents, sampling and the `OTEL_*` variables are OpenTelemetry's own, as in vLLM.

    A caller's `traceparent` is the parent; a parent that is not sampled leaves no span.
    """

    def __init__(self, endpoint: str) -> None:
        """Raises `ValueError` for a protocol that vLLM does not speak."""
        resource = {"vllm.instrumenting_module_name": "vllm.llm_engine", "vllm.process_id": str(os.getpid())}
        self._provider = TracerProvider(resource=Resource.create(resource))
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(endpoint)))
        self._tracer = self._provider.get_tracer("vllm.tracing.otel")
        self._propagator = TraceContextTextMapPropagator()

    def context_of(self, headers: Mapping[str, str]) -> dict[str, str]:
        """What of a request's headers says which trace it belongs to."""
        return {name: headers[name] for name in _CARRIED if name in headers}

    def write(self, job: Job) -> None:
        """The spans of a finished job."""
        end = time.time_ns()
        # Moments of the job are on another clock, which does not jump.
        start = end - int((time.monotonic() - job.timing.arrived) * 1e9)
        context = self._propagator.extract(job.trace_headers)
        for sequence in job.sequences:
            span = self._tracer.start_span(
                "llm_request", context, SpanKind.SERVER, _attributes(job, sequence), (), start
            )
            span.end(end)

    def close(self) -> None:
        """Send what there is, and end the thread. Blocks for as long as OpenTelemetry's time limits allow."""
        self._provider.shutdown()


def _exporter(endpoint: str) -> SpanExporter:
    protocol = os.environ.get(_PROTOCOL, "grpc")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint=endpoint, insecure=not endpoint.startswith("https:"))
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter(endpoint=endpoint)
    raise ValueError(f"{_PROTOCOL} is {protocol!r}; it must be 'grpc' or 'http/protobuf'")


def _attributes(job: Job, sequence: Sequence) -> dict[str, str | int | float]:
    """Names, types and order as vLLM's; times in seconds. What is zero or not given is left out, as there."""
    timing = job.timing
    optional = {
        "gen_ai.request.top_p": job.top_p,
        "gen_ai.request.max_tokens": sequence.max_tokens,
        "gen_ai.request.temperature": job.temperature,
    }
    return {
        "gen_ai.latency.time_to_first_token": timing.first_token - timing.arrived,
        "gen_ai.latency.e2e": timing.finished - timing.arrived,
        "gen_ai.latency.time_in_queue": timing.scheduled - timing.arrived,
        "gen_ai.usage.prompt_tokens": len(sequence.prompt),
        "gen_ai.usage.completion_tokens": sequence.generated,
        "gen_ai.latency.time_in_model_prefill": timing.first_token - timing.scheduled,
        "gen_ai.latency.time_in_model_decode": timing.finished - timing.first_token,
        "gen_ai.latency.time_in_model_inference": timing.finished - timing.scheduled,
        "gen_ai.request.id": job.request_ids[sequence.index // job.choices_per_prompt],
        **{name: value for name, value in optional.items() if value},
        # Each choice is a request of its own by then.
        "gen_ai.request.n": 1,
    }
