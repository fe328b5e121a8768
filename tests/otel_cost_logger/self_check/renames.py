"""Run as a program, in a process that has loaded LiteLLM's proxy: renames interfaces one by one, and tells as a JSON
line what the self-check says to each. A key is renamed in what the hooks are given, a name where it is looked up.

``python renames.py keys|names [ROW...]``, where a row is its number in the table; default: all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from otel_cost_logger.self_check.check import check
from otel_cost_logger.self_check.interfaces import _STEP, INTERFACES, Interface, names_gone


class Without:
    """``thing`` without one of its attributes."""

    def __init__(self, thing: object, name: str) -> None:
        self._thing, self._name = thing, name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._thing, name)


def renamed(thing: Any, path: list[str]) -> Any:
    """A copy of ``thing`` in which the key at the end of ``path`` has another name."""
    first, *rest = path
    if not isinstance(thing, Mapping):
        return Without(thing, first) if not rest else thing
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
    holder: Any = import_module(module)
    *steps, (name, _) = _STEP.findall(path)
    for step, call in steps:
        holder = getattr(holder, step)
        holder = holder() if call else holder
    undo: Callable[[], None]
    if isinstance(holder, dict):
        value = holder.pop(name)
        undo = lambda: holder.update({name: value})  # noqa: E731
    elif name in getattr(holder, "__dict__", {}) and not steps:
        value = vars(holder)[name]
        delattr(holder, name)
        undo = lambda: setattr(holder, name, value)  # noqa: E731
    else:
        kind = holder if isinstance(holder, type) else type(holder)
        owner = next((each for each in kind.__mro__ if name in vars(each)), None)
        if owner is not None:
            value = vars(owner)[name]
            delattr(owner, name)
            undo = lambda: setattr(owner, name, value)  # noqa: E731
        else:  # set by the constructor
            construct = kind.__init__

            def construct_without(self: Any, *arguments: Any, **named: Any) -> None:
                construct(self, *arguments, **named)
                vars(self).pop(name, None)

            kind.__init__ = construct_without  # type: ignore[misc]
            vars(holder).pop(name, None) if not steps else None
            undo = lambda: setattr(kind, "__init__", construct)  # noqa: B010, E731
    try:
        yield
    finally:
        undo()


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
