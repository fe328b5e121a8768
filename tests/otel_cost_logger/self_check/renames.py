"""Run as a program, in a process that has loaded LiteLLM's proxy: renames interfaces one by one, and tells as a JSON
line what the self-check says to each. A key is renamed in what the hooks are given, a name where it is looked up.

``python renames.py keys|names [ROW...]``, where a row is its number in the table; default: all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from otel_cost_logger.self_check import interfaces
from otel_cost_logger.self_check.check import check
from otel_cost_logger.self_check.interfaces import INTERFACES, Interface, names_gone


class Without:
    """``thing`` without what is at the end of ``path``, a path of attributes and keys."""

    def __init__(self, thing: Any, path: list[str]) -> None:
        self._thing, self._path = thing, path

    def __getattr__(self, name: str) -> Any:
        if [name] == self._path:
            raise AttributeError(name)
        value = self._thing[name] if isinstance(self._thing, Mapping) else getattr(self._thing, name)
        return Without(value, self._path[1:]) if [name] == self._path[:1] else value

    def __call__(self) -> Any:
        return Without(self._thing(), self._path)


def renamed(thing: Any, path: list[str]) -> Any:
    """A copy of ``thing`` in which the key at the end of ``path`` has another name."""
    first, *rest = path
    if not isinstance(thing, Mapping):
        return Without(thing, path)
    if first not in thing:
        return thing
    copy = dict(thing)
    value = copy.pop(first)
    copy[first if rest else f"{first}_renamed"] = renamed(value, rest) if rest else value
    return copy


@contextmanager
def key_renamed(row: Interface) -> Iterator[None]:
    from otel_cost_logger.self_check.observed import Observed

    look = Observed.look

    def look_at_renamed(self: Observed, place: str, thing: Any) -> Any:
        return look(self, place, renamed(thing, row.name.split(".")) if place == row.place else thing)

    Observed.look = look_at_renamed  # type: ignore[method-assign]
    try:
        yield
    finally:
        Observed.look = look  # type: ignore[method-assign]


@contextmanager
def name_renamed(row: Interface) -> Iterator[None]:
    module, _, path = row.name.partition(":")
    steps = [step for step, _ in interfaces._STEP.findall(path)]

    def import_renamed(name: str) -> Any:
        return Without(import_module(name), steps) if name == module else import_module(name)

    interfaces.import_module = import_renamed  # type: ignore[assignment]
    try:
        yield
    finally:
        interfaces.import_module = import_module


def main(what: str, numbers: list[str]) -> None:
    import_module("litellm.proxy.proxy_server")
    for number, row in enumerate(INTERFACES):
        if (numbers and str(number) not in numbers) or bool(row.place) != (what == "keys"):
            continue
        if row.place:
            with key_renamed(row):
                report = check()
            said = {"wrong": report.wrong, "gone": report.gone}
        else:
            with name_renamed(row):
                said = {"wrong": (), "gone": tuple(str(each) for each in names_gone(exporters=True))}
        print(json.dumps({"number": number, "row": str(row), **said}), flush=True)
    report = check()
    print(json.dumps({"number": -1, "row": "none", "wrong": report.wrong, "gone": report.gone}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
