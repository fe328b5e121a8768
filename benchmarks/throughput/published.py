"""What others have published, as data: where, when, of what; and whether it can be compared with ours, and why not.

``date`` is that of the publication or of the version that it names. Nothing here was measured by us, and no figure of
ours draws a line through it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One published figure. ``unit`` belongs to ``value``; ``comparable`` is with our runs of Mistral-7B's shape."""

    source: str
    date: str
    device: str
    model: str
    precision: str
    engine: str
    shape: str
    value: float
    unit: str
    comparable: bool
    because: str


_OUTPUT = "output tokens/s"
_LAMBDA = "https://github.com/LambdaLabsML/vllm-benchmark"
_TENSORRT = "https://nvidia.github.io/TensorRT-LLM/performance/perf-overview.html"
_FP8 = "another engine, and 8-bit weights: half the bytes to read, twice the arithmetic"


def _tensorrt(device: str, shape: str, value: float) -> Published:
    return Published(
        *(_TENSORRT, "2025 (1.0)", device, "Llama-3.1-8B", "FP8", "TensorRT-LLM 1.0"),
        shape=shape,
        value=value,
        unit=_OUTPUT,
        comparable=False,
        because=_FP8,
    )


PUBLISHED = (
    Published(
        *(_LAMBDA, "2024 (0.5.4)", "1 x H100 SXM", "Mistral-7B-Instruct-v0.3", "bf16 (its default)", "vLLM 0.5.4"),
        shape="ShareGPT, 320 prompts",
        value=3281,
        unit=_OUTPUT,
        comparable=False,
        because="lengths of real conversations instead of a fixed shape, and a vLLM of two years ago",
    ),
    Published(
        *(_LAMBDA, "2024 (0.6.0)", "1 x H100 SXM", "Llama-3.1-8B", "bf16 (its default)", "vLLM 0.6.0"),
        shape="ShareGPT, 5000 prompts",
        value=8088,
        unit=_OUTPUT,
        comparable=False,
        because="another model, lengths of real conversations, and a vLLM of two years ago",
    ),
    Published(
        *("https://github.com/vllm-project/vllm/pull/18566", "2025", "not stated", "Llama-3.1-8B-Instruct"),
        "not stated",
        "vLLM",
        shape="ShareGPT, 1000 prompts",
        value=6583,
        unit=_OUTPUT,
        comparable=False,
        because="the device is not stated",
    ),
    _tensorrt("1 x H200", "128/128", 27911),
    _tensorrt("1 x H100", "128/128", 28312),
    _tensorrt("1 x H200", "1000/1000", 17744),
    _tensorrt("1 x H100", "1000/1000", 15220),
    _tensorrt("1 x H200", "2048/2048", 12194),
    _tensorrt("1 x H100", "2048/2048", 9305),
    Published(
        *("https://github.com/NVIDIA/TensorRT-LLM/issues/1570", "2024", "1 x H200 or H100", "Mistral-7B"),
        *("not stated", "TensorRT-LLM"),
        shape="128/128",
        value=20400,
        unit=_OUTPUT,
        comparable=False,
        because="another engine, and the precision is not stated",
    ),
    Published(
        *("https://johnmusgrave.com", "2026 (vLLM 0.23)", "1 x A100 40 GB", "Llama-3.1-8B", "bf16", "vLLM 0.23"),
        shape="1024/128, concurrency 1",
        value=75,
        unit=_OUTPUT,
        comparable=False,
        because="another device and model; but its 77% of what the bandwidth allows is a mark for ours",
    ),
)


@dataclass(frozen=True)
class ThinkTime:
    """A published rate of closed-loop callers who wait between an answer and their next request.

    ``think_seconds`` is the mean pause, ``response_seconds`` the response time published beside the rate.
    """

    source: str
    what: str
    callers: int
    think_seconds: float
    response_seconds: float
    published_per_second: float

    @property
    def most_per_second(self) -> float:
        """What so many callers can ask at most, whoever answers: the interactive response-time law N / (Z + R)."""
        return self.callers / (self.think_seconds + self.response_seconds)


_LITELLM = "https://docs.litellm.ai/docs/benchmarks"
# Its locust file pauses between 0.5 and 1 s. Response times are the page's medians; where it tells none, the mean that
# it tells for four instances.
THINK_TIMES = (
    ThinkTime(_LITELLM, "LiteLLM, 2 instances", 1000, 0.75, 0.200, 1035.7),
    ThinkTime(_LITELLM, "LiteLLM, 4 instances", 1000, 0.75, 0.100, 1170),
    ThinkTime(_LITELLM, "Portkey", 1000, 0.75, 0.100, 1170),
    ThinkTime(_LITELLM, "LiteLLM with GCS logging", 1000, 0.75, 0.112, 1137),
    ThinkTime(_LITELLM, "LiteLLM with LangSmith logging", 1000, 0.75, 0.112, 1135),
)
