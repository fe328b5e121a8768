"""The keys file on disk: hashes only, changed by several at once, never half written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from otel_cost_logger.file_lock import FileLock
from otel_cost_logger.keys import file
from otel_cost_logger.keys.entries import KeysFileError, hash_key
from otel_cost_logger.keys.file import add_key, expire_key, read_keys, revoke_key

WHEN = datetime(2026, 12, 31, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_new_key_is_found_and_its_text_is_nowhere(path: Path) -> None:
    acme, globex = add_key(path, "tenant-acme"), add_key(path, "tenant-globex", "ci")
    assert acme.startswith("sk-")
    assert len(acme) == len("sk-") + 48
    assert all(key not in content.read_text() for key in (acme, globex) for content in path.parent.iterdir())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = read_keys(path)
    assert [(keys[hash_key(key)].tenant, keys[hash_key(key)].alias) for key in (acme, globex)] == [
        ("tenant-acme", "tenant-acme"),
        ("tenant-globex", "ci"),
    ]


def test_what_a_key_is_limited_to_is_kept(path: Path) -> None:
    budget = {"day": Decimal("0.1"), "month": Decimal("123456789.123456")}
    key = add_key(path, "t", models=["a", "b"], expires=WHEN, budget_usd=budget)
    add_key(path, "another")  # the file is written again
    found = read_keys(path)[hash_key(key)]
    assert (found.models, found.expires, found.budget_usd) == (("a", "b"), WHEN, budget)


def test_a_file_of_version_1_is_brought_up_to_date_and_loses_nothing(path: Path) -> None:
    path.write_text(json.dumps({"version": 1, "keys": [{"sha256": "a" * 64, "tenant": "t", "alias": "old"}]}))
    path.chmod(0o644)
    add_key(path, "t")
    assert [key.alias for key in read_keys(path).values()] == ["old", "t"]
    assert json.loads(path.read_text())["version"] == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_alias_names_one_key_that_is_not_revoked(path: Path) -> None:
    for _ in range(3):
        add_key(path, "t")
    assert [key.alias for key in read_keys(path).values()] == ["t", "t-2", "t-3"]
    with pytest.raises(KeysFileError, match="there is a key 't-2' already"):
        add_key(path, "t", "t-2")
    revoke_key(path, "t-2")
    add_key(path, "t", "t-2")  # in its place
    assert [key.alias for key in read_keys(path).values() if key.revoked is None] == ["t", "t-3", "t-2"]


def test_a_key_is_revoked_or_limited_by_its_alias_or_the_beginning_of_its_hash(path: Path) -> None:
    first, second = hash_key(add_key(path, "t")), hash_key(add_key(path, "t"))
    assert revoke_key(path, "t", WHEN).sha256 == first
    assert expire_key(path, second[:6].upper(), WHEN).sha256 == second
    keys = read_keys(path)
    assert (keys[first].revoked, keys[first].expires) == (WHEN, None)
    assert (keys[second].revoked, keys[second].expires) == (None, WHEN)


@pytest.mark.parametrize("name", ["nobody", "", "t", "aaaaa"])
def test_a_name_that_no_usable_key_has_is_an_error(path: Path, name: str) -> None:
    path.write_text(json.dumps({"keys": [{"sha256": "a" * 64, "tenant": "t", "revoked": "2026-01-01"}]}))
    before = path.read_bytes()
    for change in (revoke_key, expire_key):
        with pytest.raises(KeysFileError, match="no key that is not revoked has the alias"):
            change(path, name)
    assert path.read_bytes() == before


def test_a_name_that_two_keys_have_is_an_error_that_tells_them_apart(path: Path) -> None:
    entries = [{"sha256": digit * 64, "tenant": "t"} for digit in "ab"]
    path.write_text(json.dumps({"keys": entries}))
    with pytest.raises(KeysFileError, match="2 keys are called 't'; name one by its hash: aaaaaaaaaaaa, bbbbbbbbbbbb"):
        revoke_key(path, "t")


def test_a_file_that_cannot_be_read_is_not_replaced(path: Path) -> None:
    path.write_text('{"keys": [')
    for change in (lambda: add_key(path, "t"), lambda: revoke_key(path, "t")):
        with pytest.raises(KeysFileError, match="line 1: not valid JSON"):
            change()
    assert path.read_text() == '{"keys": ['
    path.write_bytes(b"\xff")
    with pytest.raises(KeysFileError, match="not UTF-8"):
        add_key(path, "t")


@pytest.mark.parametrize(("tenant", "alias"), [("", None), (" t", None), ("a\nb", None), ("t", "x" * 300)])
def test_a_name_that_is_none_is_refused_before_anything_is_written(path: Path, tenant: str, alias: str | None) -> None:
    with pytest.raises(KeysFileError, match="must"):
        add_key(path, tenant, alias)
    assert not path.exists()


def test_a_missing_file_is_an_error_for_all_but_add(path: Path) -> None:
    with pytest.raises(KeysFileError, match="No such file or directory; make one with"):
        read_keys(path)
    with pytest.raises(KeysFileError, match="No such file or directory"):
        revoke_key(path, "t")
    with pytest.raises(KeysFileError, match="cannot be written: No such file or directory"):
        add_key(path.parent / "no-folder" / "keys.json", "t")


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "real.json"
    real.parent.mkdir()
    real.write_text('{"keys": []}')
    path.symlink_to(real)
    add_key(path, "t")
    assert path.is_symlink()
    assert len(read_keys(real)) == 1


def test_processes_that_add_keys_at_once_lose_none(path: Path) -> None:
    script = "import sys; from pathlib import Path; from otel_cost_logger.keys.file import add_key\n"
    script += "for _ in range(10): add_key(Path(sys.argv[1]), sys.argv[2])"

    def add_ten(tenant: str) -> None:
        subprocess.run([sys.executable, "-c", script, str(path), tenant], check=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_ten, "abcd"))
    aliases = [key.alias for key in read_keys(path).values()]
    assert len(aliases) == len(set(aliases)) == 40


def test_a_process_that_was_killed_while_writing_stops_nobody(path: Path) -> None:
    add_key(path, "t")
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text('{"keys": [')
    partial.chmod(0o666)
    add_key(path, "t")
    assert len(read_keys(path)) == 2
    assert not partial.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_one_that_hangs_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "_LOCKED_SECONDS", 0.05)
    with FileLock(path.with_name("keys.json.lock")) as lock:
        assert lock.take()
        with pytest.raises(KeysFileError, match=r"another process has held .*keys\.json\.lock for 0\.05 s"):
            add_key(path, "t")
    add_key(path, "t")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_the_file_stays_its_owners_when_root_changes_it(path: Path) -> None:
    add_key(path, "t")
    os.chown(path, 12345, 12345)
    add_key(path, "t")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12345)
