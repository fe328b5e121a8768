"""The arms and modes of `callback_overhead`, by name: what the measuring process and the reading one agree on."""

from __future__ import annotations

NONE = "none"
NOOP, NOOP_AGAIN = "noop", "noop_again"
BARE_SPAN, JSON_LINE = "bare_span", "json_line"
NAIVE = "naive"
OURS, OURS_AGAIN = "ours", "ours_again"
OURS_SLOWER = "ours_slower"  # a planted regression
OURS_PARTS = "ours_parts"  # timed inside
OTEL_V1, OTEL_V2 = "otel_v1", "otel_v2"
OURS_SIMPLE, OURS_BATCH, OURS_DURABLE = "ours_simple", "ours_batch", "ours_durable"
OPENINFERENCE, OPENLLMETRY, OPENLIT = "openinference", "openllmetry", "openlit"
OTHERS = (OPENINFERENCE, OPENLLMETRY, OPENLIT)

SYNC, ASYNC, STREAM = "sync", "async", "stream"
MODES = (ASYNC, SYNC, STREAM)
CONCURRENCY = 16  # of the async modes

PLANTED = 0.1  # of our CPU time: what the planted regression adds

EXPORTING = (OURS_SIMPLE, OURS_BATCH, OURS_DURABLE)
WITHOUT_EXPORTER = (*(NONE, NOOP, NOOP_AGAIN, BARE_SPAN, JSON_LINE, NAIVE, OURS, OURS_AGAIN, OTEL_V1, OTEL_V2),)
ARMS = {
    ASYNC: (*WITHOUT_EXPORTER, OURS_SLOWER, OURS_PARTS, *EXPORTING),
    # LiteLLM's second OpenTelemetry integration has no hook for synchronous calls.
    SYNC: tuple(arm for arm in WITHOUT_EXPORTER if arm != OTEL_V2),
    STREAM: WITHOUT_EXPORTER,
}
# In an environment of their own, with what they are compared to beside them.
OTHERS_ARMS = (NONE, NOOP, NOOP_AGAIN, OURS, *OTHERS)
