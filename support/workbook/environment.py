"""The environment variables that keep a process off the internet and free of its parent's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from workbook.paths import DEPLOY

# What a child needs from the reader's own environment. Keys, tokens, database addresses and OTEL_* settings
# are left behind: they would change what the notebooks show, or leak into a log.
_INHERITED = (
    "CONDA_PREFIX",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
)


_HERE = "127.0.0.1,localhost"


def _switches() -> dict[str, str]:
    lines = (DEPLOY / "offline.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# What an operator sets too.
OFFLINE: Mapping[str, str] = _switches()


def go_offline() -> None:
    """Set `OFFLINE` in this process, for libraries imported later; a value that is already set stays.

    Requests to this machine also stop using an HTTP proxy.
    """
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        excepted = os.environ.get(name, "")
        if _HERE not in excepted:
            os.environ[name] = f"{excepted},{_HERE}".lstrip(",")


def where_our_packages_are() -> dict[str, str]:
    """``PYTHONPATH``, where that is how our packages were found: our children must find them too.

    Empty where they are installed: what else somebody has on ``PYTHONPATH`` is no affair of the children's.
    """
    ours = Path(__file__).resolve().parents[1]
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # Children start in other folders, where a relative entry would mean nothing.
    absolute = [os.path.abspath(entry) for entry in entries if entry]
    return {"PYTHONPATH": os.pathsep.join(absolute)} if str(ours) in map(os.path.realpath, absolute) else {}


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child process: what it needs of ours, `OFFLINE`, and ``extra`` on top."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, **OFFLINE, "PYTHONUNBUFFERED": "1", **(extra or {})}
