"""Is a body what its endpoint declares? Types first, all problems at once, in pydantic's words as in vLLM."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request

from mock_vllm.errors import ApiError, bad_parameter, malformed

# pydantic's error type, the location, pydantic's message, the input
_Problem = tuple[str, tuple[str | int, ...], str, Any]


class FieldType(NamedTuple):
    """`exact` are the types to let through without asking pydantic, which is most of them, most of the time."""

    exact: frozenset[type]
    adapter: TypeAdapter[Any]


def _type(annotation: Any, *exact: type) -> FieldType:
    return FieldType(frozenset(exact), TypeAdapter(annotation))


_NONE = type(None)
BOOL = _type(bool, bool)
INT = _type(int, int)
FLOAT = _type(float, float, int)
STRING = _type(str, str)
LIST = _type(list[Any], list)
INT_LIST = _type(list[int])
OPTIONAL_BOOL = _type(bool | None, bool, _NONE)
OPTIONAL_INT = _type(int | None, int, _NONE)
OPTIONAL_FLOAT = _type(float | None, float, int, _NONE)
OPTIONAL_STRING = _type(str | None, str, _NONE)
OPTIONAL_LIST = _type(list[Any] | None, list, _NONE)
OPTIONAL_INT_LIST = _type(list[int] | None, _NONE)
OPTIONAL_OBJECT = _type(dict[str, Any] | None, dict, _NONE)
SEED = _type(Annotated[int, Field(ge=-(2**63), lt=2**63)] | None, _NONE)
STRINGS = _type(str | list[str] | None, str, _NONE)

# What the generating endpoints of OpenAI's style have in common.
SAMPLING_FIELDS: dict[str, FieldType] = {
    "model": OPTIONAL_STRING,
    "temperature": OPTIONAL_FLOAT,
    "top_p": OPTIONAL_FLOAT,
    "top_k": OPTIONAL_INT,
    "min_p": OPTIONAL_FLOAT,
    "presence_penalty": OPTIONAL_FLOAT,
    "frequency_penalty": OPTIONAL_FLOAT,
    "repetition_penalty": OPTIONAL_FLOAT,
    "max_tokens": OPTIONAL_INT,
    "min_tokens": INT,
    "ignore_eos": BOOL,
    "seed": SEED,
    "stop": STRINGS,
    "stop_token_ids": OPTIONAL_INT_LIST,
    "include_stop_str_in_output": BOOL,
    "stream": OPTIONAL_BOOL,
    "stream_options": OPTIONAL_OBJECT,
    "response_format": OPTIONAL_OBJECT,
    "structured_outputs": OPTIONAL_OBJECT,
    "return_token_ids": OPTIONAL_BOOL,
    "request_id": STRING,
    "user": OPTIONAL_STRING,
}


async def read_json(request: Request) -> Any:
    """The decoded body; raises a 400 for another media type, an empty body or text that is not JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise malformed(["Unsupported Media Type: Only 'application/json' is allowed"], None)
    raw = await request.body()
    if not raw:
        raise _problems([("missing", ("body",), "Field required", None)])
    try:
        return json.loads(raw)
    except json.JSONDecodeError as error:
        raise _problems([("json_invalid", ("body", error.pos), "JSON decode error", {})]) from None
    except (ValueError, RecursionError):  # not UTF-8, or too deep, or a number of thousands of digits
        raise ApiError(400, "BadRequestError", "There was an error parsing the body") from None


def checked_body(body: Any, fields: Mapping[str, FieldType], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The body with its declared fields coerced as pydantic does ("16" is an int); other fields as they are."""
    if not isinstance(body, dict):
        raise _problems(
            [
                (
                    "model_attributes_type",
                    ("body",),
                    "Input should be a valid dictionary or object to extract fields from",
                    body,
                )
            ]
        )
    problems = [("missing", ("body", name), "Field required", body) for name in required if name not in body]
    coerced = {}
    for name, value in body.items():
        declared = fields.get(name)
        if declared is None or type(value) in declared.exact:
            continue
        try:
            coerced[name] = declared.adapter.validate_python(value)
        except ValidationError as error:
            problems += [
                (problem["type"], ("body", name, *problem["loc"]), problem["msg"], problem["input"])
                for problem in error.errors()
            ]
    if problems:
        raise _problems(problems)
    return {**body, **coerced} if coerced else body


def check_stream_options(body: Mapping[str, Any]) -> None:
    """Raises `ApiError` for options of a stream that was not asked for."""
    if body.get("stream_options") and not body.get("stream"):
        raise bad_parameter("Stream options can only be defined when `stream=True`.", "stream_options")


def check_messages(messages: list[Any], model_name: str) -> None:
    """Chat messages: objects with a role and a text content. Raises what vLLM's text models raise."""
    for number, message in enumerate(messages):
        place = ("body", "messages", number)
        if not isinstance(message, dict):
            raise _problems([("dict_type", place, "Input should be a valid dictionary", message)])
        if "role" not in message:
            raise _problems([("missing", (*place, "role"), "Field required", message)])
        if not isinstance(message["role"], str):
            raise _problems([("string_type", (*place, "role"), "Input should be a valid string", message["role"])])
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                _check_part(part, place, model_name)
        elif content is not None and not isinstance(content, str):
            raise _problems([("string_type", (*place, "content"), "Input should be a valid string", content)])


def _check_part(part: Any, place: tuple[str | int, ...], model_name: str) -> None:
    if isinstance(part, str):
        return
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "input_audio", "audio_url", "video_url"):
        raise ApiError(400, "BadRequestError", f"{model_name} is not a multimodal model")
    if kind not in ("text", "input_text", "output_text", "refusal"):
        raise ApiError(400, "BadRequestError", f"Unknown part type: {kind}")
    if not isinstance(part.get("text"), str):
        raise _problems([("missing", (*place, "content", kind, "text"), "Field required", part)])


def _problems(found: Sequence[_Problem]) -> ApiError:
    """One line per problem; the first location is the param."""
    lines = []
    for kind, location, message, given in found:
        where = ".".join(map(str, location))
        lines.append(str({"type": kind, "loc": where, "msg": message, "input": _summary(given)}))
    return malformed(lines, ".".join(map(str, found[0][1])))


def _summary(given: Any) -> str:
    """vLLM does not repeat the caller's content in errors: containers are named by their size alone."""
    if isinstance(given, dict | list):
        return f"<{type(given).__name__} of {len(given)} items>"
    return str(given)
