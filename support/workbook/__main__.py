"""``python -m workbook``: run the notebooks, save and list them, and write them as pages."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from workbook.notebooks import Notebook, UsageError, all_notebooks, parameters_for, select
from workbook.paths import BUILD_VARIABLE, build_dir
from workbook.runner import RunFailed, cost_report, run
from workbook.saving import save


def _parser() -> argparse.ArgumentParser:
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="number, name or path; default: all of them")
    chosen.add_argument("--build", type=Path, metavar="DIR", help="folder for everything a run leaves; default: build")
    parser = argparse.ArgumentParser(prog="python -m workbook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser(
        "run",
        parents=[chosen],
        help="execute notebooks into build/notebooks",
        epilog="Ctrl-C (SIGINT) or SIGTERM ends the run and everything that it has started. A run that began with "
        "SIGINT ignored, as a script's background jobs do, goes on ignoring it: end it with SIGTERM.",
    )
    runs.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a notebook's parameter",
    )
    runs.add_argument("--cell-timeout", type=int, default=120, metavar="SECONDS", help="for each cell")
    commands.add_parser("save", parents=[chosen], help="store executed notebooks, normalised, in notebooks/")
    commands.add_parser("html", help="write the stored notebooks and the documents as pages into build/html")
    commands.add_parser("list", help="show the notebooks in reading order")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 when a notebook failed; 2 for a request that cannot be met."""
    arguments = _parser().parse_args(argv)
    try:
        known = all_notebooks()
        if arguments.command == "list":
            for notebook in known:
                print(f"{notebook.name:<28} {notebook.title}")
            return 0
        if arguments.command == "html":
            print(_write_pages(known))
            return 0
        if arguments.build:
            os.environ[BUILD_VARIABLE] = str(arguments.build.absolute())
        chosen = select(arguments.notebooks, known)
        if arguments.command == "save":
            for notebook in chosen:
                save(notebook)
                print(f"{notebook.name}  saved")
            return 0
        values = parameters_for(chosen, dict(arguments.parameters))
        print(f"{_expectation(chosen)}\n", flush=True)
        run(chosen, values, cell_timeout=arguments.cell_timeout)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunFailed as failure:
        print(f"FAILED  {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    print("\nCalls of all notebooks, each at its notebook's prices, failures that were made on purpose among them:\n")
    print(f"{cost_report()}\n\nnotebooks, figures and ledgers: {build_dir()}")
    print(f"open in a browser: {_write_pages(chosen, executed=chosen)}")
    return 0


def _expectation(chosen: Sequence[Notebook]) -> str:
    """How long a run of these notebooks takes, and what it does meanwhile."""
    seconds = [notebook.about()["seconds"] for notebook in chosen]
    known = sum(each or 0 for each in seconds)
    time = "" if None in seconds else f" When their outputs were saved last, it took {known} seconds."
    return (
        f"Running {len(chosen)} notebook{'s' * (len(chosen) > 1)}.{time} At the end you can open the pages of this run."
    )


def _write_pages(chosen: Sequence[Notebook], executed: Sequence[Notebook] = ()) -> Path:
    """All pages of the workbook, for a link may lead to any of them; notebooks from elsewhere have pages alone."""
    from workbook.pages import write_pages  # nbconvert and Pillow, which the other commands do not need

    known = all_notebooks()
    return write_pages(known if set(chosen) <= set(known) else chosen, executed)


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Leave through every ``finally``, so that the kernel and its children are gone before we are."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())
