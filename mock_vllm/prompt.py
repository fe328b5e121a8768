"""From what a request asks to the tokens the engine reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mock_vllm import tokenizer
from mock_vllm.errors import bad_parameter

# Roles as in Mistral's chat template; one it does not know is treated as a user, as in the recordings.
_ROLE_MARKERS = {
    "system": ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "developer": ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "assistant": (None, tokenizer.EOS),
    "tool": ("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
}
_USER_MARKERS = ("[INST]", "[/INST]")


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens as text, and the words the answer is about (the last message, or the whole prompt)."""

    pieces: list[str]
    subject: str

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)

    def ids(self) -> list[int]:
        return [tokenizer.token_id(piece) for piece in self.pieces]


def text_prompt(text: str, add_special_tokens: bool = True) -> Prompt:
    pieces = tokenizer.pieces(text)
    return Prompt([tokenizer.BOS, *pieces] if add_special_tokens else pieces, text)


def given_prompts(given: Any, parameter: str, add_special_tokens: bool = True) -> list[Prompt]:
    """From a string, a list of strings, token ids, or a list of lists of token ids.

    Raises the 400 for anything else, and for an id outside the vocabulary; `parameter` names it there.
    """
    items = given if isinstance(given, list) and not _are_ids(given) else [given]
    if not items:
        raise bad_parameter(f"{parameter} must not be an empty list.", parameter)
    return [_given_prompt(item, parameter, add_special_tokens) for item in items]


def _given_prompt(item: Any, parameter: str, add_special_tokens: bool) -> Prompt:
    if isinstance(item, str):
        return text_prompt(item, add_special_tokens)
    if not _are_ids(item):
        raise bad_parameter(f"{parameter} must be a string, token ids, or a list of either", parameter)
    try:
        texts = [tokenizer.token_text(number) for number in item]
    except ValueError as error:
        raise bad_parameter(str(error), parameter) from None
    return Prompt(texts, "".join(text for text in texts if text not in tokenizer.SPECIAL_TOKENS))


def _are_ids(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(type(number) is int for number in item)


def chat_prompt(messages: list[dict[str, Any]]) -> Prompt:
    """Messages of the form `{"role": str, "content": str | list of text parts | None}`, already checked."""
    pieces = [tokenizer.BOS]
    text = ""
    for message in messages:
        opening, closing = _ROLE_MARKERS.get(message["role"], _USER_MARKERS)
        if opening is not None:
            pieces.append(opening)
        text = _message_text(message)
        pieces.extend(tokenizer.pieces(text))
        pieces.append(closing)
    return Prompt(pieces, text)


def _message_text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "\n".join(part if isinstance(part, str) else part["text"] for part in content)
    if message.get("tool_calls"):
        calls = json.dumps(message["tool_calls"], ensure_ascii=False, separators=(",", ":"))
        content = f"{content}\n{calls}" if content else calls
    return content
