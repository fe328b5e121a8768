"""Text for a structured-output constraint: one of the choices, or JSON that satisfies a schema."""

from __future__ import annotations

import json
import random
from typing import Any

from mock_vllm import phrases, tokenizer
from mock_vllm.errors import bad_parameter, bad_request

Constraint = dict[str, Any]

_UNSUPPORTED = ("regex", "grammar", "structural_tag")
_MAX_DEPTH = 32


def constraint_of(body: dict[str, Any]) -> Constraint | None:
    """`{"choice": [...]}` or `{"json": schema}` from `structured_outputs` or `response_format`, or None.

    Raises `ApiError` where vLLM would, and for the kinds of constraint that the mock cannot satisfy.
    """
    asked = body.get("structured_outputs")
    if asked is not None:
        return _from_structured_outputs(asked)
    wanted = body.get("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type")
    if kind == "json_schema":
        described = wanted.get("json_schema")
        if not isinstance(described, dict):
            raise bad_parameter(
                "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
                "response_format",
            )
        return {"json": described.get("schema") or {}}
    if kind == "json_object":
        return {"json": {"type": "object"}}
    return None


def _from_structured_outputs(asked: dict[str, Any]) -> Constraint | None:
    given = [key for key in ("json", "regex", "choice") if asked.get(key) is not None]
    if len(given) > 1:
        raise bad_request(
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
        )
    for key in _UNSUPPORTED:
        if asked.get(key) is not None:
            raise bad_parameter(f"mock_vllm cannot follow structured_outputs.{key}", "structured_outputs")
    if asked.get("choice") is not None:
        choices = asked["choice"]
        if not isinstance(choices, list) or not choices or not all(isinstance(item, str) for item in choices):
            raise bad_parameter(
                "structured_outputs.choice must be a list of strings and not empty", "structured_outputs"
            )
        return {"choice": choices}
    if asked.get("json") is not None:
        return {"json": _schema(asked["json"])}
    return {"json": {"type": "object"}} if asked.get("json_object") else None


def _schema(given: Any) -> Any:
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise bad_parameter(f"structured_outputs.json is not JSON: {error}", "structured_outputs") from None


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
