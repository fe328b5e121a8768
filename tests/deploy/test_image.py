"""The Dockerfile's steps in plain folders, and the processes that compose.yaml starts, on this machine's loopback."""

from __future__ import annotations

import ast
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mock_vllm.cli import parse_settings
from workbook.environment import child_environment
from workbook.paths import DEPLOY, ROOT
from workbook.stacks import stack


def python(code: str, cwd: Path, environment: dict[str, str], *args: str) -> str:
    """What a Python with this environment's packages prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=cwd,
        env=child_environment(environment),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def needed(names: set[str]) -> set[str]:
    """The packages ``names`` and all that they need here."""
    found: set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        for line in requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                names |= {canonicalize_name(requirement.name)} - found
    return found


def test_the_wheel_ships_every_file_of_the_plugin(wheel: Path) -> None:
    source = ROOT / "support"
    found = (source / "otel_cost_logger").rglob("*")
    files = {str(path.relative_to(source)) for path in found if path.is_file() and "__pycache__" not in path.parts}
    assert {"otel_cost_logger/otlp/__init__.py", "otel_cost_logger/net/no_engine.txt"} <= files
    assert files <= set(zipfile.ZipFile(wheel).namelist())


def test_the_build_sees_what_it_copies_and_nothing_else(dockerfile: str) -> None:
    allowed = set(re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == allowed
    assert (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()[1] == "*"


@pytest.mark.parametrize("name", ["setuptools", "opentelemetry"])
def test_the_lock_is_cut_to_whole_entries_with_hashes(name: str, dockerfile: str, tmp_path: Path) -> None:
    (command,) = re.findall(rf"awk '[^']*\^{name}[^']*' requirements\.lock > \S+", dockerfile)
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    cut = (tmp_path / command.split()[-1]).read_text()
    entries = re.findall(r"^([a-z-]+)==([^ ]+) \\(?:\n +--hash=sha256:[0-9a-f]{64}(?: \\)?)+$", cut, re.MULTILINE)
    assert len(entries) == cut.count("==")
    assert all(version(package) == pinned for package, pinned in entries)
    if name == "opentelemetry":
        # All of OpenTelemetry that the plugin needs: a part left out would be the image's older one.
        parts = {package for package in needed({"llm-cost-attribution"}) if package.startswith("opentelemetry-")}
        assert {package for package, _ in entries} == parts


def test_the_proxy_takes_the_plugin_from_the_layer(layer: Path, tmp_path: Path, dockerfile: str) -> None:
    assert "ENV PYTHONPATH=/opt/cost-logger" in dockerfile
    config = tmp_path / "config.yaml"
    shutil.copy(DEPLOY / "litellm_config.yaml", config)
    code = (
        "import sys; from litellm.proxy.types_utils.utils import get_instance_fn; "
        "names = 'otel_cost_logger.proxy_handler_instance', 'otel_cost_logger.auth.user_api_key_auth'; "
        "print(*(sys.modules[get_instance_fn(name, sys.argv[1]).__module__].__file__ for name in names))"
    )
    files = python(code, tmp_path, {"PYTHONPATH": str(layer)}, str(config)).split()
    assert [Path(file).relative_to(layer).name for file in files] == ["logger.py", "auth.py"]


def test_the_build_checks_its_own_result(layer: Path, tmp_path: Path, dockerfile: str) -> None:
    (code,) = re.findall(r'python -c "([^"]+)"$', dockerfile, re.MULTILINE)
    python(code, tmp_path, {"PYTHONPATH": str(layer), "OTEL_TRACES_EXPORTER": "otlp"})
    assert not list(layer.rglob("*.so"))


def test_the_mock_image_has_what_the_mock_imports(dockerfile: str) -> None:
    (named,) = re.findall(r"pip install --constraint \S+ ([^&]+)&&", dockerfile)
    installed = needed(set(named.split()))
    imported: set[str] = set()
    for path in (ROOT / "mock_vllm").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    providers = packages_distributions()
    for module in imported - set(sys.stdlib_module_names) - {"mock_vllm"}:
        assert {canonicalize_name(name) for name in providers[module]} & installed, module


def test_the_mock_knows_its_command(services: dict[str, Any], dockerfile: str) -> None:
    settings = parse_settings(services["mock"]["command"])
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert 'ENTRYPOINT ["python", "-m", "mock_vllm"]' in dockerfile


@pytest.fixture
def environment(
    proxy_environment: dict[str, str], tmp_path: Path, layer: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The proxy's environment as in compose.yaml, with this machine's folders; hosts and keys are the stack's."""
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    moved = {}
    for name, value in proxy_environment.items():
        if value.startswith("/var/lib/"):
            moved[name] = str(tmp_path / value.removeprefix("/var/lib/"))
            Path(moved[name]).parent.mkdir(exist_ok=True)
        elif value.startswith("/etc/litellm/"):  # mounted from the folder of compose.yaml
            moved[name] = str(DEPLOY / value.removeprefix("/etc/litellm/"))
        elif "${" not in value and "http://" not in value:
            moved[name] = value
    assert "OTEL_COST_LOGGER_PROCESSOR" not in moved
    unset = {"OTEL_COST_LOGGER_PROCESSOR": ""}  # the stack would set another
    return {**moved, **unset, "PYTHONPATH": str(layer), "OTEL_BSP_SCHEDULE_DELAY": "200"}


@pytest.mark.timeout(240)
def test_a_call_through_the_composed_proxy_is_recorded(
    services: dict[str, Any], environment: dict[str, str], tmp_path: Path
) -> None:
    module = services["keys"]["entrypoint"]
    assert module[:2] == ["python", "-m"]
    make_key = [sys.executable, *module[1:], "add", "tenant-composed"]
    key = subprocess.run(
        make_key, env=child_environment(environment), cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    with stack("composed", protocol="grpc", env=environment) as running:
        for service, url in {"proxy": running.proxy_url, "mock": running.mock_url}.items():
            check = services[service]["healthcheck"]["test"]
            assert check[0] == "CMD"
            assert check[1] in {"python", "python3"}
            (inside,) = re.findall(r"http://127\.0\.0\.1:\d+", check[3])
            python(check[3].replace(inside, url), tmp_path, {})
        with running.http("tenant-acme") as client:
            answer = client.post(
                "/v1/chat/completions",
                json={"model": "mistral-7b", "max_tokens": 4, "messages": [{"role": "user", "content": "ping"}]},
                headers={"Authorization": f"Bearer {key}"},
            )
        assert answer.status_code == 200, answer.text
        (received,) = running.wait_for_records(1).to_dict("records")
    ledger = sqlite3.connect(environment["OTEL_COST_LOGGER_LEDGER_FILE"])
    stored = ledger.execute("SELECT span_id, tenant_id, cost_nano_usd FROM spans").fetchall()
    pending = ledger.execute("SELECT count(*) FROM outbox").fetchall()
    ledger.close()
    assert stored == [(received["span_id"], "tenant-composed", received["cost_nano_usd"])]
    assert received["cost_nano_usd"] > 0
    assert pending == [(0,)]
