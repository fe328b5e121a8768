"""Which results may stand beside each other: those that the same code measured on the same kind of machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.results import Machine, Result


class NotComparable(ValueError):
    """Two results measured different things; the message says what differs."""


def require_comparable(results: Sequence[Result]) -> None:
    """Raises `NotComparable` unless all ``results`` are of one benchmark, schema version, machine and measuring code.

    One machine means: the same label, processor, cores and GPUs. Parameters, package versions and the commit may
    differ: what a difference between results comes from is what a comparison is for (see `circumstances`).
    """
    for result in results[1:]:
        for what, first, second in _identities(results[0], result):
            if first != second:
                raise NotComparable(f"results of different {what} cannot be compared: {first} and {second}")


def circumstances(first: Result, second: Result) -> list[str]:
    """What may differ between comparable results and does, in words: a reader looks here for an explanation."""
    found = []
    if first.code.commit != second.code.commit:
        found.append(f"commit: {_short(first.code.commit)}, then {_short(second.code.commit)}")
    if first.machine.python != second.machine.python:
        found.append(f"Python: {first.machine.python}, then {second.machine.python}")
    if first.machine.kernel != second.machine.kernel:
        found.append(f"kernel: {first.machine.kernel}, then {second.machine.kernel}")
    found += [f"parameter {name}: {one}, then {other}" for name, one, other in _changed(first, second, "parameters")]
    found += [f"{name}: {one}, then {other}" for name, one, other in _changed(first, second, "packages")]
    for which, result in (("first", first), ("second", second)):
        found += [f"the {which} is not for quoting: {reason}" for reason in result.validity.reasons]
    return found


def _identities(first: Result, second: Result) -> list[tuple[str, Any, Any]]:
    return [
        ("benchmarks", first.benchmark, second.benchmark),
        ("schema versions", first.schema_version, second.schema_version),
        ("machines", _machine(first.machine), _machine(second.machine)),
        ("benchmark code (sha256)", first.code.sha256[:12], second.code.sha256[:12]),
    ]


def _machine(machine: Machine) -> str:
    devices = "".join(f", {device.name}" for device in machine.devices)
    return f"{machine.label} ({machine.cores_usable} of {machine.cores} cores, {machine.cpu_model}{devices})"


def _changed(first: Result, second: Result, field: str) -> list[tuple[str, Any, Any]]:
    one, other = getattr(first, field), getattr(second, field)
    names = sorted({*one, *other})
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def _short(commit: str | None) -> str:
    return commit[:12] if commit else "not known"
