"""``python -m otel_cost_logger``: the command line of the plugin."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from otel_cost_logger.budgets import command as budgets_command
from otel_cost_logger.budgets.book import BudgetsFileError
from otel_cost_logger.keys import command as keys_command
from otel_cost_logger.keys.entries import KeysFileError
from otel_cost_logger.ledger import command as ledger_command
from otel_cost_logger.ledger.file import LedgerError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 when something was left undone; 2 for a request that cannot be met."""
    parser = argparse.ArgumentParser(
        prog="python -m otel_cost_logger", description="Tenants' keys and budgets, and the ledger of calls."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    keys = commands.add_parser("keys", help="make a key for a tenant, list keys, revoke them")
    keys_command.add_arguments(keys)
    budgets = commands.add_parser("budgets", help="check a budgets file, show how the budgets stand")
    budgets_command.add_arguments(budgets)
    ledger = commands.add_parser("ledger", help="look at the ledger, export it, send it again")
    ledger_command.add_arguments(ledger)
    run = {"budgets": budgets_command.run, "keys": keys_command.run, "ledger": ledger_command.run}
    arguments = parser.parse_args(argv)
    try:
        code = run[arguments.command](arguments)
        sys.stdout.flush()
        return code
    except (BudgetsFileError, KeysFileError, LedgerError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
