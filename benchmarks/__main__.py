"""The command line. ``run`` exits with 0 when the result is valid, 3 when it is stored but not for quoting."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from benchmarks import mock_headroom
from benchmarks.benchmark import Benchmark, Parameter
from benchmarks.provenance import machine_label
from benchmarks.results import RESULTS, Result, is_label
from benchmarks.run import run
from workbook.children import ChildError
from workbook.paths import BUILD_VARIABLE, build_dir, shown

BENCHMARKS = {benchmark.name: benchmark for benchmark in (mock_headroom.BENCHMARK,)}
NOT_FOR_QUOTING = 3
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: this process's own); returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(words)
    if arguments.command == "list":
        print("\n\n".join(_described(benchmark) for benchmark in BENCHMARKS.values()))
        return 0
    benchmark = BENCHMARKS[arguments.name]
    # Apart from the notebooks' logs and ledgers: a measurement's calls are nobody's bill.
    os.environ.setdefault(BUILD_VARIABLE, str(build_dir() / "benchmarks"))
    parameters = {parameter.name: getattr(arguments, parameter.name) for parameter in benchmark.parameters}
    try:
        path, result = run(benchmark, parameters, root=arguments.out, label=arguments.machine, argv=words)
    except (ChildError, OSError, httpx.HTTPError) as error:
        print(f"benchmarks: {benchmark.name} was not measured: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"benchmarks: {benchmark.name} was interrupted; nothing is stored", file=sys.stderr)
        return INTERRUPTED
    print(_report(path, result))
    return 0 if result.validity.valid else NOT_FOR_QUOTING


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measurements, stored with where they come from.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the benchmarks, their questions and parameters")
    names = commands.add_parser("run", help="measure, and store the result").add_subparsers(
        dest="name", required=True, metavar="NAME"
    )
    for benchmark in BENCHMARKS.values():
        one = names.add_parser(
            benchmark.name,
            help=benchmark.question,
            description=benchmark.question,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        one.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of results")
        one.add_argument("--machine", type=_label, default=machine_label(), metavar="LABEL", help="folder within it")
        for parameter in benchmark.parameters:
            one.add_argument(
                _option(parameter),
                dest=parameter.name,
                type=_number(parameter),
                default=parameter.default,
                help=parameter.help,
            )
    return parser


def _option(parameter: Parameter) -> str:
    return f"--{parameter.name.replace('_', '-')}"


def _number(parameter: Parameter) -> Callable[[str], float]:
    kind = type(parameter.default)

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not parameter.minimum <= value < math.inf:
            whole = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {whole}, at least {parameter.minimum}, got {text!r}")
        return value

    return convert


def _label(text: str) -> str:
    if not is_label(text):
        raise argparse.ArgumentTypeError(f"must be lower-case letters, digits, '.', '_' and '-', got {text!r}")
    return text


def _described(benchmark: Benchmark) -> str:
    lines = [benchmark.name, f"  {benchmark.question}"]
    for parameter in benchmark.parameters:
        option = f"{_option(parameter)} {parameter.default}"
        lines.append(f"  {option:<20} {parameter.help}")
    return "\n".join(lines)


def _report(path: Path, result: Result) -> str:
    validity = result.validity
    lines = [f"{result.benchmark} on {result.machine.label}, {result.started:%Y-%m-%d %H:%M} UTC", *result.findings]
    lines += [f"NOT FOR QUOTING: {reason}" for reason in validity.reasons]
    lines += [f"note: {caveat}" for caveat in validity.caveats]
    return "\n".join([*lines, f"stored in {shown(path)}"])


if __name__ == "__main__":
    sys.exit(main())
