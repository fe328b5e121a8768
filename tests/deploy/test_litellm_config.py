"""The configuration that an operator copies: it starts, it holds no secret, and it names the plugin correctly."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import httpx
import pytest
import yaml
from litellm.integrations.custom_logger import CustomLogger

from otel_cost_logger.keys.file import add_key
from workbook.paths import DEPLOY
from workbook.services import Proxy

CONFIGS = sorted(DEPLOY.glob("litellm_config*.yaml"))


def test_both_variants_are_here() -> None:
    assert [path.name for path in CONFIGS] == ["litellm_config.yaml", "litellm_config_prod.yaml"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_callback_is_an_instance_in_a_list(path: Path) -> None:
    callbacks = yaml.safe_load(path.read_text())["litellm_settings"]["callbacks"]
    assert isinstance(callbacks, list)
    module, _, name = callbacks[0].rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), CustomLogger)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_keys_come_from_the_environment(path: Path) -> None:
    for name, value in re.findall(r"^\s*(?:- )?(\w*key\w*):\s*(\S+)", path.read_text(), re.MULTILINE):
        assert value.startswith("os.environ/"), f"{name} stands in {path.name}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_variable_is_explained_at_the_top(path: Path) -> None:
    text = path.read_text()
    shipped = CONFIGS[0].read_text()  # the production variant refers to it
    explained = re.findall(r"^#\s+([A-Z][A-Z_]+)", text + shipped, re.MULTILINE)
    assert set(re.findall(r"os\.environ/([A-Z_]+)", text)) <= set(explained)


@pytest.mark.timeout(180)
def test_the_production_variant_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hosts are not there, and need not be: a proxy starts before its backends."""
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    keys = tmp_path / "keys.json"
    key = add_key(keys, "tenant-acme")
    environment = {"VLLM_API_KEY": "none", "OTEL_COST_LOGGER_KEYS_FILE": str(keys), "OTEL_TRACES_EXPORTER": "console"}
    with Proxy("prod", config=DEPLOY / "litellm_config_prod.yaml", env=environment) as proxy:
        models = httpx.get(
            f"{proxy.url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        )
    assert {model["id"] for model in models.json()["data"]} == {"mistral-7b"}
