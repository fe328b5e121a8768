"""Where a result comes from: code, machine and versions, and nothing that names a person, a host or a folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.harness.devices import devices
from workbook.paths import ROOT

# What takes part in a call, on either side of the wire, or in the arithmetic afterwards.
_PACKAGES = re.compile(
    r"aiohttp|fastapi|grpcio|h11|httpcore|httptools|httpx|litellm|litellm-proxy-extras|numpy|openai|"
    r"opentelemetry-.*|orjson|protobuf|pydantic|pydantic-core|starlette|uvicorn|uvloop|vllm"
)


def machine() -> dict[str, Any]:
    """The machine: processor, cores (all, and those this process may use), memory in GiB, kernel, Python, GPUs."""
    return {
        "cpu_model": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "virtual": "hypervisor" in _cpuinfo("flags").split(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "devices": devices(),
    }


def machine_label() -> str:
    """A neutral name for this kind of machine, such as ``2-core-amd-epyc``, or with GPUs ``1-gpu-nvidia-h200``."""
    if found := devices():
        return f"{len(found)}-gpu-{_slug(found[0]['name'])}"
    return f"{os.cpu_count() or 1}-core-{_slug(_cpu_model())}"


def packages() -> dict[str, str]:
    """Installed versions of the packages that take part in a call, by name."""
    found = {
        re.sub(r"[-_.]+", "-", distribution.name).lower(): distribution.version
        for distribution in metadata.distributions()
    }
    return {name: found[name] for name in sorted(found) if _PACKAGES.fullmatch(name)}


def load_average() -> list[float]:
    """The 1, 5 and 15 minute load averages."""
    return [round(value, 2) for value in os.getloadavg()]


def commit() -> tuple[str | None, bool | None]:
    """The checkout's commit, and whether anything but stored results differs from it; both None without git."""
    try:
        head = _git("rev-parse", "HEAD").strip()
        changes = _git("status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return head, bool(changes)


def code_sha256(modules: Iterable[ModuleType]) -> str:
    """One SHA-256 over the names and sources of ``modules``, whatever their order."""
    digest = hashlib.sha256()
    for module in sorted(modules, key=lambda module: module.__name__):
        if module.__file__ is None:
            raise ValueError(f"module {module.__name__} has no source file")
        source = Path(module.__file__).read_bytes()
        digest.update(f"{module.__name__} {len(source)}\n".encode() + source)
    return digest.hexdigest()


def unimported(name: str) -> ModuleType:
    """What stands for the source of module ``name`` in `code_sha256`, where importing it would take seconds.

    Raises ModuleNotFoundError when there is none.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source of module {name}", name=name)
    stand_in = ModuleType(name)
    stand_in.__file__ = spec.origin
    return stand_in


def shareable(argv: Sequence[str]) -> list[str]:
    """Command line words, each path among them replaced by ``<path>``: folders carry people's names."""
    return [re.sub(r"(?:(?<==)|^)[^=]*[/~].*$", "<path>", word) for word in argv]


def _slug(name: str) -> str:
    return re.sub(r"(?:\((?:r|tm)\)|[^a-z0-9])+", "-", name.lower()).strip("-")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _cpu_model() -> str:
    # Arm processors have no model name there.
    return _cpuinfo("model name") or platform.machine()


def _cpuinfo(name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else ""
