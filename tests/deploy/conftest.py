"""The files of support/deploy as the tests read them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from workbook.environment import child_environment
from workbook.paths import DEPLOY, ROOT

Config = dict[str, Any]


def _yaml(name: str) -> Config:
    document: Config = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="session")
def compose() -> Config:
    """compose.yaml, its variables not yet filled in."""
    return _yaml("compose.yaml")


@pytest.fixture(scope="session")
def services(compose: Config) -> Config:
    """Its services, by name."""
    found: Config = compose["services"]
    return found


@pytest.fixture(scope="session")
def collector() -> Config:
    """collector.yaml."""
    return _yaml("collector.yaml")


@pytest.fixture(scope="session")
def tempo() -> Config:
    """tempo.yaml."""
    return _yaml("tempo.yaml")


@pytest.fixture(scope="session")
def prometheus() -> Config:
    """prometheus.yaml."""
    return _yaml("prometheus.yaml")


@pytest.fixture(scope="session")
def datasources() -> list[Config]:
    """The data sources that Grafana is given."""
    found: list[Config] = _yaml("grafana/datasources.yaml")["datasources"]
    return found


@pytest.fixture(scope="session")
def dashboard() -> Config:
    """Grafana's dashboard."""
    found: Config = json.loads((DEPLOY / "grafana" / "dashboards" / "cost.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def dockerfile() -> str:
    """The Dockerfile, its continued lines joined."""
    return re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def proxy_environment(services: Config) -> dict[str, str]:
    """What compose puts into the proxy's environment; variables of .env stand there as ``${NAME...}``."""
    environment: dict[str, str] = {}
    for name in services["proxy"]["env_file"]:
        lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
        environment |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return environment | services["proxy"]["environment"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory, dockerfile: str) -> Path:
    """The wheel, built from a copy of what the Dockerfile copies, with the Dockerfile's command."""
    folder = tmp_path_factory.mktemp("wheel")
    stage = dockerfile.split(" AS wheel\n")[1].split("\nFROM ")[0]
    for line in re.findall(r"^COPY (.+)$", stage, re.MULTILINE):
        *sources, target = line.split()
        into = folder / "src" / target
        into.mkdir(parents=True, exist_ok=True)
        for source in sources:
            contents = f"{ROOT / source}/." if (ROOT / source).is_dir() else ROOT / source
            subprocess.run(["cp", "-r", contents, into], check=True)
    command = "pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ."
    assert command in stage
    pip(command.replace("/wheels", str(folder / "wheels")), folder / "src")
    (built,) = (folder / "wheels").glob("*.whl")
    return built


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory, dockerfile: str, wheel: Path) -> Path:
    """The folder on the image's PYTHONPATH, with the plugin alone: OpenTelemetry is this environment's."""
    folder = tmp_path_factory.mktemp("layer")
    command = "pip install --no-deps --target /opt/cost-logger /wheels/*.whl"
    assert command in dockerfile
    pip(command.replace("/opt/cost-logger", str(folder)).replace("/wheels/*.whl", str(wheel)), folder)
    (removal,) = re.findall(r"rm -r /opt/cost-logger[^&]+", dockerfile)
    subprocess.run(removal.replace("/opt/cost-logger", str(folder)).split(), check=True)
    return folder


def pip(command: str, folder: Path) -> None:
    """Run a pip command of the Dockerfile in ``folder`` with this environment's pip, without a network."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=folder,
        env=child_environment({"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
