"""Reasons not to quote a measurement, which every benchmark looks for in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from benchmarks.harness.machine import QUIET_CORES
from benchmarks.harness.rounds import Sample
from benchmarks.harness.statistics import Ratio


def busy(samples: Sequence[Sample], what: str = "it") -> list[str]:
    """The machine had other things to do while ``what`` was measured; each sample has ``others_cores``, or None."""
    known = [float(sample["others_cores"]) for sample in samples if sample.get("others_cores") is not None]
    if known and (others := fmean(known)) > QUIET_CORES:
        return [f"busy machine: others used {others:.2f} cores while {what} was measured, more than {QUIET_CORES}"]
    return []


def too_few(count: int, minimum: int, what: str = "rounds") -> list[str]:
    """There were fewer than ``minimum`` of ``what``."""
    return [f"{count} {what} are too few: an interval needs at least {minimum}"] if count < minimum else []


def uneven(nulls: Mapping[str, Ratio], where: str = "") -> list[str]:
    """Equal things differ by more than their own interval."""
    return [
        f"the A/A comparison of {name.replace('_', ' ')}{where} should contain 1 and is {null}: the noise differs "
        "between arms"
        for name, null in nulls.items()
        if not null.may_be_one
    ]


def kinds(errors: Mapping[str, int]) -> str:
    """Errors by kind, in words."""
    return ", ".join(f"{kind}: {count}" for kind, count in sorted(errors.items())) or "no error"
