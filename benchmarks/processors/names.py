"""The processors, scenarios and steps of `processors`, by name."""

from __future__ import annotations

from otel_cost_logger.settings import CONSOLE, GRPC, HTTP_PROTOBUF
from workbook.stacks import Processor

COSTS, LOSSES, PROXY, COLLECTOR = PHASES = ("costs", "losses", "proxy", "collector")

SIMPLE: Processor = "simple"
BATCH: Processor = "batch"
DURABLE: Processor = "durable"
PROCESSORS = (SIMPLE, BATCH, DURABLE)
BATCH_AGAIN, BATCH_TUNED, DURABLE_AGAIN = "batch_again", "batch_tuned", "durable_again"
BATCH_FLUSHING = "batch_flushing"  # as the plugin has it in a server: exports on SIGTERM
DURABLE_NOTED = "durable_noted"  # each call was noted in the file before, as the plugin does
DURABLE_FULL = "durable_full"  # sync="full", in a thread that waits for the disk
DRAIN, DRAIN_AGAIN, EXPORTER_ALONE = "drain", "drain_again", "exporter_alone"
NAMES = {
    SIMPLE: "Simple",
    BATCH: "Batch",
    BATCH_TUNED: "Batch, tuned",
    BATCH_FLUSHING: "Batch that exports on SIGTERM",
    DURABLE: "Durable",
    DURABLE_NOTED: "Durable, with calls noted",
    DURABLE_FULL: "Durable, sync=full",
}

Arm = tuple[str, str]  # what is measured, and where it exports to
PROTOCOLS = (HTTP_PROTOBUF, GRPC)
EXPORTERS = (CONSOLE, *PROTOCOLS)
# Those compared with a target are there twice, where there is an OTLP receiver.
EMISSION_ARMS: tuple[Arm, ...] = (
    *((arm, exporter) for exporter in EXPORTERS for arm in (SIMPLE, BATCH, BATCH_TUNED, DURABLE)),
    *((arm, protocol) for protocol in PROTOCOLS for arm in (BATCH_AGAIN, DURABLE_AGAIN)),
    *((arm, HTTP_PROTOBUF) for arm in (DURABLE_NOTED, DURABLE_FULL)),
)
DRAIN_ARMS: tuple[Arm, ...] = tuple(
    (arm, protocol) for protocol in PROTOCOLS for arm in (DRAIN, DRAIN_AGAIN, EXPORTER_ALONE)
)
ARMS = (*EMISSION_ARMS, *DRAIN_ARMS)

KILL, TERMINATE, BURST, AWAY, REFUSES, SLOW = "kill", "terminate", "burst", "away", "503", "slow"
LOSS_PLAN = {
    KILL: (SIMPLE, BATCH, BATCH_TUNED, DURABLE),
    TERMINATE: (SIMPLE, BATCH, BATCH_FLUSHING, BATCH_TUNED, DURABLE),
    BURST: (SIMPLE, BATCH, BATCH_TUNED, DURABLE),
}
PROXY_SCENARIOS = (KILL, AWAY, REFUSES, SLOW)

ALIVE, DEAD = "alive", "dead"
REQUEST, PROBE = "request", "probe"


def to_words(exporter: str) -> str:
    """``exporter`` as sentences and figures name it."""
    return {CONSOLE: "console", HTTP_PROTOBUF: "OTLP/HTTP", GRPC: "OTLP/gRPC"}[exporter]
