"""What a benchmark drives: the mock, or a real vLLM with random weights; and what it is, for the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import httpx

from benchmarks.harness.benchmark import Choice
from workbook.engine import MODEL_NAME, Engine, EngineKind, vllm_command
from workbook.services import Backend, Mock

MOCK = "mock"
KINDS = ("vllm-cpu", "vllm", MOCK)
REAL_KINDS = ("vllm-cpu", "vllm")
SHAPES = ("default", "tiny", "small", "mistral-7b")


@dataclass(frozen=True)
class Attempt:
    """One way to start the engine, with some of its optional kernels left out."""

    name: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


_NO_SAMPLER = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
ATTEMPTS = (
    Attempt("as it is"),
    Attempt("no FlashInfer sampler", env=_NO_SAMPLER),
    Attempt("no FlashInfer sampler, Triton attention", ("--attention-backend", "TRITON_ATTN"), _NO_SAMPLER),
)
"""From everything to the least; on a new kind of device the first one that works is found by `gpu.smoke`."""

SHAPE = Choice("shape", "default", SHAPES, "the real engine's model; default: small on a CPU, mistral-7b on a GPU")


def backend(
    name: str,
    kind: str,
    *,
    shape: str = "default",
    args: Sequence[str] = (),
    eager: bool = True,
    env: Mapping[str, str] | None = None,
) -> Backend:
    """A backend of one of `KINDS`, not yet started.

    ``args`` are its own flags. ``shape``, ``eager`` and ``env`` are a real engine's (see `workbook.engine.Engine`).
    """
    if kind == MOCK:
        return Mock(name, args=["--served-model-name", MODEL_NAME, *args])
    return Engine(
        name,
        kind=cast(EngineKind, kind),
        shape=None if shape == "default" else shape,
        args=args,
        eager=eager,
        env=env,
    )


def described(running: Backend) -> dict[str, Any]:
    """What ``running`` is: its kind, the version that it tells, its model's shape and whose weights it has."""
    version = httpx.get(f"{running.url}/version", timeout=30, trust_env=False).raise_for_status().json()["version"]
    if isinstance(running, Engine):
        return {"kind": running.kind, "version": version, "shape": running.shape, "weights": "random"}
    return {"kind": MOCK, "version": version, "shape": None, "weights": None}


def caveat(kind: str) -> str:
    """What a reader of figures from a backend of ``kind`` must know."""
    if kind == MOCK:
        return "from the mock: it computes nothing, so its speed is that of its latency model and of this machine"
    return "random weights: the speed of the model's shape; the text means nothing"


def engine_python(kind: str) -> list[str]:
    """The words that start the Python which vLLM of ``kind`` runs in. Raises `workbook.engine.EngineNotBuilt`."""
    words = vllm_command(cast(EngineKind, kind))
    return words[: words.index("-m")] if "-m" in words else [str(Path(words[0]).with_name("python"))]


def proxy_is_there() -> bool:
    """True when this Python has the LiteLLM proxy; a bare GPU host need not."""
    return find_spec("litellm") is not None
