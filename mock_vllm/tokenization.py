"""`/tokenize` and `/detokenize`: the tokenizer that also counts `usage`."""

from __future__ import annotations

from typing import Any

from mock_vllm import tokenizer, validation
from mock_vllm.chat import check_model
from mock_vllm.errors import bad_request
from mock_vllm.prompt import chat_prompt, text_prompt
from mock_vllm.settings import Settings
from mock_vllm.wire import Json

_TOKENIZE_FIELDS = {
    "model": validation.OPTIONAL_STRING,
    "prompt": validation.STRING,
    "messages": validation.LIST,
    "add_special_tokens": validation.BOOL,
    "return_token_strs": validation.OPTIONAL_BOOL,
}
_DETOKENIZE_FIELDS = {"model": validation.OPTIONAL_STRING, "tokens": validation.INT_LIST}


def tokenize(body: Any, settings: Settings) -> Json:
    """Of a `prompt`, or of `messages` with the chat template. Raises `ApiError`."""
    chat = isinstance(body, dict) and "messages" in body
    body = validation.checked_body(body, _TOKENIZE_FIELDS, required=("messages" if chat else "prompt",))
    if chat:
        validation.check_messages(body["messages"], settings.model_name)
    check_model(body, settings)
    if chat:
        prompt = chat_prompt(body["messages"])
    else:
        prompt = text_prompt(body["prompt"], body.get("add_special_tokens", True))
    return {
        "count": len(prompt),
        "max_model_len": settings.max_model_len,
        "tokens": prompt.ids(),
        "token_strs": prompt.pieces if body.get("return_token_strs") else None,
    }


def detokenize(body: Any, settings: Settings) -> Json:
    """Raises `ApiError`, also for an id that means nothing."""
    body = validation.checked_body(body, _DETOKENIZE_FIELDS, required=("tokens",))
    check_model(body, settings)
    try:
        return {"prompt": "".join(map(tokenizer.token_text, body["tokens"]))}
    except ValueError as error:
        raise bad_request(str(error)) from None
