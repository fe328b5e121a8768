"""One list of dependencies: pyproject.toml declares, requirements.lock pins, environment.yml points at the lock."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from workbook.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
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


def entries() -> list[re.Match[str]]:
    found = list(ENTRY.finditer(LOCK))
    # Nothing in the file but entries: a line that this test does not understand is a line that it does not check.
    assert ENTRY.sub("", LOCK).strip() == ""
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


def test_the_lock_names_no_host_and_no_path() -> None:
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|file:|/home/|/root/", LOCK)


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
    for extra in LOCKED_EXTRAS:
        block = text.split(f"\n{extra} = [\n")[1].split("\n]")[0]
        assert all(re.search(r'",\s+# \w', line) for line in block.splitlines()), extra
