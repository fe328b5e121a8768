"""What one server was asked to be. Built by the command line, read by everything else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from mock_vllm.latency import LatencyModel

VLLM_VERSION = "0.32.0"

Runner = Literal["generate", "pooling"]


@dataclass(frozen=True)
class Settings:
    """Names and meanings are those of `vllm serve`, but for the last five."""

    model: str = "mistral-7b"
    served_model_names: tuple[str, ...] = ("mistral-7b",)
    host: str = "127.0.0.1"
    port: int = 8000
    max_model_len: int = 8192
    api_keys: tuple[str, ...] = ()
    max_num_seqs: int = 256
    max_num_queued_reqs: int | None = None
    runner: Runner = "generate"
    enable_prompt_tokens_details: bool = False
    enable_request_id_headers: bool = False
    enable_per_request_metrics: bool = False
    enable_auto_tool_choice: bool = False
    tool_call_parser: str | None = None
    otlp_traces_endpoint: str | None = None
    seed: int = 0
    latency: LatencyModel = field(default_factory=LatencyModel)
    enable_faults: bool = False
    exit_on_stdin_close: bool = True
    hang_on_sigterm: bool = False

    @property
    def model_name(self) -> str:
        """The name that answers and metrics carry, whichever alias was asked for."""
        return self.served_model_names[0]

    @property
    def system_fingerprint(self) -> str:
        """`vllm-<version>-<8 hex digits>`: like vLLM's, it changes with what changes the output."""
        identity = repr((self.model, self.served_model_names, self.max_model_len, self.seed))
        return f"vllm-{VLLM_VERSION}-{hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()}"
