"""A proxy that could not record does not serve: one line says what is wrong, where, and what to do."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.keys.file import add_key
from otel_cost_logger.ledger.file import open_for_writing
from otel_cost_logger.settings import VARIABLES
from otel_cost_logger.start import EXIT_CODE, StartError
from workbook.children import ChildDied
from workbook.environment import child_environment
from workbook.services import Proxy

SELF_CHECK = Path(__file__).parent / "self_check"
LAST = "error: the proxy stops, because it could not record its calls: "
A_FILE = ("KEYS_FILE", "PRICES_FILE", "BUDGETS_FILE")
NEWER = 99


@pytest.fixture(autouse=True)
def behind_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting but the test's, no keys of an earlier test, and a proxy as far as the logger can tell."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setattr("otel_cost_logger.keys.ring._rings", {})
    monkeypatch.setattr("otel_cost_logger.logger.behind_proxy", lambda: True)
    monkeypatch.setattr("otel_cost_logger.logger.guard", lambda: None)
    yield
    monkeypatch.undo()


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """The line with which the plugin does not start in ``environment``."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StartError) as raised:
        OtelCostLogger()
    said = str(raised.value)
    assert "\n" not in said
    assert len(said) > 20
    return said


# Of each variable that does not take every word: values that it cannot have, and what the line says to do.
WORDS = ("such", " ", "-1", "7")
NUMBERS = ("often", " ", "-1", "0", "nan", "inf")
ONE_OF = r"is not supported; use one of: \w"
BAD_VALUES = {
    "OTEL_TRACES_EXPORTER": (("such", "-1", "otlp,such"), ONE_OF),
    "OTEL_EXPORTER_OTLP_PROTOCOL": (WORDS, ONE_OF),
    "OTEL_COST_LOGGER_PROCESSOR": (WORDS, ONE_OF),
    "OTEL_COST_LOGGER_LEDGER_SYNC": (WORDS, ONE_OF),
    "OTEL_COST_LOGGER_LEDGER_DAYS": (NUMBERS, "is not a number of days above 0; correct it or unset it"),
    "OTEL_COST_LOGGER_STOP_SECONDS": (NUMBERS, "is not a number of seconds above 0; correct it or unset it"),
    "OTEL_COST_LOGGER_BUDGETS_ON_ERROR": (WORDS, ONE_OF),
    "OTEL_COST_LOGGER_ERROR_MESSAGES": (WORDS, ONE_OF),
    "OTEL_COST_LOGGER_COST_VIEWS": (WORDS, ONE_OF),
    "OTEL_COST_LOGGER_OPEN_ROADS": (("azure/*", "/azure/a b"), r"is no address of the proxy; write it as /azure/\*"),
    "OTEL_METRICS_EXPORTER": (WORDS, ONE_OF),
    "OTEL_METRIC_EXPORT_INTERVAL": (NUMBERS, "is not a number of milliseconds above 0; correct it or unset it"),
}
# Files have tests of their own; lists of OpenTelemetry's in which words that are not ours stand too.
OTHERS = {f"OTEL_COST_LOGGER_{file}" for file in ("LEDGER_FILE", *A_FILE)}
LISTS = {"OTEL_PROPAGATORS", "OTEL_SEMCONV_STABILITY_OPT_IN"}


def test_each_variable_is_tried() -> None:
    assert {row.name for row in VARIABLES} == BAD_VALUES.keys() | OTHERS | LISTS


@pytest.mark.parametrize(
    ("name", "value", "to_do"),
    [(name, value, to_do) for name, (values, to_do) in BAD_VALUES.items() for value in values],
)
def test_a_bad_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, to_do: str) -> None:
    needed = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_COST_LOGGER_LEDGER_FILE": str(tmp_path / "ledger.db")}
    said = refusal(monkeypatch, **{**needed, name: value})
    assert name in said
    assert re.search(to_do, said)


@pytest.mark.parametrize("signal", ["TRACES", "METRICS"])
def test_a_bad_protocol_names_the_variable_that_has_it(monkeypatch: pytest.MonkeyPatch, signal: str) -> None:
    name = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    assert refusal(monkeypatch, OTEL_METRICS_EXPORTER="otlp", **{name: "such"}).startswith(f"{name}='such'")


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in VARIABLES:
        monkeypatch.setenv(row.name, "")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    OtelCostLogger()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("LEDGER", "LEDGER_FILE"), ("BUDGET_FILE", "BUDGETS_FILE"), ("KEYFILE", "KEYS_FILE"), ("PROCESOR", "PROCESSOR")],
)
def test_an_unknown_variable(monkeypatch: pytest.MonkeyPatch, name: str, nearest: str) -> None:
    said = refusal(monkeypatch, **{f"OTEL_COST_LOGGER_{name}": "x"})
    assert said == (
        f"OTEL_COST_LOGGER_{name} is not a setting; did you mean OTEL_COST_LOGGER_{nearest}? Rename it or unset it"
    )


def test_what_kubernetes_sets_for_a_service_of_that_name_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_4000_TCP_ADDR"):
        monkeypatch.setenv(f"OTEL_COST_LOGGER_{name}", "10.0.0.1")
    OtelCostLogger()


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_COST_LOGGER_PROCESSOR": "durable"},
        {"OTEL_COST_LOGGER_PROCESSOR": "batch", "OTEL_COST_LOGGER_LEDGER_FILE": "ledger.db"},
        {"OTEL_COST_LOGGER_LEDGER_DAYS": "3"},
        {"OTEL_COST_LOGGER_LEDGER_SYNC": "full"},
        {"OTEL_COST_LOGGER_BUDGETS_FILE": "budgets.yaml"},
    ],
)
def test_settings_that_need_each_other(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    said = refusal(monkeypatch, **environment)
    assert all(name in said for name in (*environment, "OTEL_COST_LOGGER_LEDGER_FILE"))
    assert re.search("; set both|; unset one|needs", said)


# Of each file: content that cannot be used, and what the line says to do; None is a file that is not there.
MISSING = {"KEYS_FILE": "make one with", "PRICES_FILE": "name a file that can", "BUDGETS_FILE": "create it or name"}
MALFORMED = {"KEYS_FILE": "{", "PRICES_FILE": "a: [", "BUDGETS_FILE": "a: ["}
BAD_FILES = [
    *((name, None, to_do) for name, to_do in MISSING.items()),
    *((name, "folder", to_do) for name, to_do in MISSING.items()),
    *((name, b"\xff\xfe\x00", "save it as UTF-8") for name in A_FILE),
    *(
        (name, text.encode(), r"line \d+: not (valid )?\w+: .*; correct it|correct it$")
        for name, text in MALFORMED.items()
    ),
    *((name, b"[]", "expected") for name in A_FILE),
    *((name, b"a: \x00", "correct it|delete it") for name in A_FILE),
    *((name, b"", "correct it|begin with|it needs") for name in A_FILE),
    ("KEYS_FILE", b'{"version": 3, "keys": []}', "install a newer one"),
    ("PRICES_FILE", b"version: 3\ncurrency: EUR\nprices: []\n", "use currency, prices; .*convert the prices"),
    ("BUDGETS_FILE", b"version: 3\ndefault: {day: 1}\n", "known: currency, tenants, default"),
]


@pytest.mark.parametrize(("name", "content", "to_do"), BAD_FILES)
def test_a_bad_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: bytes | str | None, to_do: str
) -> None:
    path, variable = tmp_path / "a file", f"OTEL_COST_LOGGER_{name}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    ledger = {"OTEL_COST_LOGGER_LEDGER_FILE": str(tmp_path / "ledger.db")}
    said = refusal(monkeypatch, **ledger, **{variable: str(path)})
    assert said.startswith(f"{variable}: ")
    assert str(path) in said
    assert re.search(to_do, said)


def newer(path: Path) -> None:
    with closing(open_for_writing(path, busy_seconds=1)) as connection:
        connection.execute(f"PRAGMA user_version = {NEWER}")


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")


@pytest.mark.parametrize(
    ("path", "make", "what", "to_do"),
    [
        ("/proc/nosuch/ledger.db", None, "cannot be written: .*No such file", "name a local file that this user may"),
        ("/dev/null/ledger.db", None, "cannot be written: .*", "name a local file that this user may"),
        ("here", Path.mkdir, "is a folder", "name a file in it, for example .*here/ledger.db"),
        ("ledger.db", of_another_program, "of another program", "name another file"),
        ("ledger.db", newer, f"schema {NEWER}, here", "install that version, or name another file"),
    ],
    ids=["no parent", "parent is no folder", "folder", "another program's", "newer"],
)
def test_a_bad_ledger(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, make: Any, what: str, to_do: str
) -> None:
    ledger = tmp_path / path
    if make is not None:
        make(ledger)
    said = refusal(monkeypatch, OTEL_COST_LOGGER_LEDGER_FILE=str(ledger))
    assert said.startswith("OTEL_COST_LOGGER_LEDGER_FILE")
    assert re.search(f"{re.escape(str(ledger))}.*{what}.*; {to_do}", said)
    assert said.count("; ") == 1


def test_a_read_only_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_root: None) -> None:
    said = refusal(monkeypatch, OTEL_COST_LOGGER_LEDGER_FILE=str(tmp_path / "ledger.db"))
    assert "readonly database; name a local file that this user may write" in said


def test_a_locked_ledger_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_call: Any, eventually: Any
) -> None:
    ledger = tmp_path / "ledger.db"
    open_for_writing(ledger, busy_seconds=1).close()
    monkeypatch.setenv("OTEL_COST_LOGGER_LEDGER_FILE", str(ledger))
    with closing(sqlite3.connect(ledger, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        logger = OtelCostLogger()
        asyncio.run(logger.async_log_success_event(make_call(), None, None, None))
        assert "locked" in str(logger.problem)
        other.execute("ROLLBACK")
    eventually(lambda: logger.problem is None, "the file is written again")
    with closing(sqlite3.connect(ledger)) as connection:
        assert connection.execute("SELECT count(*) FROM spans").fetchall() == [(1,)]


def test_a_key_with_a_budget_needs_a_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, "acme", budget_usd={"day": Decimal(5)})
    said = refusal(monkeypatch, OTEL_COST_LOGGER_KEYS_FILE=str(keys))
    assert f"{keys}: the key acme has a budget, but OTEL_COST_LOGGER_LEDGER_FILE is not set" in said


TOO_OLD = """
import sys
from importlib.abc import MetaPathFinder

class Old(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ImportError(f"cannot import name 'What' from {name!r}")

sys.meta_path.insert(0, Old())
sys.modules["litellm.proxy.proxy_server"] = sys  # any module: the proxy is known by its name
from otel_cost_logger import proxy_handler_instance
"""


@pytest.mark.parametrize("module", ["litellm.integrations.custom_logger", "opentelemetry.sdk.trace.export"])
def test_a_version_that_is_too_old(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOO_OLD, module],
        capture_output=True,
        text=True,
        env=child_environment(),
        timeout=120,
        check=False,
    )
    assert done.returncode == EXIT_CODE, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"{LAST}the plugin cannot be loaded beside litellm ")
    assert re.search(rf", opentelemetry-sdk [\d.]+: .*{re.escape(module)}.*; install litellm.*opentelemetry-sdk", last)


def log_of_a_proxy_that_does_not_start(proxy: Proxy) -> tuple[int, list[str]]:
    with pytest.raises(ChildDied) as died:
        proxy.start()
    text = died.value.log.read_text()
    assert "Traceback" not in text
    return died.value.exit_code, text.splitlines()


@pytest.mark.timeout(300)
def test_a_real_proxy_names_the_misspelt_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    env = {"OTEL_COST_LOGGER_LEDGER": str(tmp_path / "ledger.db")}
    code, lines = log_of_a_proxy_that_does_not_start(Proxy("misspelt", env=env))
    assert code == EXIT_CODE
    assert lines[-1] == (
        f"{LAST}OTEL_COST_LOGGER_LEDGER is not a setting; did you mean OTEL_COST_LOGGER_LEDGER_FILE? Rename it or "
        "unset it"
    )


@pytest.mark.timeout(300)
def test_a_real_proxy_does_not_start_beside_a_litellm_whose_reports_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    path = os.pathsep.join([str(SELF_CHECK), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"PYTHONPATH": path, "RENAME_IN": "litellm", "RENAME": "user_api_key_team_id"}
    code, lines = log_of_a_proxy_that_does_not_start(Proxy("renamed", env=env))
    assert code == EXIT_CODE
    assert lines[-1].startswith(f"{LAST}the self-check failed: ")
    assert "tenant_id is 'self-check-key' and must be 'self-check-tenant'" in lines[-1]


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_real_proxy_ends_with_all_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn's supervisor would start a worker that ends for ever."""
    monkeypatch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path / "build"))
    env = {"OTEL_COST_LOGGER_LEDGER_FILE": "/proc/nosuch/ledger.db"}
    _, lines = log_of_a_proxy_that_does_not_start(Proxy("workers", env=env, workers=2))
    said = [line for line in lines if line.startswith(f"{LAST}OTEL_COST_LOGGER_LEDGER_FILE: ")]
    assert 1 <= len(said) <= 2
