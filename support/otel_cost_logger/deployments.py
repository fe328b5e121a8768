"""The proxy's deployments: which engines serve which model, as LiteLLM's router knows it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import litellm

Deployment = Mapping[str, Any]


def router() -> Any:
    """LiteLLM's router; None without a proxy."""
    return getattr(sys.modules.get("litellm.proxy.proxy_server"), "llm_router", None)


def serving(model: str) -> list[Deployment]:
    """The deployments that serve ``model``, by the name that callers use."""
    known = router()
    return list(known.get_model_list(model_name=model) or ()) if known is not None else []


def served_name(litellm_params: Mapping[str, Any]) -> str:
    """The model name without LiteLLM's provider in front: what the engine is asked for."""
    name = str(litellm_params.get("model"))
    provider, slash, rest = name.partition("/")
    known = provider in litellm.provider_list
    return rest if slash and not litellm_params.get("custom_llm_provider") and known else name


def vllm_addresses() -> set[str]:
    """Where the vLLMs are that this proxy knows: its deployments', and LiteLLM's own variable's."""
    known = router()
    params = [deployment.get("litellm_params") or {} for deployment in (known.model_list if known is not None else ())]
    bases = {str(each.get("api_base")) for each in params if str(each.get("model")).startswith("hosted_vllm/")}
    return {base for base in (*bases, os.environ.get("VLLM_API_BASE")) if base}
