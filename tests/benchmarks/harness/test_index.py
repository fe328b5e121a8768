"""Results are kept: none is changed or lost, also not from git's history; what is old says so in index and figure."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks.callback_overhead.measure import BENCHMARK
from benchmarks.harness import index as index_module
from benchmarks.harness.figures import caption
from benchmarks.harness.index import INDEX, banner, counted_until, index, known, measured_paths
from benchmarks.harness.provenance import code_sha256
from benchmarks.harness.results import (
    RESULTS,
    Code,
    Result,
    ResultError,
    current_results,
    load_result,
    newest_result,
    stored_results,
    superseded,
    write_result,
)
from workbook.paths import ROOT


def git(*words: str, folder: Path = ROOT) -> str:
    made_by = ("-c", "user.name=Example", "-c", "user.email=example@example.com", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *made_by, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout: it has no history")


def lost(folder: Path, results: str) -> set[str]:
    """The result files that git's history in ``folder`` holds, under any name, and ``results`` does not, by content."""
    log = git("log", "--format=", "--raw", "--no-abbrev", "--no-renames", "-m", "--", results, folder=folder)
    added = re.findall(r"^:\d+ \d+ \w+ (\w+) [AM]\t(.*\.json)$", log, re.MULTILINE)
    present = set()
    for path in (folder / results).rglob("*.json"):
        content = path.read_bytes()
        present.add(hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())
    return {name for blob, name in added if blob not in present}


@needs_git
def test_no_result_was_ever_changed_or_removed() -> None:
    assert lost(ROOT, "benchmarks/results") == set()


@pytest.mark.parametrize("damage", ["removed", "changed", "moved"])
def test_what_history_holds_and_the_folder_does_not_is_found(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "results" / "machine" / "one.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    git("init", "-q", folder=tmp_path)
    git("add", ".", folder=tmp_path)
    git("commit", "-qm", "A result", folder=tmp_path)
    assert lost(tmp_path, "results") == set()
    if damage == "moved":
        file.rename(file.with_name("two.json"))
    elif damage == "removed":
        file.unlink()
    else:
        file.write_text("{ }")
    git("add", "-A", folder=tmp_path)
    git("commit", "-qm", "It is " + damage, folder=tmp_path)
    assert lost(tmp_path, "results") == (set() if damage == "moved" else {"results/machine/one.json"})


def without_distances(text: str) -> str:
    return re.sub(r"\| (?:\d+ files, \d+ commits|not known) (?=\| `)", "", text)


def test_the_index_lists_all_results() -> None:
    text, until = (RESULTS / INDEX).read_text(), counted_until()
    assert set(known()) == {path.relative_to(RESULTS).as_posix() for path in stored_results()}
    # A commit that is not here, as in a shallow clone or after a rebase, tells no distance.
    found = subprocess.run(["git", "rev-list", f"{until}", "--"], cwd=ROOT, capture_output=True, text=True, check=False)
    oldest = load_result(stored_results()[0]).code.commit
    as_told = without_distances if oldest not in found.stdout.split() else str
    assert as_told(index(until=until)) == as_told(text), "make it again: python -m benchmarks index"


def test_an_index_never_loses_a_result(tmp_path: Path, result: Result) -> None:
    first, second = (write_result(result.model_copy(update={"run_id": digit * 32}), tmp_path) for digit in "12")
    (tmp_path / INDEX).write_text(index(tmp_path))
    assert len(known(tmp_path)) == 2
    third = write_result(result, tmp_path)
    assert index(tmp_path).count(third.name) == 3  # more of them are welcome
    second.write_text(third.read_text())
    with pytest.raises(ResultError, match=r"example-2\.json: changed; get it back"):
        index(tmp_path)
    second.unlink()
    with pytest.raises(ResultError, match=r"example-2\.json: gone; get it back"):
        index(tmp_path)
    assert first.exists()


def supersede(root: Path, text: str) -> None:
    (root / "superseded.toml").write_text(text)


def test_what_is_superseded_is_listed_with_its_reason_and_shown_no_more(tmp_path: Path, result: Result) -> None:
    old, new = (write_result(result.model_copy(update={"run_id": digit * 32}), tmp_path) for digit in "12")
    by = new.relative_to(tmp_path)
    supersede(tmp_path, f'["{old.relative_to(tmp_path)}"]\nby = "{by}"\nbecause = "it was a rehearsal"\n')
    assert current_results(tmp_path) == [new]
    assert newest_result("example", tmp_path)[0] == new
    assert f"superseded by {new.name}, because: it was a rehearsal" in index(tmp_path)
    supersede(tmp_path, f'["{old.relative_to(tmp_path)}"]\nbecause = "nobody asked"\n')
    assert "| withdrawn |" in index(tmp_path)
    assert ": withdrawn, because: nobody asked\n" in index(tmp_path)


@pytest.mark.parametrize(
    "entry", ['["gone.json"]\nbecause = "x"', '["{name}"]\nby = "gone.json"\nbecause = "x"', '["{name}"]']
)
def test_a_superseded_result_is_there_and_has_a_reason(entry: str, tmp_path: Path, result: Result) -> None:
    path = write_result(result, tmp_path)
    supersede(tmp_path, entry.replace("{name}", path.relative_to(tmp_path).as_posix()))
    with pytest.raises(ResultError, match="name a result, the one it is superseded by, and because of what"):
        superseded(tmp_path)


def test_the_ten_results_that_were_once_removed_are_back() -> None:
    assert len(superseded()) >= 10
    assert all(path not in current_results() for path in superseded())
    assert {load_result(path).benchmark for path in superseded()} >= {"span_processors", "throughput"}


def of_code(result: Result, commit: str, *, sha256: str | None = None, dirty: bool = False) -> Result:
    code = Code(commit=commit, dirty=dirty, sha256=sha256 or code_sha256(BENCHMARK.modules))
    return result.model_copy(update={"benchmark": BENCHMARK.name, "code": code})


@needs_git
def test_a_figure_says_that_its_result_is_of_older_code(result: Result) -> None:
    now, first = git("rev-parse", "HEAD").strip(), git("rev-list", "HEAD").split()[-1]
    assert banner(of_code(result, now)) == ""
    assert banner(of_code(result, first)) == "OLDER CODE: what it measures has changed since"
    assert banner(of_code(result, now, sha256="b" * 64)) == "OLDER CODE: the benchmark has changed since"
    assert banner(result).endswith("OLDER CODE: the benchmark has changed since")  # there is no such benchmark
    assert "its commit is not known here" in banner(of_code(result, "a" * 40))
    assert banner(of_code(result, now, dirty=True)).startswith("FROM A CHANGED TREE")
    shown: Any = Figure()
    caption(shown, of_code(result, first), "a caption")
    assert shown.get_suptitle() == "OLDER CODE: what it measures has changed since"
    quiet: Any = Figure()
    caption(quiet, of_code(result, now), "a caption")
    assert quiet.get_suptitle() == ""


def test_without_git_it_says_that_nobody_knows(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "ROOT", Path("/"))
    assert "nobody knows whether the code has changed" in banner(of_code(result, "a" * 40))


def test_an_engine_alone_is_not_of_the_plugin(result: Result) -> None:
    alone = result.model_copy(update={"samples": [{"arm": "direct"}]})
    assert measured_paths(alone) == ["benchmarks/example", "benchmarks/harness"]
    assert "support/otel_cost_logger" in measured_paths(result)
