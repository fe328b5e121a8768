"""The table of interfaces has a row for all that the plugin uses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_cost_logger.self_check.interfaces import INTERFACES
from workbook.paths import ROOT

PLUGIN = ROOT / "support" / "otel_cost_logger"
STEPS = {step for row in INTERFACES for step in re.split(r"[:.]|\(\)", row.name)}

# Read from what LiteLLM gives, but others' to rename: OpenAI's API, W3C, HTTP, and the operator's configuration.
NOT_LITELLMS = {
    *("usage", "choices", "finish_reason", "n", "stream_options", "include_usage", "continuous_usage_stats"),
    *("prompt_tokens_details", "completion_tokens_details", "cached_tokens", "reasoning_tokens", "stream", "model"),
    *("input_tokens", "output_tokens", "background"),
    *("input_tokens_details", "output_tokens_details", "extra_body", "extra_headers", "prompt", "user"),
    *("traceparent", "baggage", "tenant_id", "max_tokens", "max_output_tokens", "status_code"),
}
# Ours, in a place of LiteLLM's.
OURS = {"refused_key"}
# Of an enumeration's member, as Python names it.
PYTHONS = {"value"}
READERS = ("record.py", "pricing.py", "planned.py", "upstream.py", "logger.py", "caller_fields.py")


def sources() -> list[Path]:
    return [path for path in sorted(PLUGIN.rglob("*.py")) if "self_check" not in path.parts]


def imported(path: Path) -> Iterator[str]:
    """``module:name`` of all that a file imports of the two at run time, and ``litellm:name`` of what it uses."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("litellm", "opentelemetry"):
            yield from (f"{node.module}:{alias.name}" for alias in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "litellm":
            yield f"litellm:{node.attr}"


def keys_read(path: Path) -> set[str]:
    """The keys and attributes that a file reads by name, as text."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        of = isinstance(node.func, ast.Name) and node.func.id in ("getattr", "_of")
        get = isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        key = node.args[1] if of else node.args[0] if get else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.add(key.value)
    return found


def foreign_privates(path: Path) -> set[str]:
    """Attributes with a leading underscore, of anything but ``self``, that no class or module of the plugin has."""
    tree = ast.parse(path.read_text())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os"))
    }


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PLUGIN)))
def test_every_import_of_litellm_is_in_the_table(path: Path) -> None:
    names = [row.name for row in INTERFACES if not row.place]
    for used in imported(path):
        private = used.startswith("litellm") or re.search(r"[.:]_", used)
        assert not private or any(re.match(rf"{re.escape(used)}\b", name) for name in names), used


@pytest.mark.parametrize("name", READERS)
def test_every_key_that_is_read_is_in_the_table(name: str) -> None:
    assert not keys_read(PLUGIN / name) - STEPS - NOT_LITELLMS - OURS - PYTHONS


def test_every_private_attribute_of_others_is_in_the_table() -> None:
    ours = {
        node.attr if isinstance(node, ast.Attribute) else node.name
        for other in PLUGIN.rglob("*.py")
        for node in ast.walk(ast.parse(other.read_text()))
        if (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)) or isinstance(node, ast.FunctionDef)
    }
    assert not set().union(*map(foreign_privates, sources())) - STEPS - ours


def test_rows_are_named_once_and_say_where_they_are_used() -> None:
    rows = [(row.place, row.name) for row in INTERFACES]
    assert len(rows) == len(set(rows))
    for row in INTERFACES:
        for module in row.used_in.split(", "):
            place = PLUGIN / module.replace(".", "/")
            assert place.is_dir() or place.with_suffix(".py").is_file(), row
