"""How long the mock pretends to compute. All zero, and so off, by default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LatencyModel:
    """Times in milliseconds; `jitter` is a fraction of each delay.

    A delay is `base + per_running * (requests running besides this one)`, stretched or shrunk by up to
    `jitter` of itself. Growth is linear because that is what a memory-bound decode step does to a good
    approximation until the batch saturates the device.
    """

    ttft_ms: float = 0.0
    tpot_ms: float = 0.0
    jitter: float = 0.0
    ttft_ms_per_running: float = 0.0
    tpot_ms_per_running: float = 0.0

    @property
    def enabled(self) -> bool:
        return any((self.ttft_ms, self.tpot_ms, self.ttft_ms_per_running, self.tpot_ms_per_running))

    def first_token_seconds(self, others: int, draw: float) -> float:
        """Delay before the first token; `others` run beside this request, `draw` is uniform in [0, 1)."""
        return self._seconds(self.ttft_ms + self.ttft_ms_per_running * others, draw)

    def next_token_seconds(self, others: int, draw: float) -> float:
        """Delay before each later token."""
        return self._seconds(self.tpot_ms + self.tpot_ms_per_running * others, draw)

    def _seconds(self, milliseconds: float, draw: float) -> float:
        return milliseconds * (1.0 + self.jitter * (2.0 * draw - 1.0)) / 1000.0


@dataclass(frozen=True)
class Profile:
    """Measured latency: a model fitted to the figures in ``source``, a result file of this checkout."""

    latency: LatencyModel
    source: str


PROFILES = {
    # 90 million random weights on two cores, prompts of about 140 tokens, answers of 24.
    "vllm-cpu-small": Profile(
        LatencyModel(ttft_ms=162.975, ttft_ms_per_running=5.82, tpot_ms=22.001, tpot_ms_per_running=6.307),
        "benchmarks/results/2-core-amd-epyc/2026-11-23-engine_latency.json",
    ),
}
