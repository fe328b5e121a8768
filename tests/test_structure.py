"""The house: imports go one way, and nothing lies about that belongs to one machine only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from workbook.paths import ROOT

ROOMS = {
    "otel_cost_logger": ROOT / "support" / "otel_cost_logger",
    "workbook": ROOT / "support" / "workbook",
    "mock_vllm": ROOT / "mock_vllm",
    "benchmarks": ROOT / "benchmarks",
}
MAY_IMPORT: dict[str, set[str]] = {
    "otel_cost_logger": set(),
    "mock_vllm": set(),
    "workbook": {"otel_cost_logger"},
    "benchmarks": {"otel_cost_logger", "workbook"},
}
# These two hold examples of what no other file may hold.
HOLD_EXAMPLES = {ROOT / "tests" / "test_structure.py", ROOT / "tests" / "notebooks" / "test_structure.py"}
# Part of another package's own interface, and installed with it.
COMES_WITH = {"starlette": "fastapi"}
# The plugin is installed beside other people's software: it brings nothing but what it implements.
PLUGIN_MAY_USE = {"litellm", "opentelemetry", "google", "yaml", "httpx", *sys.stdlib_module_names}


def imported(path: Path, *, at_run_time: bool = False) -> set[str]:
    """Top-level names of the modules that a file imports; ``at_run_time`` leaves out ``if TYPE_CHECKING``."""
    tree = ast.parse(path.read_text(), str(path))
    if at_run_time:
        tree.body = [node for node in tree.body if not _is_for_types(node)]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    files = sorted(ROOMS[room].rglob("*.py"))
    assert files
    for path in files:
        ours = imported(path) & {*ROOMS, "support", "tests", "notebooks"}
        assert ours <= MAY_IMPORT[room] | {room}, f"{path.relative_to(ROOT)} imports {ours - MAY_IMPORT[room] - {room}}"


def test_the_plugin_needs_litellm_opentelemetry_protobuf_and_yaml_alone() -> None:
    for path in sorted(ROOMS["otel_cost_logger"].rglob("*.py")):
        foreign = imported(path, at_run_time=True) - PLUGIN_MAY_USE - {"otel_cost_logger"}
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_nothing_is_imported_that_is_not_declared() -> None:
    """An import that works because another package happens to need the same thing breaks one day."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # The script that runs in vLLM's own environment imports vLLM.
    lists = [project["dependencies"], extras["workbook"], extras["vllm"]]
    declared = {canonicalize_name(Requirement(text).name) for requirements in lists for text in requirements}
    providers = packages_distributions()
    # What only an environment of its own has; its distributions begin with the name of what is imported.
    others = (ROOT / "benchmarks" / "callback_overhead" / "requirements-others.in").read_text()
    declared_there = {name.partition("-")[0] for name in re.findall(r"^[a-z][a-z-]+", others, re.MULTILINE)}
    for path in (path for room in ROOMS.values() for path in sorted(room.rglob("*.py"))):
        for module in imported(path) - set(sys.stdlib_module_names) - set(ROOMS):
            if module in declared_there and path == ROOT / "benchmarks" / "callback_overhead" / "others.py":
                continue
            names = {module, COMES_WITH.get(module, module), *providers.get(module, ())}
            found = declared & {canonicalize_name(name) for name in names}
            assert found, f"{path.relative_to(ROOT)} imports {module}: declare it in pyproject.toml"


def test_tests_mirror_the_rooms() -> None:
    assert {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"} == {
        *ROOMS,
        "deploy",
        "notebooks",
    }


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a key", r"sk-[A-Za-z0-9]{20,}"),
        ("a path of one machine", r"(?<![\w.])/(?:home|Users|root|work)/[A-Za-z.]"),
        ("a registry", r"--(?:extra-)?index-url[ =]|registry *= *[\"']http"),
    ],
)
def test_no_file_holds(what: str, pattern: str) -> None:
    """Keys are copied by readers; paths and registries are nobody else's."""
    files = tracked()
    assert len(files) > 50
    for path in files:
        if path in HOLD_EXAMPLES or path.suffix in {".png", ".gz", ".parquet"}:
            continue
        found = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"))
        assert not found, f"{path.relative_to(ROOT)} holds {what}: {found.group()[:40]}"
