"""The ceiling: how many output tokens per second a device can give at most, from the model's shape and published data.

A run of ``n`` requests with ``i`` input and ``o`` output tokens, at most ``B`` under way at once, needs at least

- ``n * o / B`` steps that each read all weights but the input embedding, and in each the keys and values of the
  tokens so far, and
- ``2`` operations for each of those weights and each token, input or output,

and lasts at least as long as the slower of the two takes at the device's published memory bandwidth and arithmetic.
Nothing else is counted (activations, attention's arithmetic, the time between steps), so no engine reaches it. A
measurement above it is a fault of the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BYTES = 2  # of a bfloat16


@dataclass(frozen=True)
class Device:
    """A device as its maker describes it: bytes per second, dense bfloat16 operations per second, and where it says."""

    name: str
    bandwidth: float
    operations: float
    source: str


# A name is looked for in what the driver calls the device; the longest that fits counts.
DEVICES = (
    Device("H200", 4.8e12, 989e12, "https://www.nvidia.com/en-us/data-center/h200/"),
    Device("H100 PCIe", 2.0e12, 756e12, "https://resources.nvidia.com/en-us-tensor-core/nvidia-h100-datasheet"),
    Device("H100 NVL", 3.9e12, 835e12, "https://www.nvidia.com/en-us/data-center/h100/"),
    Device("H100", 3.35e12, 989e12, "https://www.nvidia.com/en-us/data-center/h100/"),
    Device("A100 40GB", 1.555e12, 312e12, "https://www.nvidia.com/en-us/data-center/a100/"),
    Device("A100", 2.039e12, 312e12, "https://www.nvidia.com/en-us/data-center/a100/"),
    Device("L40S", 0.864e12, 362e12, "https://www.nvidia.com/en-us/data-center/l40s/"),
)


@dataclass(frozen=True)
class Model:
    """What a step reads: weights without the input embedding, and bytes of keys and values per token."""

    parameters: int
    weights_read: int
    cache_bytes: int


def model(config: Mapping[str, Any]) -> Model:
    """The model of a ``config.json`` of Mistral's architecture."""
    hidden, vocabulary = int(config["hidden_size"]), int(config["vocab_size"])
    head, layers = int(config["head_dim"]), int(config["num_hidden_layers"])
    queries, keys = int(config["num_attention_heads"]) * head, int(config["num_key_value_heads"]) * head
    attention = 2 * hidden * queries + 2 * hidden * keys
    layer = attention + 3 * hidden * int(config["intermediate_size"]) + 2 * hidden
    read = layers * layer + hidden + vocabulary * hidden
    return Model(parameters=read + vocabulary * hidden, weights_read=read, cache_bytes=2 * layers * keys * _BYTES)


def device(name: str | None) -> Device | None:
    """What is published of the device that the driver calls ``name``; None where nothing is known here."""
    fitting = [known for known in DEVICES if name and all(word in name for word in known.name.split())]
    return max(fitting, key=lambda known: len(known.name), default=None)


def ceiling(of: Model, on: Device, *, input_len: float, output_len: float, concurrency: int) -> float:
    """Output tokens per second that ``on`` cannot exceed with ``of`` at this shape and so many requests at once."""
    context = input_len + output_len / 2
    step_bytes = of.weights_read * _BYTES + concurrency * context * of.cache_bytes
    reading = output_len / concurrency * step_bytes / on.bandwidth  # seconds for one request
    computing = (input_len + output_len) * 2 * of.weights_read / on.operations
    return output_len / max(reading, computing)
