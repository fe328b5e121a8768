"""Tries the plugin in environments with other versions: ``make test-versions [ROWS="oldest newest"]``.

Each row of the table gets an environment of its own under ``build/versions``: LiteLLM with its proxy, then the plugin,
which may change no package that is there. In it the self-check must find every record right and every interface of the
table in place, and the main kinds of the census must pass. All rows together write ``docs/operate/versions.md``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from workbook.environment import child_environment
from workbook.paths import ROOT

UV = ROOT / ".venv-lock" / "bin" / "uv"
FOLDER = ROOT / "build" / "versions"
TABLE = ROOT / "docs" / "operate" / "versions.md"
OPENTELEMETRY = ("api", "sdk", "exporter-otlp-proto-grpc", "exporter-otlp-proto-http")
# What the tests use beside the plugin and the proxy.
TESTS = ("hypothesis", "prometheus-client", "pytest", "pytest-timeout", "setuptools")
_NOT_TRIED = "not tried"
KINDS = "plain and v1 or streamed and v1"  # of the census


@dataclass(frozen=True)
class Row:
    """Versions that are tried together; an empty one is the newest that can be had."""

    name: str
    python: str
    litellm: str
    opentelemetry: str


ROWS = (
    Row("oldest", "3.11", "1.106.2", "1.45.0"),
    Row("python-3.11", "3.11", "1.106.2", "1.45.2"),
    Row("between", "3.12", "1.106.12", "1.45.2"),
    Row("between-2", "3.12", "1.108.7", "1.45.0"),
    Row("newest-python-3.12", "3.12", "", ""),
    Row("newest", "3.13", "", ""),
)
IN_CI = ("oldest", "newest")  # the pinned versions are what every other test runs with


class Failed(Exception):
    """A step failed; the text says which and how."""


class NotHere(Exception):
    """A Python or a package cannot be had on this machine: nothing was tried."""


@dataclass(frozen=True)
class Environment:
    """The environment of a row."""

    row: Row
    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def run(self, *command: str, seconds: float = 900) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=None if command[0] == str(UV) else child_environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise Failed(f"{' '.join(Path(word).name for word in command[:4])}: {' | '.join(lines[-8:])}")
        return done.stdout

    def install(self, *what: str) -> None:
        try:
            self.run(str(UV), "pip", "install", "--quiet", "--python", self.python, *what)
        except Failed as failed:
            raise NotHere(str(failed)) from failed

    def installed(self) -> dict[str, str]:
        listed = json.loads(self.run(str(UV), "pip", "list", "--python", self.python, "--format", "json"))
        return {each["name"]: each["version"] for each in listed}

    def make(self) -> None:
        """Raises `Failed` where the plugin would change a package of the proxy's."""
        self.run(str(UV), "venv", "--quiet", "--clear", "--python", python(self.row.python), str(self.folder))
        litellm = f"litellm=={self.row.litellm}" if self.row.litellm else "litellm>=1.106.2"
        self.install(litellm)
        pins = [f"opentelemetry-{name}=={self.row.opentelemetry}" for name in OPENTELEMETRY if self.row.opentelemetry]
        self.install(f"litellm=={self.installed()['litellm']}", *self._of_the_proxy(), *pins[:1])  # it brings the API
        before = self.installed()
        self.install("--editable", str(ROOT), *pins)
        after = self.installed()
        if changed := [f"{name} {version}" for name, version in before.items() if after.get(name) != version]:
            raise Failed(f"installing the plugin changed packages of the proxy: {', '.join(changed)}")
        self.install(*TESTS)

    def _of_the_proxy(self) -> list[str]:
        """What LiteLLM's extra "proxy" needs. Its own packages in any version: mirrors lack some of them."""
        program = "import importlib.metadata, json; print(json.dumps(importlib.metadata.requires('litellm')))"
        listed = json.loads(self.run(self.python, "-c", program))
        found = []
        for line in listed:
            text = re.sub(r"""\s*(and\s+)?extra == ['"]proxy['"]""", "", line)
            if text != line and not text.startswith("litellm-proxy="):
                name = re.match(r"[\w-]+", text)
                assert name
                found.append(name[0] if name[0].startswith("litellm-") else re.sub(r";\s*$", "", text))
        return found


def python(version: str) -> str:
    """The interpreter of this version. Raises `NotHere` where there is none."""
    done = subprocess.run(
        ["bash", str(ROOT / "support" / "find_python.sh"), version], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotHere(f"no Python {version}")
    return done.stdout.strip()


def tried(row: Row, *, planted: bool) -> tuple[dict[str, str], str]:
    """The versions of the row, and what was found wrong: "" for nothing."""
    environment = Environment(row, FOLDER / row.name)
    versions: dict[str, str] = {}
    try:
        environment.make()
        versions = environment.installed()
        said = json.loads(environment.run(environment.python, "-m", "otel_cost_logger", "doctor", "--json"))
        if wrong := [each["found"] for each in said if each["state"] == "FAIL"]:
            raise Failed("; ".join(wrong))
        pytest = (environment.python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
        environment.run(*pytest, "tests/otel_cost_logger/net/test_census.py", "-m", "not engine", "-k", KINDS)
        if planted:
            environment.run(
                *pytest, "tests/otel_cost_logger/self_check/test_check.py", "-k", "named_when", seconds=3600
            )
    except Failed as failed:
        return versions, str(failed)
    except NotHere as missing:
        return versions, f"{_NOT_TRIED}: {missing}"
    return versions, ""


def table(found: list[tuple[Row, dict[str, str], str]]) -> str:
    """The page of ``docs/operate``."""
    lines = [
        "# Versions that were tried",
        "",
        "`make test-versions` makes an environment for each row, installs LiteLLM with its proxy and then the plugin,",
        "runs the self-check, and sends the main kinds of call through the real proxy to the mock engine. It writes",
        "this page. A version that is not here may work: the self-check at the proxy's start says so, or stops it.",
        "",
        "| Python | LiteLLM | OpenTelemetry | Records |",
        "|---|---|---|---|",
    ]
    for row, versions, wrong in found:
        names = [versions.get(name, "-") for name in ("litellm", "opentelemetry-sdk")]
        said = "right" if not wrong else wrong.replace("|", "/")[:200]
        lines.append(f"| {row.python} | {names[0]} | {names[1]} | {said} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """0 when every row that could be tried is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", help=f"default: all, or 'ci'. {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--planted", action="store_true", help="rename each private interface as well (minutes a row)")
    arguments = parser.parse_args()
    chosen = IN_CI if arguments.rows == ["ci"] else arguments.rows
    if unknown := set(chosen) - {row.name for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    found = []
    for row in (row for row in ROWS if not chosen or row.name in chosen):
        began = time.monotonic()
        versions, wrong = tried(row, planted=arguments.planted)
        found.append((row, versions, wrong))
        print(f"{row.name}: {wrong or 'right'} ({time.monotonic() - began:.0f} s)", flush=True)
    if not chosen:
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        TABLE.write_text(table(found))
    return 1 if any(wrong and not wrong.startswith(_NOT_TRIED) for _, _, wrong in found) else 0


if __name__ == "__main__":
    sys.exit(main())
