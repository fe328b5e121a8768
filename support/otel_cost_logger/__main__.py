"""``python -m otel_cost_logger``: the command line of the plugin."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from otel_cost_logger.ledger import command
from otel_cost_logger.ledger.file import LedgerError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 when something was left undone; 2 for a request that cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m otel_cost_logger", description="Work with the ledger of calls.")
    commands = parser.add_subparsers(dest="command", required=True)
    command.add_arguments(commands.add_parser("ledger", help="look at the ledger, export it, send it again"))
    try:
        code = command.run(parser.parse_args(argv))
        sys.stdout.flush()
        return code
    except (LedgerError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
