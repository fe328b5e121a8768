"""`/tokenize` and `/detokenize`: the tokenizer that also counts `usage`."""

from __future__ import annotations

from typing import Any

from mock_vllm import fields, tokenizer
from mock_vllm.chat import check_model
from mock_vllm.chat_messages import checked_messages, looked_at
from mock_vllm.checks import check_generation_prompt
from mock_vllm.errors import bad_request
from mock_vllm.prompt import Prompt, rendered, text_prompt
from mock_vllm.settings import Settings
from mock_vllm.validation import Detail, as_object, checked_body, looked_through, problems
from mock_vllm.wire import Json


def tokenize(body: Any, settings: Settings) -> Json:
    """Of a `prompt`, or of `messages` with the chat template. Raises `ApiError`."""
    body = as_object(body, kinds=2)
    text, wrong_text = looked_through(body, fields.TOKENIZE_TEXT, required=("prompt",))
    if wrong_text:
        prompt = _chat(body, wrong_text, settings)
    else:
        check_model(text, settings)
        prompt = text_prompt(text["prompt"], text.get("add_special_tokens", True))
    return {
        "count": len(prompt),
        "max_model_len": settings.max_model_len,
        "tokens": prompt.ids(),
        "token_strs": prompt.pieces if body.get("return_token_strs") else None,
    }


def _chat(body: Json, wrong_text: list[Detail], settings: Settings) -> Prompt:
    """A body that is none of the text kind, for the reasons given, may be one of the chat kind."""
    chat, wrong_chat = looked_through(body, fields.TOKENIZE_CHAT, required=("messages",))
    if isinstance(chat.get("messages"), list):
        wrong_chat = looked_at(chat["messages"])[1] + wrong_chat
    if wrong_chat:
        raise problems(wrong_text + wrong_chat)
    check_generation_prompt(chat)
    messages = checked_messages(chat["messages"], settings.model_name)
    check_model(chat, settings)
    return rendered(messages, chat)


def detokenize(body: Any, settings: Settings) -> Json:
    """Raises `ApiError`, also for an id that means nothing."""
    body = checked_body(as_object(body), fields.DETOKENIZE, required=("tokens",))
    check_model(body, settings)
    try:
        return {"prompt": "".join(map(tokenizer.token_text, body["tokens"]))}
    except ValueError as error:
        raise bad_request(str(error)) from None
