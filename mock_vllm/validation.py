"""Is a body what its endpoint declares? Types first, all problems at once, in pydantic's words as in vLLM."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from mock_vllm.errors import ApiError, HttpDetail, malformed

# pydantic's description of one problem: type, loc, msg, input, and sometimes ctx
Detail = dict[str, Any]

# What vLLM shows of one error, of its input, and how many errors of one body.
_MOST_CHARACTERS = 1000
_MOST_INPUT_CHARACTERS = 200
_MOST_ERRORS = 10

# Names of alternatives in a location that mean nothing to a caller; vLLM leaves them out, and all with brackets.
_INTERNAL = frozenset({"str", "int", "float", "bool", "bytes", "list", "dict", "none", "nullable"})
_BRACKETS = re.compile(r"[\[\]{}()]")


class FieldType:
    """A declared type. `exact` are the types to let through without asking pydantic: most, most of the time.

    The schema is built when the first other value comes, as building all of them would double the time to start.
    A value comes out as plain data: what the caller wrote, coerced, and with `complete` all that it left out.
    """

    def __init__(self, annotation: Callable[[], Any], exact: tuple[type, ...], complete: bool) -> None:
        self._annotation = annotation
        self._complete = complete
        self.exact = frozenset(exact)

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._annotation())

    def coerce(self, value: Any) -> Any:
        """Raises pydantic's `ValidationError`."""
        read = self._adapter.validate_python(value, from_attributes=True)
        return self._adapter.dump_python(read, by_alias=True, exclude_unset=not self._complete, warnings=False)


def field(annotation: Any, *exact: type) -> FieldType:
    return FieldType(lambda: annotation, exact, complete=False)


def deferred(annotation: Callable[[], Any], *exact: type) -> FieldType:
    """A type that is looked up when it is needed, and a value with all of its defaults."""
    return FieldType(annotation, exact, complete=True)


async def read_json(request: Request) -> Any:
    """The decoded body; raises a 400 for another media type, an empty body or text that is not JSON."""
    media_type = request.headers.get("content-type", "").lower().partition(";")[0]
    if media_type != "application/json":
        raise malformed(1, ["Unsupported Media Type: Only 'application/json' is allowed"], None)
    raw = await request.body()
    if not raw:
        raise problems([_detail("missing", ("body",), "Field required", None)])
    try:
        decoded = json.loads(raw)
    except json.JSONDecodeError as error:
        detail = _detail("json_invalid", ("body", error.pos), "JSON decode error", {})
        raise problems([{**detail, "ctx": {"error": error.msg}}]) from None
    except (ValueError, RecursionError):  # not UTF-8, or too deep, or a number of thousands of digits
        raise HttpDetail(400, "There was an error parsing the body") from None
    if decoded is None:
        raise problems([_detail("missing", ("body",), "Field required", None)])
    return decoded


def as_object(body: Any, kinds: int = 1) -> dict[str, Any]:
    """The body, which must be an object: raises `ApiError`, with a problem for each of the kinds it may be of."""
    if not isinstance(body, dict):
        text = "Input should be a valid dictionary or object to extract fields from"
        raise problems([_detail("model_attributes_type", ("body",), text, body)] * kinds)
    return body


def checked_body(
    body: dict[str, Any], fields: Mapping[str, FieldType], required: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The body with its declared fields coerced as pydantic does ("16" is an int); other fields as they are.

    Raises `ApiError` with all problems, in the order in which the fields are declared.
    """
    checked, found = looked_through(body, fields, required)
    if found:
        raise problems(found)
    return checked


def looked_through(
    body: dict[str, Any], fields: Mapping[str, FieldType], required: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[Detail]]:
    """The same, with the problems as pydantic describes them, and without raising."""
    found = {
        name: [_detail("missing", ("body", name), "Field required", body)] for name in required if name not in body
    }
    coerced = {}
    for name, value in body.items():
        declared = fields.get(name)
        if declared is None or type(value) in declared.exact:
            continue
        try:
            coerced[name] = declared.coerce(value)
        except ValidationError as error:
            found[name] = located(error, "body", name)
    checked = {**body, **coerced} if coerced else body
    return checked, [detail for name in fields if name in found for detail in found[name]]


def problems(found: list[Detail]) -> ApiError:
    """One line per problem; the first location is the param."""
    lines = [_shown(detail) for detail in found[:_MOST_ERRORS]]
    if len(found) > _MOST_ERRORS:
        lines.append(f"...and {len(found) - _MOST_ERRORS} more errors")
    return malformed(len(found), lines, _place(found[0]["loc"]))


def located(error: ValidationError, *place: str | int) -> list[Detail]:
    """An error's problems, each under `place`."""
    return [{**detail, "loc": (*place, *detail["loc"])} for detail in error.errors(include_url=False)]


def _detail(kind: str, location: tuple[str | int, ...], message: str, given: Any) -> Detail:
    return {"type": kind, "loc": location, "msg": message, "input": given}


def _shown(detail: Detail) -> str:
    return _cut(str({**detail, "loc": _place(detail["loc"]), "input": _summary(detail["input"])}), _MOST_CHARACTERS)


def _place(location: Iterable[str | int]) -> str:
    parts = [str(part) for part in location]
    return ".".join(part for part in parts if not _BRACKETS.search(part) and part.lower() not in _INTERNAL)


def _summary(given: Any) -> str:
    """vLLM does not repeat a caller's containers in errors: they are named by their size alone."""
    if isinstance(given, dict | list):
        return f"<{type(given).__name__} of {len(given)} items>"
    return _cut(str(given), _MOST_INPUT_CHARACTERS)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}...[truncated]"
