"""What stands behind the proxy: the Collector's queue on disk, Tempo without its silent losses, Prometheus, Grafana."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest


def test_every_component_is_defined_and_used(collector: dict[str, Any]) -> None:
    service = collector["service"]
    used = {kind: set() for kind in ("receivers", "processors", "exporters")}
    for pipeline in service["pipelines"].values():
        for kind, names in pipeline.items():
            used[kind] |= set(names)
    for kind, names in used.items():
        assert set(collector.get(kind, {})) == names, kind
    assert set(collector["extensions"]) == set(service["extensions"])


def test_spans_are_kept_on_disk_until_they_are_delivered(collector: dict[str, Any]) -> None:
    traces = [value for name, value in collector["service"]["pipelines"].items() if name.partition("/")[0] == "traces"]
    assert traces
    for pipeline in traces:
        # A processor would hold spans in memory (batch) or refuse them (memory_limiter) in front of the queue.
        assert "processors" not in pipeline
        for name in pipeline["exporters"]:
            exporter = collector["exporters"][name]
            assert exporter["retry_on_failure"].get("enabled", True) is True
            assert exporter["retry_on_failure"]["max_elapsed_time"] == 0
            queue = exporter["sending_queue"]
            assert queue.get("enabled", True) is True
            storage = collector["extensions"][queue["storage"]]
            assert queue["storage"].partition("/")[0] == "file_storage"
            assert storage["fsync"] is True
            assert storage["create_directory"] is True


def test_the_queue_lies_on_the_volume(collector: dict[str, Any], services: dict[str, Any]) -> None:
    for storage in collector["extensions"].values():
        assert storage["directory"].startswith("/var/lib/otelcol/")
    assert "collector-queue:/var/lib/otelcol" in services["collector"]["volumes"]


def test_the_collector_sends_to_what_listens(
    collector: dict[str, Any], tempo: dict[str, Any], services: dict[str, Any]
) -> None:
    protocols = tempo["distributor"]["receivers"]["otlp"]["protocols"]
    port = protocols["grpc"]["endpoint"].rpartition(":")[2]
    assert collector["exporters"]["otlp_grpc/tempo"]["endpoint"] == f"tempo:{port}"
    endpoint = collector["exporters"]["otlp_http/prometheus"]["endpoint"]
    assert endpoint == "http://prometheus:9090/api/v1/otlp"
    assert "--web.enable-otlp-receiver" in services["prometheus"]["command"]
    assert {"tempo", "prometheus"} <= set(services)


@pytest.mark.parametrize("engine", ["mock", "vllm"])
def test_engines_send_their_spans_to_the_collector(
    engine: str, collector: dict[str, Any], services: dict[str, Any]
) -> None:
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert f"--otlp-traces-endpoint=http://collector:{port}/v1/traces" in services[engine]["command"]
    assert services[engine]["environment"]["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"


def test_tempo_loses_nothing_in_silence(tempo: dict[str, Any]) -> None:
    # What a replay sends is as old as what Tempo keeps, at most.
    kept = tempo["overrides"]["defaults"]["compaction"]["block_retention"]
    assert tempo["live_store"]["wal"]["ingestion_time_range_slack"] == kept
    assert tempo["storage"]["trace"]["wal"]["ingestion_time_range_slack"] == kept
    assert tempo["query_frontend"]["query_end_cutoff"] == "0s"
    assert tempo["overrides"]["defaults"]["ingestion"]["max_traces_per_user"] == 0


def test_tempo_writes_to_its_volume_only(tempo: dict[str, Any], services: dict[str, Any]) -> None:
    paths: list[str] = []

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            for value in node.values():
                collect(value)
        elif isinstance(node, str) and node.startswith(("/", "./")):
            paths.append(node)

    collect(tempo)
    assert len(paths) == 5
    assert all(path.startswith("/var/tempo/") for path in paths)
    assert "tempo:/var/tempo" in services["tempo"]["volumes"]


def test_prometheus_reads_what_the_others_say_they_lost(
    prometheus: dict[str, Any], collector: dict[str, Any], tempo: dict[str, Any], services: dict[str, Any]
) -> None:
    targets = {
        target
        for job in prometheus["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    (reader,) = collector["service"]["telemetry"]["metrics"]["readers"]
    port = reader["pull"]["exporter"]["prometheus"]["port"]
    assert targets == {f"collector:{port}", f"tempo:{tempo['server']['http_listen_port']}"}
    assert prometheus["otlp"] == {"translation_strategy": "UnderscoreEscapingWithSuffixes"}
    assert "--storage.tsdb.path=/prometheus" in services["prometheus"]["command"]
    assert "prometheus:/prometheus" in services["prometheus"]["volumes"]


def test_grafana_asks_what_listens(
    datasources: list[dict[str, Any]], tempo: dict[str, Any], services: dict[str, Any]
) -> None:
    ports = {"tempo": tempo["server"]["http_listen_port"], "prometheus": 9090}
    for source in datasources:
        url = urlsplit(source["url"])
        assert url.hostname in services
        assert url.port == ports[source["type"]]
        assert source["uid"] == source["type"]
