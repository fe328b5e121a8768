"""``python -m otel_cost_logger``: the command line of the plugin."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from otel_cost_logger.budgets import command as budgets
from otel_cost_logger.budgets.book import BudgetsFileError
from otel_cost_logger.doctor import command as doctor
from otel_cost_logger.keys import command as keys
from otel_cost_logger.keys.entries import KeysFileError
from otel_cost_logger.ledger import command as ledger
from otel_cost_logger.ledger.file import LedgerError
from otel_cost_logger.prices import command as prices
from otel_cost_logger.prices.derive import DeriveError
from otel_cost_logger.prices.reading import PriceBookError

_COMMANDS = {
    "keys": (keys, "make a key for a tenant, list keys, revoke them"),
    "budgets": (budgets, "check a budgets file, show how the budgets stand"),
    "ledger": (ledger, "look at the ledger, export it, send it again"),
    "prices": (prices, "check a price book, ask it, derive prices from a GPU-hour"),
    "doctor": (doctor, "check versions, settings, files, collector, and a call"),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose commands complain themselves about what they do not know: with their usage, not the root's."""

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        """As argparse does it, but nothing may be left over."""
        known, unknown = super().parse_known_args(*arguments, **options)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 when something was left undone; 2 for a request that cannot be met."""
    parser = _Parser(prog="python -m otel_cost_logger", description="The plugin's command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, words) in _COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=words))
    arguments = parser.parse_args(argv)
    try:
        code: int = _COMMANDS[arguments.command][0].run(arguments)
        sys.stdout.flush()
        return code
    except (BudgetsFileError, DeriveError, KeysFileError, LedgerError, PriceBookError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
