"""``python -m otel_cost_logger``: the command line of the plugin."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from otel_cost_logger.ledger import command as ledger
from otel_cost_logger.ledger.file import LedgerError
from otel_cost_logger.prices import command as prices
from otel_cost_logger.prices.derive import DeriveError
from otel_cost_logger.prices.reading import PriceBookError

_COMMANDS = {
    "ledger": (ledger, "look at the ledger, export it, send it again"),
    "prices": (prices, "check a price book, ask it, derive prices from a GPU-hour"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 when something was left undone; 2 for a request that cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m otel_cost_logger", description="The plugin's command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, words) in _COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=words))
    arguments = parser.parse_args(argv)
    try:
        code: int = _COMMANDS[arguments.command][0].run(arguments)
        sys.stdout.flush()
        return code
    except (LedgerError, PriceBookError, DeriveError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
