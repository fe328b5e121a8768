"""Result files: whole or not there, never replaced, and refused when they are not what was written."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.harness.results import RESULTS, Device, Result, ResultError, Validity, load_result, write_result


def resealed(path: Path, **changes: Any) -> None:
    """Change a result file as somebody would who also knows about the checksum."""
    document = json.loads(path.read_text()) | changes
    document.pop("sha256")
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps(document | {"sha256": hashlib.sha256(canonical).hexdigest()}))


def test_what_was_written_is_read_back(tmp_path: Path, result: Result) -> None:
    path = write_result(result, tmp_path)
    assert path == tmp_path / "2-core-example" / "2026-11-23-example.json"
    assert load_result(path) == result
    resealed(path)  # proves that the helper above seals as the module does
    assert load_result(path) == result


def test_words_and_devices_are_kept(tmp_path: Path, result: Result) -> None:
    device = Device(
        name="NVIDIA H200",
        driver="575.57.08",
        memory_mib=143771,
        compute_capability="9.0",
        max_sm_clock_mhz=1980,
        power_limit_watts=None,
    )
    parameters = {"engine": "vllm", "rounds": 20, "seconds": 1.5}
    other = result.model_copy(
        update={"parameters": parameters, "machine": result.machine.model_copy(update={"devices": [device]})}
    )
    read = load_result(write_result(other, tmp_path))
    assert read.machine.devices == [device]
    assert repr(read.parameters) == repr(parameters)


def test_no_result_is_ever_replaced(tmp_path: Path, result: Result) -> None:
    paths = [write_result(result, tmp_path) for _ in range(3)]
    assert [path.name for path in paths] == [
        "2026-11-23-example.json",
        "2026-11-23-example-2.json",
        "2026-11-23-example-3.json",
    ]


def test_runs_that_end_together_get_a_file_each(tmp_path: Path, result: Result) -> None:
    together = threading.Barrier(8)
    paths: list[Path] = []

    def write(number: int) -> None:
        together.wait()
        paths.append(write_result(result.model_copy(update={"run_id": f"{number:032x}"}), tmp_path))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {load_result(path).run_id for path in paths} == {f"{number:032x}" for number in range(8)}


def test_a_failed_write_leaves_nothing(tmp_path: Path, result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(result, tmp_path)
    assert list((tmp_path / "2-core-example").iterdir()) == []


def test_a_result_is_readable_by_others(tmp_path: Path, result: Result) -> None:
    assert write_result(result, tmp_path).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, result: Result, part: float) -> None:
    path = write_result(result, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ResultError, match=r"2026-11-23-example\.json: not whole JSON, so truncated or damaged"):
        load_result(path)


@pytest.mark.parametrize(
    ("written", "tampered"),
    [('"median": 17.25', '"median": 27.25'), ('"dirty": false', '"dirty": true'), ('"a caveat"', '"no caveat"')],
)
def test_a_tampered_file_is_refused(tmp_path: Path, result: Result, written: str, tampered: str) -> None:
    path = write_result(result, tmp_path)
    text = path.read_text()
    assert text.count(written) == 1
    path.write_text(text.replace(written, tampered))
    with pytest.raises(ResultError, match="changed since it was written"):
        load_result(path)


def test_a_file_without_its_checksum_is_refused(tmp_path: Path, result: Result) -> None:
    path = write_result(result, tmp_path)
    document = json.loads(path.read_text())
    del document["sha256"]
    path.write_text(json.dumps(document))
    with pytest.raises(ResultError, match="changed since it was written"):
        load_result(path)


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_another_schema_version_is_refused(tmp_path: Path, result: Result, version: object) -> None:
    path = write_result(result, tmp_path)
    resealed(path, schema_version=version)
    with pytest.raises(ResultError, match=r"schema version .*, and this code reads 1"):
        load_result(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"samples": []}, "samples: List should have at least 1 item"),
        ({"code": {"commit": None, "dirty": None}}, "code.sha256: Field required"),
        ({"started": "yesterday"}, "started: "),
        ({"started": "2026-11-23T12:00:00"}, "started: Input should have timezone info"),
        ({"validity": {"valid": True, "reasons": ["busy"], "caveats": []}}, "valid exactly when there is no reason"),
    ],
)
def test_a_file_that_is_no_result_is_refused(
    tmp_path: Path, result: Result, changes: dict[str, Any], problem: str
) -> None:
    path = write_result(result, tmp_path)
    resealed(path, **changes)
    with pytest.raises(ResultError) as refused:
        load_result(path)
    assert problem in str(refused.value)


@pytest.mark.parametrize("text", ["[]", "17", "null"])
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ResultError, match="expected a JSON object"):
        load_result(tmp_path / "other.json")


def test_nan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nan.json").write_text('{"schema_version": 1, "median": NaN}')
    with pytest.raises(ResultError, match="NaN is not JSON"):
        load_result(tmp_path / "nan.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"gone\.json: No such file"):
        load_result(tmp_path / "gone.json")


@pytest.mark.parametrize(("valid", "reasons"), [(True, ["busy"]), (False, [])])
def test_a_verdict_agrees_with_its_reasons(valid: bool, reasons: list[str]) -> None:
    with pytest.raises(ValidationError):
        Validity(valid=valid, reasons=reasons, caveats=[])


def test_stored_results_are_whole_and_where_they_belong() -> None:
    paths = sorted(RESULTS.glob("*/*"))
    assert paths
    for path in paths:
        stored = load_result(path)
        assert path.parent.name == stored.machine.label
        assert path.name.startswith(f"{stored.started:%Y-%m-%d}-{stored.benchmark}")
