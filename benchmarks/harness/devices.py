"""NVIDIA GPUs, as ``nvidia-smi`` tells about them. Nothing here changes a setting."""

from __future__ import annotations

import csv
import subprocess
from typing import Any

_SECONDS = 30.0
# nvidia-smi's names of what does not change while something is measured, and of what does.
_FIXED = {
    "name": "name",
    "driver": "driver_version",
    "memory_mib": "memory.total",
    "compute_capability": "compute_cap",
    "max_sm_clock_mhz": "clocks.max.sm",
    "power_limit_watts": "power.limit",
}
_CHANGING = {
    "memory_used_mib": "memory.used",
    "utilization_percent": "utilization.gpu",
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "temperature_celsius": "temperature.gpu",
    "power_watts": "power.draw",
    # A bit mask; 0 and 1 (idle) are no slowdown. clocks_throttle_reasons.active before driver 535.
    "slowdown_reasons": "clocks_event_reasons.active",
}
_TEXT = {"name", "driver", "compute_capability", "slowdown_reasons"}
_WATTS = {"power_limit_watts", "power_watts"}

HARMLESS_SLOWDOWNS = 0x0000000000000001
"""GPU idle: https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html"""


def devices() -> list[dict[str, Any]]:
    """Each GPU's name, driver, memory in MiB, compute capability, highest clock in MHz and power limit in watts.

    Empty where there is no ``nvidia-smi`` or it finds none. What it does not know is None.
    """
    return _query(_FIXED)


def device_states() -> list[dict[str, Any]]:
    """Each GPU's memory in use, utilization, clocks, temperature, power, and the reasons why it runs slower.

    The units are in the names. Empty as in `devices`.
    """
    return _query(_CHANGING)


def parse(text: str, fields: list[str]) -> list[dict[str, Any]]:
    """The rows of ``nvidia-smi --format=csv,noheader,nounits`` with its columns named ``fields``.

    Raises ValueError for a row with another number of columns.
    """
    return [
        {field: _value(field, word) for field, word in zip(fields, row, strict=True)}
        for row in csv.reader(text.splitlines(), skipinitialspace=True)
        if row
    ]


def _query(fields: dict[str, str]) -> list[dict[str, Any]]:
    command = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse(told, list(fields))


def _value(field: str, word: str) -> str | int | float | None:
    word = word.strip()
    if field in _TEXT:
        return word
    try:
        return float(word) if field in _WATTS else int(word)
    except ValueError:  # "[N/A]", "[Not Supported]"
        return None
