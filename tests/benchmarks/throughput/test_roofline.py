"""The ceiling: the arithmetic of Mistral-7B's shape, and devices by the names that drivers give them."""

from __future__ import annotations

import pytest

from benchmarks.throughput.roofline import DEVICES, ceiling, device, model

# The shape that Mistral-7B-v0.3 has, as its config.json tells it.
MISTRAL_7B = {
    "vocab_size": 32768,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


def test_the_model_has_the_published_number_of_parameters() -> None:
    found = model(MISTRAL_7B)
    assert found.parameters == 7_248_023_552
    assert found.weights_read == found.parameters - 32768 * 4096
    assert found.cache_bytes == 128 * 1024


def test_one_caller_is_limited_by_reading_the_weights() -> None:
    on = device("NVIDIA H200")
    assert on is not None
    alone = ceiling(model(MISTRAL_7B), on, input_len=128, output_len=128, concurrency=1)
    assert 331 <= alone <= 338


def test_long_prompts_of_many_callers_are_limited_by_arithmetic() -> None:
    on = device("NVIDIA H200")
    assert on is not None
    of = model(MISTRAL_7B)
    assert ceiling(of, on, input_len=2048, output_len=1, concurrency=256) == pytest.approx(
        on.operations / (2 * of.weights_read * 2049)
    )
    # More callers share each reading of the weights, until arithmetic is the limit.
    rising = [ceiling(of, on, input_len=128, output_len=128, concurrency=c) for c in (1, 8, 64, 256)]
    assert rising == sorted(rising)
    assert rising[1] < 8 * rising[0]


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 4090", None),
        (None, None),
    ],
)
def test_devices_are_found_by_the_drivers_name(told: str | None, known: str | None) -> None:
    found = device(told)
    assert (found.name if found else None) == known


def test_every_device_has_a_source() -> None:
    assert all(known.source.startswith("https://") for known in DEVICES)
