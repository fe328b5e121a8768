"""What others have published, as data in ``published.json``: nothing measured by us, and no figure draws it.

Each of `PUBLISHED` says whether it can be compared with our runs of Mistral-7B's shape, and why not; ``date`` is that
of the publication or of the version that it names, ``unit`` belongs to ``value``. `THINK_TIMES` are rates of
closed-loop callers who wait between an answer and their next request: ``think_seconds`` is the mean pause (LiteLLM's
locust file pauses between 0.5 and 1 s), ``response_seconds`` the median published beside the rate; where a page tells
none, the mean that it tells for four instances.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_DATA = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
PUBLISHED: list[dict[str, Any]] = _DATA["published"]
THINK_TIMES: list[dict[str, Any]] = _DATA["think_times"]
