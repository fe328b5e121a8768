"""Are these chat messages? Most are a role and a text, and pass at a glance; the others are asked about in detail.

vLLM reads messages with the types of the `openai` package, which so decide the texts of its errors. They are
imported when the first odd message comes: they take a second to load.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Literal, Required

from pydantic import BaseModel, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from mock_vllm.errors import bad_parameter, bad_request
from mock_vllm.validation import Detail, located, problems

Json = dict[str, Any]

_TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
_MEDIA_PARTS = (
    "audio_embeds",
    "audio_url",
    "image_embeds",
    "image_pil",
    "image_url",
    "input_audio",
    "input_image",
    "video_embeds",
    "video_url",
)
_OTHER_PARTS = ("prompt_embeds", "tool_reference")


class _Url(TypedDict):
    url: str


class ChatCompletionContentPartAudioParam(TypedDict, total=False):
    audio_url: Required[_Url]
    type: Required[Literal["audio_url"]]


class ChatCompletionContentPartVideoParam(TypedDict, total=False):
    video_url: Required[_Url]
    type: Required[Literal["video_url"]]


class ChatCompletionContentPartPromptEmbedsParam(TypedDict, total=False):
    data: Required[str]
    type: Required[Literal["prompt_embeds"]]


class CustomChatCompletionContentSimpleImageParam(TypedDict, total=False):
    image_url: str | None
    uuid: str | None


class CustomChatCompletionContentSimpleAudioParam(TypedDict, total=False):
    audio_url: str | None


class CustomChatCompletionContentSimpleVideoParam(TypedDict, total=False):
    video_url: str | None
    uuid: str | None


class CustomChatCompletionContentToolReferenceParam(TypedDict, total=False):
    name: str
    type: Literal["tool_reference"]


class CustomThinkCompletionContentParam(TypedDict, total=False):
    thinking: Required[str]
    closed: bool
    type: Literal["thinking"]


class _Author(BaseModel):
    role: str
    name: str | None = None


class Message(BaseModel):
    """The last that vLLM tries: a message of the Harmony format."""

    author: _Author
    content: list[Any] = []


@functools.cache
def _any_message() -> TypeAdapter[Any]:
    from openai.types import chat

    part = (
        chat.ChatCompletionContentPartTextParam
        | chat.ChatCompletionContentPartImageParam
        | chat.ChatCompletionContentPartInputAudioParam
        | chat.chat_completion_content_part_param.File
        | ChatCompletionContentPartAudioParam
        | ChatCompletionContentPartVideoParam
        | chat.ChatCompletionContentPartRefusalParam
        | CustomChatCompletionContentSimpleImageParam
        | ChatCompletionContentPartPromptEmbedsParam
        | CustomChatCompletionContentSimpleAudioParam
        | CustomChatCompletionContentSimpleVideoParam
        | CustomChatCompletionContentToolReferenceParam
        | str
        | CustomThinkCompletionContentParam
    )

    class CustomChatCompletionMessageParam(TypedDict, total=False):
        """vLLM's own type beside OpenAI's: any role will do, and a message need not say anything."""

        role: Required[str]
        content: str | list[part]
        name: str
        tool_call_id: str | None
        tool_calls: Iterable[chat.ChatCompletionMessageFunctionToolCallParam] | None
        reasoning: str | None

    return TypeAdapter(
        chat.ChatCompletionDeveloperMessageParam
        | chat.ChatCompletionSystemMessageParam
        | chat.ChatCompletionUserMessageParam
        | chat.ChatCompletionAssistantMessageParam
        | chat.ChatCompletionToolMessageParam
        | chat.ChatCompletionFunctionMessageParam
        | CustomChatCompletionMessageParam
        | Message
    )


def checked_messages(messages: list[Any], model_name: str) -> list[Json]:
    """The messages, their parts in lists. Raises the `ApiError` of a text model for what is none, or is not text."""
    read, found = looked_at(messages)
    if found:
        raise problems(found)
    for message in read:
        if not isinstance(message["content"], str):
            for part in message["content"] or ():
                _check_part(part, model_name)
    return read


def looked_at(messages: list[Any]) -> tuple[list[Json], list[Detail]]:
    """The messages, and what is wrong with the types in them as pydantic describes it."""
    read: list[Json] = []
    found: list[Detail] = []
    for number, message in enumerate(messages):
        if _is_plain(message):
            read.append(message)
            continue
        try:
            read.append(_materialised(_any_message().validate_python(message, from_attributes=True)))
        except ValidationError as error:
            found += located(error, "body", "messages", number)
    return read, found


def _is_plain(message: Any) -> bool:
    return (
        type(message) is dict
        and len(message) == 2
        and type(message.get("role")) is str
        and type(message.get("content")) is str
    )


def _materialised(message: Any) -> Json:
    """A message as plain data.

    OpenAI's types look at the elements of a list one by one when they are asked for, and by then vLLM has stopped
    to gather errors: calls are refused by themselves, and parts in pydantic's own text.
    """
    if isinstance(message, Message):
        return {"role": message.author.role, "content": ""}
    calls, content = message.get("tool_calls"), message.get("content")
    if calls is not None:
        try:
            message = {**message, "tool_calls": list(calls)}
        except ValidationError as error:
            raise problems(located(error, "body")) from None
    if content is not None and not isinstance(content, str):
        try:
            content = list(content)
        except ValidationError as error:
            raise bad_request(str(error)) from None
    return {**message, "content": content}


def _check_part(part: Any, model_name: str) -> None:
    if isinstance(part, str):
        return
    kind = part.get("type")
    if kind in _MEDIA_PARTS:
        raise bad_request(f"{model_name} is not a multimodal model")
    if kind not in _TEXT_PARTS:
        supported = ", ".join(sorted([*_TEXT_PARTS, *_MEDIA_PARTS, *_OTHER_PARTS]))
        raise bad_parameter(
            f"Unsupported chat content part type: '{kind}'. Supported types: {supported}.", "type", kind
        )


def part_text(part: Any) -> str:
    """The text of a checked part."""
    return part if isinstance(part, str) else str(part[_TEXT_PARTS[part["type"]]])
