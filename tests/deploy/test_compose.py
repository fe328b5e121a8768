"""compose.yaml: what it publishes, pins, mounts, keeps secret and never calls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_cost_logger.settings import DURABLE, GRPC, OTLP, Settings
from workbook.paths import DEPLOY, ROOT

PINNED = re.compile(r".+/.+:v?\d+\.\d+\.\d+(-[a-z0-9.-]+)?$")
SECRET = re.compile(r"KEY$|PASSWORD|SECRET|TOKEN")


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Of a service: each path inside, with what is mounted there and whether it may be written."""
    found = {}
    for volume in service.get("volumes", []):
        if isinstance(volume, str):
            source, target, *mode = volume.split(":")
            found[target] = (source, mode != ["ro"])
        else:
            found[volume["target"]] = (volume["source"], not volume.get("read_only", False))
    return found


def source_of(service: dict[str, Any], path: str) -> tuple[str, bool]:
    """What holds ``path`` inside a service, and whether it may be written."""
    (found,) = [mount for target, mount in mounts(service).items() if Path(path).is_relative_to(target)]
    return found


def networks(service: dict[str, Any]) -> set[str]:
    return set(service.get("networks", []))


def test_every_published_port_is_on_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"proxy", "tempo", "grafana"}
    for ports in published.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_what_publishes_no_port_has_no_way_out(compose: dict[str, Any], services: dict[str, Any]) -> None:
    assert compose["networks"]["inside"]["internal"] is True
    for name, service in services.items():
        expected = {"inside", "outside"} if "ports" in service else {"inside"}
        assert networks(service) == expected or service.get("network_mode") == "none", name


def test_every_image_is_pinned(services: dict[str, Any], dockerfile: str) -> None:
    bases = re.findall(r"^ARG \w+_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    assert len(bases) == 3
    for image in [*bases, *(service["image"] for service in services.values())]:
        assert PINNED.match(image), image
    # Nothing but those three is built from.
    stages = re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, re.MULTILINE)
    for base in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE):
        assert base in stages or re.fullmatch(r"\$\{\w+_IMAGE\}", base), base


def test_everything_named_exists(compose: dict[str, Any], services: dict[str, Any], dockerfile: str) -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, re.MULTILINE)
    used: set[str] = set()
    for name, service in services.items():
        for source, _ in mounts(service).values():
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
            elif not source.startswith("${"):
                assert source in compose["volumes"], f"{name}: {source}"
                used.add(source)
        for file in service.get("env_file", []):
            assert (DEPLOY / file).is_file()
        if build := service.get("build"):
            assert (DEPLOY / build["context"]).resolve() == ROOT
            assert (ROOT / build["dockerfile"]).is_file()
            assert build["target"] in stages
        assert set(service.get("depends_on", [])) <= set(services)
        assert networks(service) <= set(compose["networks"])
    assert used == set(compose["volumes"])


def test_files_are_mounted_where_they_are_read(services: dict[str, Any]) -> None:
    for name, option in {"proxy": "--config", "collector": "--config", "tempo": "", "prometheus": ""}.items():
        command = services[name]["command"]
        path = command[command.index(option) + 1] if option else command[0].partition("=")[2]
        source, writable = source_of(services[name], path)
        assert source.startswith("./"), name
        assert not writable


def test_env_example_documents_every_variable_and_holds_no_secret() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    example = (DEPLOY / "env.example").read_text()
    documented = dict(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=(.*)$", example, re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", text)) | {"COMPOSE_PROFILES"} == set(documented)
    for name in re.findall(r"\$\{(\w+):\?[^}]+see env.example\}", text):
        assert documented[name] == ""
    assert ".env" in (DEPLOY / ".gitignore").read_text().splitlines()


def test_secrets_come_from_the_environment(services: dict[str, Any]) -> None:
    required = set()
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name):
                assert value.startswith("${"), name
                required |= {name} if ":?" in value else set()
    assert required == {"LITELLM_MASTER_KEY", "GF_SECURITY_ADMIN_PASSWORD"}


@pytest.mark.parametrize("path", sorted(p for p in DEPLOY.rglob("*") if p.is_file()), ids=lambda path: path.name)
def test_no_file_holds_a_key(path: Path) -> None:
    assert not re.search(r"sk-[0-9a-f]{6}|hcaik_|hcxik_|[0-9a-f]{32}", path.read_text())


def test_containers_can_do_no_more_than_they_must(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service
        if name != "vllm":  # its image writes caches, and nobody has run it read-only here
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] == ("no" if name == "keys" else "unless-stopped"), name
        assert ("healthcheck" in service) == (name not in {"keys", "collector"}), name


def test_one_engine_answers_whichever_the_profile(services: dict[str, Any]) -> None:
    engines = {
        name: service for name, service in services.items() if "engine" in str(service.get("networks", {})).split("'")
    }
    assert {name: service["profiles"] for name, service in engines.items()} == {"mock": ["mock"], "vllm": ["gpu"]}
    waits = services["proxy"]["depends_on"]
    assert set(waits) == set(engines)
    assert all(wait == {"condition": "service_healthy", "required": False} for wait in waits.values())
    assert services["proxy"]["environment"]["VLLM_API_BASE"] == "http://engine:8000/v1"
    for service in engines.values():
        assert {"--host=0.0.0.0", "--port=8000"} <= set(service["command"])
    # The name that the proxy's configuration asks for.
    deployments = yaml.safe_load((DEPLOY / "litellm_config.yaml").read_text())["model_list"]
    assert {deployment["litellm_params"]["model"] for deployment in deployments} == {"hosted_vllm/mistral-7b"}
    assert "--served-model-name=mistral-7b" in engines["vllm"]["command"]


def test_nothing_calls_home(services: dict[str, Any], tempo: dict[str, Any]) -> None:
    assert all("offline.env" in services[name]["env_file"] for name in ("proxy", "keys", "vllm"))
    assert services["vllm"]["environment"]["HF_HUB_OFFLINE"] == "1"
    assert services["vllm"]["environment"]["VLLM_NO_USAGE_STATS"] == "1"
    assert tempo["usage_report"] == {"reporting_enabled": False}
    grafana = services["grafana"]["environment"]
    off = ("REPORTING_ENABLED", "CHECK_FOR_UPDATES", "CHECK_FOR_PLUGIN_UPDATES", "FEEDBACK_LINKS_ENABLED")
    assert {grafana[f"GF_ANALYTICS_{name}"] for name in off} == {"false"}
    assert grafana["GF_NEWS_NEWS_FEED_ENABLED"] == grafana["GF_SNAPSHOTS_EXTERNAL_ENABLED"] == "false"
    assert grafana["GF_SECURITY_DISABLE_GRAVATAR"] == grafana["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert grafana["GF_PLUGINS_PREINSTALL_AUTO_UPDATE"] == grafana["GF_PLUGINS_PLUGIN_ADMIN_ENABLED"] == "false"


def test_the_proxy_writes_a_ledger_and_sends_it_to_the_collector(
    services: dict[str, Any], collector: dict[str, Any], proxy_environment: dict[str, str]
) -> None:
    settings = Settings.from_environment(proxy_environment)
    assert settings.processor == DURABLE
    assert settings.exporters == (OTLP,)
    assert settings.ledger is not None
    assert settings.ledger.sync == "full"
    proxy = services["proxy"]
    assert source_of(proxy, str(settings.ledger.path)) == ("ledger", True)
    keys = proxy_environment["OTEL_COST_LOGGER_KEYS_FILE"]
    assert source_of(proxy, keys) == ("tenant-keys", False)
    assert source_of(services["keys"], keys) == ("tenant-keys", True)
    assert services["keys"]["entrypoint"] == ["python", "-m", "otel_cost_logger", "keys"]
    assert services["keys"]["environment"] == {"OTEL_COST_LOGGER_KEYS_FILE": keys}
    receivers = collector["receivers"]["otlp"]["protocols"]
    port = receivers["grpc" if settings.protocol == GRPC else "http"]["endpoint"].rpartition(":")[2]
    assert proxy_environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://collector:{port}"


def test_volumes_belong_to_the_user_that_writes_them(services: dict[str, Any], dockerfile: str) -> None:
    """Docker gives a new volume the owner of the folder that it is mounted on; LiteLLM's user is 65534 (nobody)."""
    proxy = dockerfile.split(" AS proxy\n")[1].split("\nFROM ")[0]
    (owned,) = re.findall(r"chown 65534:65534 (.+)$", proxy, re.MULTILINE)
    writable = {target for name in ("proxy", "keys") for target, (_, write) in mounts(services[name]).items() if write}
    assert set(owned.split()) == writable
    assert proxy.rindex("USER 65534:65534") > proxy.rindex("USER root")
    stage = dockerfile.split(" AS collector\n")[1]
    assert stage.strip() == "COPY --from=folders --chown=10001:10001 /folders/ /var/lib/"
    assert "mkdir -p /folders/otelcol" in dockerfile
    assert mounts(services["collector"])["/var/lib/otelcol"] == ("collector-queue", True)
