"""LiteLLM and OpenTelemetry as they are give right records; with one name or key renamed, the check says which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_cost_logger.self_check.interfaces import INTERFACES
from workbook.environment import child_environment

HERE = Path(__file__).parent
SECONDS = 600  # for all rows, on a busy machine
# One of each kind of key: without it every field is wrong, the tenant is, a count is, the record is right all the same.
KEYS = (
    "standard_logging_object",
    "standard_logging_object.metadata.user_api_key_team_id",
    "standard_logging_object.metadata.usage_object",
    "standard_logging_object.call_type",
)
RIGHT_WITHOUT = "standard_logging_object.call_type"
# Consistently, in the package's source.
IN_SOURCE = (
    ("litellm", "user_api_key_team_id", "tenant_id is 'self-check-key' and must be 'self-check-tenant'"),
    ("opentelemetry", "_active_span_processor", "TracerProvider()._active_span_processor is gone"),
    ("opentelemetry", "RANDOM_TRACE_ID", "has no attribute 'RANDOM_TRACE_ID'"),
    ("litellm", "LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL", "cannot import name 'LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL'"),
)


def renames(what: str, *rows: int) -> list[dict[str, Any]]:
    ran = subprocess.run(
        [sys.executable, str(HERE / "renames.py"), what, *map(str, rows)],
        capture_output=True,
        text=True,
        env=child_environment(),
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


def test_records_are_right_and_a_renamed_key_is_named() -> None:
    numbers = [number for number, row in enumerate(INTERFACES) if row.place == "report" and row.name in KEYS]
    *found, unchanged = renames("keys", *numbers)
    assert not unchanged["wrong"]
    assert not unchanged["gone"]
    assert len(found) == len(KEYS)
    for each in found:
        assert each["row"] in each["gone"]
        assert bool(each["wrong"]) != each["row"].endswith(RIGHT_WITHOUT), each


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("what", ["keys", "names"])
def test_each_of_the_table_is_named_when_it_is_renamed(what: str) -> None:
    *found, unchanged = renames(what)
    assert not unchanged["wrong"]
    assert not unchanged["gone"]
    assert len(found) == sum(bool(row.place) == (what == "keys") for row in INTERFACES)
    assert [each["row"] for each in found if each["row"] not in each["gone"]] == []


@pytest.mark.parametrize(
    ("package", "identifier", "said"),
    [pytest.param(*each, marks=[] if number < 1 else [pytest.mark.soak]) for number, each in enumerate(IN_SOURCE)],
)
def test_the_doctor_finds_what_is_renamed_in_the_source(package: str, identifier: str, said: str) -> None:
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**child_environment(), "PYTHONPATH": path, "RENAME_IN": package, "RENAME": identifier}
    ran = subprocess.run(
        [sys.executable, "-m", "otel_cost_logger", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=env,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr[-2000:]
    failed = [each for each in json.loads(ran.stdout) if each["state"] == "FAIL"]
    assert any(said in each["found"] for each in failed), failed
