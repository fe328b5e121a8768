"""From what a request asks to the tokens the engine reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mock_vllm import tokenizer
from mock_vllm.chat_messages import part_text
from mock_vllm.errors import bad_parameter, bad_request, refused

# Roles as in Mistral's chat template; one it does not know is treated as a user, as in the recordings.
_ROLE_MARKERS = {
    "system": ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "developer": ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "assistant": (None, tokenizer.EOS),
    "tool": ("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
}
_USER_MARKERS = ("[INST]", "[/INST]")

_EMPTY = "The decoder prompt cannot be empty"
_NOT_TEXT = "TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]"


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens as text, and the words the answer is about (the last message, or the whole prompt).

    `as_ids` for a prompt that came as token ids: nobody had to count it.
    """

    pieces: list[str]
    subject: str
    as_ids: bool = False

    @property
    def characters(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)

    def ids(self) -> list[int]:
        return [tokenizer.token_id(piece) for piece in self.pieces]


def text_prompt(text: str, add_special_tokens: bool = True) -> Prompt:
    pieces = _pieces(text)
    return Prompt([tokenizer.BOS, *pieces] if add_special_tokens else pieces, text)


def _pieces(text: str) -> list[str]:
    """Raises the 400 for half a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad_request(_NOT_TEXT) from None
    return tokenizer.pieces(text)


def given_prompts(given: Any, add_special_tokens: bool = True) -> list[Prompt]:
    """From a string, a list of strings, token ids, or a list of lists of token ids, of checked types.

    Raises the 400 for none at all, for an empty one, and for an id outside the vocabulary.
    """
    items = given if isinstance(given, list) and not _are_ids(given) else [given]
    if not items:
        raise bad_request("You must pass at least one prompt")
    return [_given_prompt(item, add_special_tokens) for item in items]


def _given_prompt(item: str | list[int], add_special_tokens: bool) -> Prompt:
    if isinstance(item, str):
        return text_prompt(item, add_special_tokens)
    if not item:
        raise refused(_EMPTY)
    try:
        texts = [tokenizer.token_text(number) for number in item]
    except ValueError as error:
        raise refused(str(error)) from None
    return Prompt(texts, "".join(text for text in texts if text not in tokenizer.SPECIAL_TOKENS), as_ids=True)


def _are_ids(item: list[Any]) -> bool:
    return bool(item) and all(type(number) is int for number in item)


def truncated(prompt: Prompt, body: dict[str, Any], max_model_len: int) -> Prompt:
    """`truncate_prompt_tokens`: the last of the prompt's tokens, or the first. Raises `ApiError`."""
    keep = body.get("truncate_prompt_tokens")
    if keep is None or keep == -1:
        return prompt
    if keep > max_model_len:
        raise bad_parameter(
            f"truncate_prompt_tokens={keep} cannot be greater than max_model_len = {max_model_len}. "
            "Please request a smaller truncation size.",
            "truncate_prompt_tokens",
            keep,
        )
    if keep == 0:
        raise refused(_EMPTY)
    kept = prompt.pieces[:keep] if body.get("truncation_side") == "right" else prompt.pieces[-keep:]
    return Prompt(kept, prompt.subject, prompt.as_ids)


def rendered(messages: list[dict[str, Any]], body: dict[str, Any]) -> Prompt:
    """The prompt of a chat, from checked messages and what a request says of the template. Raises `ApiError`."""
    if body.get("chat_template") is not None:
        raise bad_request(
            "Chat template is passed with request, but --trust-request-chat-template is not set. "
            "Refused request with untrusted chat template."
        )
    if body.get("mm_processor_kwargs"):
        raise bad_parameter(
            "Per-request mm_processor_kwargs are disabled by default because they can change multimodal "
            "preprocessing resource usage. Start the server with --trust-request-mm-kwargs only when clients are "
            "trusted.",
            "mm_processor_kwargs",
        )
    if not messages:
        raise bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
    if body.get("continue_final_message") and body.get("add_generation_prompt", True):
        raise bad_request(
            "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when "
            "you want the model to continue the final message, and add_generation_prompt when you want to add a "
            "header that will prompt it to start a new assistant message instead."
        )
    return chat_prompt(messages)


def chat_prompt(messages: list[dict[str, Any]]) -> Prompt:
    """Messages of the form `{"role": str, "content": str | list of text parts | None}`, already checked."""
    pieces = [tokenizer.BOS]
    text = ""
    for message in messages:
        opening, closing = _ROLE_MARKERS.get(message["role"], _USER_MARKERS)
        if opening is not None:
            pieces.append(opening)
        text = _message_text(message)
        pieces.extend(_pieces(text))
        pieces.append(closing)
    return Prompt(pieces, text)


def _message_text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "\n".join(part_text(part) for part in content)
    if message.get("tool_calls"):
        calls = json.dumps(message["tool_calls"], ensure_ascii=False, separators=(",", ":"))
        content = f"{content}\n{calls}" if content else calls
    return content
