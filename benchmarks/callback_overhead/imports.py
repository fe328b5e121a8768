"""How long imports take: ``python -m benchmarks.callback_overhead.imports MODULE ...``, each after those before."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Import each module and print what it took, as one JSON object per line."""
    for module in argv:
        began, cpu = time.perf_counter(), time.process_time()
        importlib.import_module(module)
        print(
            json.dumps(
                {
                    "what": module,
                    "cpu_seconds": time.process_time() - cpu,
                    "wall_seconds": time.perf_counter() - began,
                }
            ),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
