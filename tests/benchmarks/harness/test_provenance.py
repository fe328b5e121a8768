"""Provenance tells the machine and the code, and nobody's name."""

from __future__ import annotations

import getpass
import importlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.harness import provenance
from workbook.paths import ROOT


def test_it_names_no_host_no_user_and_no_folder() -> None:
    told = json.dumps(
        [
            provenance.machine(),
            provenance.machine_label(),
            provenance.packages(),
            provenance.load_average(),
            provenance.commit(),
        ]
    )
    for secret in {platform.node(), getpass.getuser(), os.environ.get("USER"), Path.home().name, Path.cwd().name} - {
        None,
        "",
    }:
        assert not re.search(rf"\b{re.escape(str(secret))}\b", told), f"{secret!r} is told"
    assert "/" not in told


def test_the_machine_is_described() -> None:
    machine = provenance.machine()
    assert machine["cpu_model"]
    assert 1 <= machine["cores_usable"] <= machine["cores"]
    assert machine["memory_gib"] > 0.1
    assert machine["python"].endswith(platform.python_version())


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("AMD EPYC", "2-core-amd-epyc"),
        ("Intel(R) Xeon(R) Platinum 8488C @ 2.40GHz", "2-core-intel-xeon-platinum-8488c-2-40ghz"),
        ("13th Gen Intel(R) Core(TM) i7-1360P", "2-core-13th-gen-intel-core-i7-1360p"),
    ],
)
def test_the_label_is_the_kind_of_machine(model: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_cpu_model", lambda: model)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(provenance, "devices", list)  # a machine with GPUs is named after them
    assert provenance.machine_label() == label


def test_the_packages_that_matter_have_versions() -> None:
    packages = provenance.packages()
    assert {"litellm", "opentelemetry-sdk", "fastapi", "uvicorn", "httpx", "numpy"} <= packages.keys()
    assert "pytest" not in packages
    assert all(re.match(r"\d", version) for version in packages.values())


@pytest.mark.parametrize(
    ("word", "shared"),
    [
        ("--out", "--out"),
        ("20", "20"),
        ("/home" + "/ada/results", "<path>"),
        ("--out=/home" + "/ada/results", "--out=<path>"),
        ("~ada/results", "<path>"),
        ("../ada/results", "<path>"),
        ("--out=../a=b/c", "--out=<path>"),
    ],
)
def test_paths_on_the_command_line_are_not_shared(word: str, shared: str) -> None:
    assert provenance.shareable([word]) == [shared]


def module(path: Path, source: str) -> ModuleType:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def test_the_code_hash_follows_the_code(tmp_path: Path) -> None:
    one, two = module(tmp_path / "one.py", "a = 1\n"), module(tmp_path / "two.py", "b = 2\n")
    before = provenance.code_sha256([one, two])
    assert provenance.code_sha256([two, one]) == before
    assert provenance.code_sha256([one]) != before
    (tmp_path / "two.py").write_text("b = 3\n")
    assert provenance.code_sha256([one, two]) != before


def test_stored_results_do_not_make_the_checkout_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() == (None, None)
    git("init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "code")
    head, dirty = provenance.commit()
    assert head is not None
    assert re.fullmatch(r"[0-9a-f]{40}", head)
    assert dirty is False
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "one.json").write_text("{}")
    assert provenance.commit() == (head, False)
    (tmp_path / "code.py").write_text("a = 2\n")
    assert provenance.commit() == (head, True)


def test_a_module_need_not_be_imported_to_be_hashed() -> None:
    name = "benchmarks.harness.statistics"
    assert provenance.code_sha256([provenance.unimported(name)]) == provenance.code_sha256(
        [importlib.import_module(name)]
    )
    with pytest.raises(ModuleNotFoundError, match="no source of module"):
        provenance.unimported("benchmarks.harness.guesswork")


def test_listing_the_benchmarks_imports_no_litellm() -> None:
    code = "import sys; import benchmarks.__main__; print('litellm' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == "False\n"
