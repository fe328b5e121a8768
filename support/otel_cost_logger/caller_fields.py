"""What a caller may not write into a proxied request, because a record would no longer say what the engine did.

LiteLLM 1.106.2 itself takes prices, ``user_api_key_*`` and addresses out of a body, or refuses them. These are left;
each was found by trying (see tests/otel_cost_logger/test_spoofing.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# LiteLLM's own switches. They choose the provider or the deployment in the operator's place, or take out of the request
# that the engine is to count.
_OPERATORS = ("custom_llm_provider", "deployment_id", "azure", "use_litellm_proxy", "additional_drop_params")
# In "extra_body" these reach the engine behind LiteLLM's back: a stream without its count, answers that are not seen.
_NOT_IN_EXTRA_BODY = ("model", "stream", "stream_options", "n")
_NEVER_STREAMED = ("embedding", "aembedding", "embeddings")
# Of these LiteLLM's router takes a comma in the model's name for a list, also where a model group is named so, and asks
# each model in it: several answers under one call id, one bound and one record, and no way to stream them.
_LISTS_MODELS = ("completion", "acompletion")


class NotAllowed(ValueError):
    """The request has a field that cannot be taken out without changing what it asks for; the message says which."""


def remove_operators_fields(request: dict[str, Any], call_type: object) -> None:
    """Take out of ``request`` (the proxy's data of a call of LiteLLM's ``call_type``) what is the operator's to say.

    Raises `NotAllowed` for a ``model`` that is a list, which LiteLLM would answer once for each model in it, and as
    `require_plain_stream` does.
    """
    model = request.get("model")
    if not isinstance(model, str | None) or (model is not None and "," in model and call_type in _LISTS_MODELS):
        raise NotAllowed('"model" must name one model; send a request for each')
    require_plain_stream(request)
    if call_type in _NEVER_STREAMED:
        request.pop("stream", None)  # the engine ignores it, and LiteLLM would stumble over the answer
    for field in _OPERATORS:
        request.pop(field, None)
    extra = request.get("extra_body")
    if isinstance(extra, dict):
        request["extra_body"] = {name: value for name, value in extra.items() if name not in _NOT_IN_EXTRA_BODY}


def require_plain_stream(request: Mapping[str, Any]) -> None:
    """Raise `NotAllowed` for an answer that would pass without being counted: for a ``stream`` that is neither true nor
    false (vLLM takes 1 or "true" for true, LiteLLM does not), and for one that is made in the background."""
    if not isinstance(request.get("stream"), bool | None):
        raise NotAllowed('"stream" must be true or false')
    if request.get("background"):
        raise NotAllowed('"background" is not supported: an answer is counted when it is given')
