"""Text for a structured-output constraint: one of the choices, or JSON that satisfies a schema."""

from __future__ import annotations

import json
import random
from typing import Any

from mock_vllm import phrases, tokenizer, tool_calls
from mock_vllm.errors import ApiError, bad_request, refused

Constraint = dict[str, Any]

_KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
# Taken, and answered in prose all the same.
_NOT_FOLLOWED = ("regex", "grammar")
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_MAX_DEPTH = 32


def constraint_of(body: dict[str, Any]) -> Constraint | None:
    """`{"choice": [...]}` or `{"json": schema}` from `structured_outputs` or `response_format`, or None.

    Raises `ApiError` where vLLM's API server would.
    """
    asked = body.get("structured_outputs")
    if asked is not None:
        return _from_structured_outputs(asked)
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        schema = wanted["json_schema"].get("schema")
        if schema is None:
            raise _nothing_asked({})
        return {"json": schema}
    return {"json": {"type": "object"}} if wanted.get("type") == "json_object" else None


def _from_structured_outputs(asked: dict[str, Any]) -> Constraint | None:
    given = [kind for kind in _KINDS if asked.get(kind) is not None]
    if not given:
        raise _nothing_asked(asked)
    kind = given[0]
    if kind in _NOT_FOLLOWED:
        return None
    if kind == "json_object":
        return {"json": {"type": "object"} if asked[kind] else None}
    return {kind: asked[kind]}


def _nothing_asked(asked: dict[str, Any]) -> ApiError:
    shown = {
        **dict.fromkeys(("json", "regex", "choice", "grammar", "json_object")),
        "disable_any_whitespace": asked.get("disable_any_whitespace", False),
        "disable_additional_properties": asked.get("disable_additional_properties", False),
        "whitespace_pattern": asked.get("whitespace_pattern"),
        "structural_tag": None,
        "_backend": None,
        "_backend_was_auto": False,
    }
    return bad_request(f"You must use one kind of structured outputs constraint but none are specified: {shown}")


def check(constraint: Constraint) -> None:
    """Raises the `EngineRefusal` for a constraint that no text satisfies, or that is none. Reads a schema's text."""
    if "choice" in constraint:
        if not constraint["choice"]:
            raise refused("Choice '[]' cannot be an empty list")
        return
    schema = constraint["json"]
    if schema is None:
        raise refused(
            "structured_outputs.json_object must be True if set; omit structured_outputs to disable structured outputs"
        )
    if isinstance(schema, str):
        try:
            schema = constraint["json"] = json.loads(schema)
        except ValueError:
            raise refused("Invalid JSON grammar specification.") from None
    kind = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(kind, str) and kind not in _TYPES:
        raise refused(f"Grammar error: Invalid type: {kind}")


def tool_call(seed: int, function: dict[str, Any]) -> list[str]:
    """Tokens of a call of this function, with arguments that satisfy its parameters, then `tokenizer.EOS`."""
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    arguments = _instance(random.Random(seed), schema, schema, 0)
    return [*tokenizer.pieces(tool_calls.call_text(function["name"], arguments)), tokenizer.EOS]


def constrained_text(seed: int, constraint: Constraint) -> list[str]:
    """Tokens of a text that satisfies the constraint, then `tokenizer.EOS`."""
    rng = random.Random(seed)
    if "choice" in constraint:
        text = constraint["choice"][int(rng.random() * len(constraint["choice"]))]
    else:
        schema = constraint["json"]
        text = json.dumps(_instance(rng, schema, schema, 0), ensure_ascii=False)
    return [*tokenizer.pieces(text), tokenizer.EOS]


def _instance(rng: random.Random, schema: Any, root: Any, depth: int) -> Any:
    """A small value of the schema: required and optional properties alike, the shortest legal arrays."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _instance(rng, _resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][int(rng.random() * len(schema["enum"]))]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _instance(rng, schema[key][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return _object(rng, schema, root, depth)
    if kind == "array":
        count = max(1, int(schema.get("minItems", 1)))
        return [_instance(rng, schema.get("items", {}), root, depth + 1) for _ in range(count)]
    if kind == "boolean":
        return rng.random() < 0.5
    if kind in ("integer", "number"):
        return _number(rng, schema, kind)
    return None if kind == "null" else _string(rng, schema)


def _object(rng: random.Random, schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    required = schema.get("required", [])
    # Past a few levels only what must be there: a schema that refers to itself would never end.
    names = [name for name in properties if depth < 4 or name in required]
    names += [name for name in required if name not in properties]
    made = {name: _instance(rng, properties.get(name, {}), root, depth + 1) for name in names}
    if not made and schema.get("additionalProperties", True) is not False and "properties" not in schema:
        made = {"answer": _string(rng, {})}
    return made


def _number(rng: random.Random, schema: dict[str, Any], kind: str) -> int | float:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high = schema.get("maximum", schema.get("exclusiveMaximum", max(low, 0) + 100))
    if kind == "integer":
        low += 1 if "exclusiveMinimum" in schema else 0
        high -= 1 if "exclusiveMaximum" in schema else 0
        return int(low + int(rng.random() * (high - low + 1)))
    return float(round((low + high) / 2 + (rng.random() - 0.5) * (high - low) / 2, 2))


def _string(rng: random.Random, schema: dict[str, Any]) -> str:
    text = phrases.NOUNS[int(rng.random() * len(phrases.NOUNS))]
    least = int(schema.get("minLength", 0))
    while len(text) < least:
        text += " " + phrases.NOUNS[int(rng.random() * len(phrases.NOUNS))]
    return text[: int(schema.get("maxLength", len(text)))]


def _resolve(reference: str, root: Any) -> Any:
    target = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    return target
