"""Text meant for a terminal, made plain."""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def without_colours(text: str) -> str:
    """``text`` without the escape sequences that colour it."""
    return _COLOUR.sub("", text)
