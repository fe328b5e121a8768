"""``python -m otel_cost_logger keys``: the key is shown once, a hash never whole, and errors say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from otel_cost_logger.__main__ import main
from otel_cost_logger.keys.entries import hash_key
from otel_cost_logger.keys.file import read_keys


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.json"
    monkeypatch.setenv("OTEL_COST_LOGGER_KEYS_FILE", str(path))
    return path


def test_a_key_from_its_birth_to_its_end(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--model", "a", "--model", "b", "--expires", "2099-01-01", "--budget-day", "1.50", "--budget-month", "20"]
    assert main(["keys", "add", "tenant-acme", *limits]) == 0
    said = capsys.readouterr()
    key = said.out.strip()
    assert said.out == f"{key}\n"  # alone: KEY=$(... keys add ...)
    assert key not in said.err
    assert hash_key(key) in read_keys(path)

    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    names, *lines = listed.splitlines()
    assert names.split() == ["tenant", "alias", "hash", "state", "models", "budget", "in", "USD"]
    for cell in ("tenant-acme", hash_key(key)[:12], "until 2099-01-01", "a", "1.5 a day"):
        assert f" {cell}  " in f" {lines[0]}  ", cell
    assert lines[1].split() == ["b", "20", "a", "month"]
    assert main(["keys", "list", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found == {
        "tenant": "tenant-acme",
        "alias": "tenant-acme",
        "sha256_begins": hash_key(key)[:12],
        "state": "active",
        "expires": "2099-01-01T00:00:00Z",
        "revoked": None,
        "models": ["a", "b"],
        "budget_usd": {"day": 1.5, "month": 20},
    }
    assert key not in listed
    assert hash_key(key) not in listed

    assert main(["keys", "expire", "tenant-acme", "--at", "2026-01-01T12:00"]) == 0
    assert capsys.readouterr().out == "has expired since 2026-01-01T12:00:00Z: tenant-acme of tenant-acme\n"
    main(["keys", "list"])
    assert " expired " in capsys.readouterr().out
    assert main(["keys", "revoke", hash_key(key)[:8]]) == 0
    assert capsys.readouterr().out == "revoked: tenant-acme of tenant-acme\n"
    main(["keys", "list"])
    assert " revoked " in capsys.readouterr().out
    assert main(["keys", "revoke", "tenant-acme"]) == 2  # a second time there is nothing to revoke
    assert "no key that is not revoked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["add", " "], "without spaces around it"),
        (["add", "t", "--expires", "soon"], "'soon' is not a date or time such as"),
        (["add", "t", "--expires", "2020-01-01"], "is past: such a key would open nothing"),
        (["add", "t", "--budget-day", "0"], "a budget is a positive number"),
        (["add", "t", "--budget-day", "-1"], "a budget is a positive number"),
        (["add", "t", "--budget-day", "NaN"], "a budget is a positive number"),
        (["add", "t", "--budget-day", "ten"], "'ten' is not a number of US dollars"),
        (["add", "t", "--budget-week", "1"], "unrecognized arguments: --budget-week"),
        (["revoke"], "the following arguments are required: key"),
        ([], "the following arguments are required: keys_command"),
    ],
)
def test_a_wrong_argument_changes_nothing(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["keys", *arguments])
    assert raised.value.code == 2
    assert complaint in capsys.readouterr().err
    assert not path.exists()


def test_errors_of_the_file_end_with_2(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["keys", "list"]) == 2
    assert capsys.readouterr().err.startswith(f"error: keys file {path}: No such file or directory; make one")
    path.write_text('{\n"keys": 7}')
    assert main(["keys", "add", "t"]) == 2
    assert capsys.readouterr().err.startswith(f"error: keys file {path}, line 2: ")
    monkeypatch.delenv("OTEL_COST_LOGGER_KEYS_FILE")
    assert main(["keys", "list"]) == 2
    assert "which keys file? Name it with --file, or set OTEL_COST_LOGGER_KEYS_FILE" in capsys.readouterr().err
    assert main(["keys", "list", "--file", str(path)]) == 2


def test_it_does_not_wait_for_litellm(path: Path) -> None:
    script = (
        "import sys; from otel_cost_logger.__main__ import main; code = main(['keys', 'add', 't']); "
        "sys.exit(code or 'litellm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
