"""What has become of each stored result: the index of all of them, and the banner over one whose code has changed.

``RESULTS/README.md`` is made by ``python -m benchmarks index``, names every file with its seal, and never loses one:
the command refuses where a result is gone or is not the one that the index names.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import textwrap
from pathlib import Path

from benchmarks.harness import provenance
from benchmarks.harness.results import RESULTS, Result, ResultError, load_result, stored_results, superseded
from benchmarks.harness.successors import benchmark_of
from workbook.paths import ROOT, shown

INDEX = "README.md"
_ENGINE_ALONE = {"direct", "engine"}
_ROW = re.compile(r"^\| \[(?P<name>[^]]+\.json)\] .*\| `(?P<seal>[0-9a-f]{12})` \|$", re.MULTILINE)
_TITLE = """# Stored results

Made by `python -m benchmarks index`, never by hand. No result is ever changed or removed: one that should not be shown
any more is named in [`superseded.toml`](superseded.toml) with the reason. *Distance*: files that differ, and commits
that changed them, between the commit that was measured and `{commit}`, of the benchmark and of what it measures (the
plugin and the mock, unless an engine alone was asked). *Seal*: the first digits of the file's own `sha256`.

| Result | Measured (UTC) | Status | Commit | Distance | Seal |
| --- | --- | --- | --- | --- | --- |
"""


def measured_paths(result: Result) -> list[str]:
    """The files and folders whose change makes ``result`` one of older code, as git knows them."""
    paths = [f"benchmarks/{benchmark_of(result)}", "benchmarks/harness"]
    arms = {sample.get("arm") for sample in result.samples}
    return paths if arms <= _ENGINE_ALONE else [*paths, "mock_vllm", "support/otel_cost_logger"]


def banner(result: Result) -> str:
    """What to say over a figure of ``result``: that it was measured on other code than today's; otherwise nothing."""
    told = ["FROM A CHANGED TREE: its commit does not tell what was measured"] if result.code.dirty else []
    if _measured_differently(result):
        told.append("OLDER CODE: the benchmark has changed since")
    # The plugin and the mock; the benchmark's own part is known by its hash.
    elif (files := _changed(result, "HEAD", measured_paths(result)[2:])) is None:
        told.append("its commit is not known here, so nobody knows whether the code has changed since")
    elif files:
        told.append("OLDER CODE: what it measures has changed since")
    return "; ".join(told)


def _measured_differently(result: Result) -> bool:
    try:
        benchmark = importlib.import_module(f"benchmarks.{benchmark_of(result)}.measure").BENCHMARK
    except ModuleNotFoundError:
        return True
    return bool(provenance.code_sha256(benchmark.modules) != result.code.sha256)


def _changed(result: Result, until: str, paths: list[str]) -> int | None:
    """How many files under ``paths`` differ; None where git does not know."""
    found = _git("diff", "--name-only", str(result.code.commit), until, "--", *paths) if paths else ""
    return None if found is None else len(found.splitlines())


def _distance(result: Result, until: str) -> str:
    paths = measured_paths(result)
    files = _changed(result, until, paths)
    commits = _git("rev-list", "--count", f"{result.code.commit}..{until}", "--", *paths)
    return "not known" if files is None or commits is None else f"{files} files, {int(commits)} commits"


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def index(root: Path = RESULTS, until: str | None = None) -> str:
    """The text of the index: ``until`` is the commit up to which distances count, by default the checkout's.

    Raises `ResultError` for a file that cannot be used, and where a result that the index at ``root`` names is gone or
    is another.
    """
    at = until or (_git("rev-parse", "--short=12", "HEAD") or "not known").strip()
    gone, seals, rows, reasons = superseded(root), dict[str, str](), [], []
    for path in stored_results(root):
        result, name = load_result(path), path.relative_to(root).as_posix()
        seals[name] = str(json.loads(path.read_bytes())["sha256"])[:12]
        commit = f"`{(result.code.commit or 'not known')[:12]}`{', changed' if result.code.dirty else ''}"
        status, reason = _status(result, gone.get(path))
        if reason:
            reasons.append(textwrap.fill(f"- {name}: {reason}", 150, subsequent_indent="  ") + "\n")
        cells = [f"[{name}]", f"{result.started:%Y-%m-%d %H:%M}", status, commit]
        rows.append(f"| {' | '.join([*cells, _distance(result, at), f'`{seals[name]}`'])} |\n")
    for name, seal in known(root).items():
        if seals.get(name) != seal:
            raise ResultError(f"{shown(root / name)}: {'changed' if name in seals else 'gone'}; get it back from git")
    links = (f"[{name}]: {name}\n" for name in seals)
    return "".join([_TITLE.format(commit=at), *rows, "\n## Why not for quoting\n\n", *reasons, "\n", *links])


def known(root: Path = RESULTS) -> dict[str, str]:
    """The seal of each result that the index at ``root`` names."""
    text = (root / INDEX).read_text() if (root / INDEX).exists() else ""
    return {row["name"]: row["seal"] for row in _ROW.finditer(text)}


def counted_until(root: Path = RESULTS) -> str | None:
    """The commit up to which the index at ``root`` counts distances."""
    found = re.search(r"that was measured and `(\w+)`", (root / INDEX).read_text().replace("\n", " "))
    return found[1] if found else None


def _status(result: Result, gone: dict[str, str] | None) -> tuple[str, str]:
    """In a word, and in a sentence where the result is not for quoting."""
    if gone is not None and "by" in gone:
        return "superseded", f"superseded by {Path(gone['by']).name}, because: {gone['because']}"
    if gone is not None:
        return "withdrawn", f"withdrawn, because: {gone['because']}"
    if result.validity.valid:
        return "for quoting", ""
    return "not for quoting", f"not for quoting: {result.validity.reasons[0]}"
