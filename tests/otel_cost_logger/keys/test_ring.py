"""The keys in a process's memory: up to date, and the last good ones when the file is not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from otel_cost_logger.keys.entries import KeysFileError, hash_key
from otel_cost_logger.keys.file import add_key, revoke_key
from otel_cost_logger.keys.ring import KeyRing, key_of, key_ring


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def replace(path: Path, text: str) -> None:
    """As an editor does: a new file takes the name, so it is another one whatever the clock's resolution."""
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def test_a_key_is_found_by_its_text_or_its_hash(path: Path) -> None:
    key = add_key(path, "tenant-acme")
    ring = KeyRing(path)
    found = ring.find(key)
    assert found is not None
    assert found == ring.of(hash_key(key))
    for unknown in ("sk-" + "0" * 48, "", "\ud800", hash_key(key)):
        assert ring.find(unknown) is None


def test_a_change_is_seen_without_a_restart(path: Path) -> None:
    first = add_key(path, "tenant-acme")
    ring = KeyRing(path)
    second = add_key(path, "tenant-globex")
    assert ring.find(second) is not None
    revoke_key(path, "tenant-acme")
    found = ring.find(first)
    assert found is not None
    assert found.revoked is not None
    replace(path, '{"keys": []}')
    assert ring.find(first) is None


def test_a_broken_file_keeps_the_last_good_one_in_force_and_is_named_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(path, "tenant-acme")
    good = path.read_text()
    ring = KeyRing(path)
    with caplog.at_level(logging.ERROR):
        replace(path, '{\n"keys": [{"sha256": 7}]}')
        assert all(ring.find(key) is not None for _ in range(5))
        (said,) = caplog.messages
        assert f'keys file {path}, line 2: "sha256" must be' in said
        assert "what was read before stays in force: 1 keys" in said
        path.unlink()
        assert all(ring.find(key) is not None for _ in range(5))
        assert len(caplog.messages) == 2
        replace(path, "[]")
        assert ring.find(key) is not None
        assert len(caplog.messages) == 3
    replace(path, good)
    assert ring.find(key) is not None
    replace(path, '{"keys": []}')
    assert ring.find(key) is None


def test_a_missing_or_broken_file_is_an_error_at_the_first_read(path: Path) -> None:
    with pytest.raises(KeysFileError, match="No such file"):
        KeyRing(path)
    path.write_text("{")
    with pytest.raises(KeysFileError, match="not valid JSON"):
        KeyRing(path)


def test_the_process_has_one_ring_of_a_file(path: Path) -> None:
    with pytest.raises(KeysFileError, match="OTEL_COST_LOGGER_KEYS_FILE is not set"):
        key_ring(None)
    assert key_of(None, "a" * 64) is None  # a program in library mode has no keys file
    assert key_of(path, "a" * 64) is None
    key = add_key(path, "tenant-acme")
    assert key_ring(path) is key_ring(path)
    found = key_of(path, hash_key(key))
    assert found is not None
    assert found.tenant == "tenant-acme"
