"""Result files: what is in one, writing it once, and reading it back only if it is whole.

One run is one JSON file, ``RESULTS/<machine>/<YYYY-MM-DD>-<benchmark>[-N].json``, with a line for each sample. Its
``sha256`` is over everything else in it (as JSON with sorted keys and no spaces), so an edit or a damaged copy shows;
it is no signature. No file is ever removed: what should not be shown any more is named in ``superseded.toml``.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import tempfile
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from workbook.paths import ROOT, shown

RESULTS = ROOT / "benchmarks" / "results"
SCHEMA_VERSION = 1

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_LABEL = r"^[a-z0-9][a-z0-9._-]*$"
_Label = Annotated[str, Field(pattern=_LABEL)]
_LoadAverage = Annotated[list[float], Field(min_length=3, max_length=3)]


class ResultError(ValueError):
    """A result file cannot be used; the message names the file and what is wrong with it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Code(_Part):
    """``commit`` and ``dirty`` are None outside a git checkout; ``sha256`` is over the benchmark's own modules."""

    commit: str | None
    dirty: bool | None
    sha256: _Sha256


class Device(_Part):
    """See `devices.devices`."""

    name: str
    driver: str
    memory_mib: int | None
    compute_capability: str
    max_sm_clock_mhz: int | None
    power_limit_watts: float | None


class Machine(_Part):
    """See `provenance.machine`; ``label`` is the folder that the result is kept in."""

    label: _Label
    cpu_model: str
    cores: int
    cores_usable: int
    memory_gib: float
    virtual: bool
    kernel: str
    python: str
    devices: list[Device] = []


class Conditions(_Part):
    """Load averages over 1, 5 and 15 minutes, and the cores that others kept busy just before the start."""

    load_average_before: _LoadAverage
    load_average_after: _LoadAverage
    cores_used_by_others_before: float


class Validity(_Part):
    """``reasons`` not to quote the result, of which a valid one has none; ``caveats`` go with any quotation."""

    valid: bool
    reasons: list[str]
    caveats: list[str]

    @model_validator(mode="after")
    def _reasons_decide(self) -> Self:
        if self.valid == bool(self.reasons):
            raise ValueError("a result is valid exactly when there is no reason against it")
        return self


class Result(_Part):
    """One run of one benchmark. Times are UTC; what ``samples`` and ``summary`` hold is the benchmark's affair."""

    schema_version: Literal[1]
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    benchmark: _Label
    started: AwareDatetime
    ended: AwareDatetime
    code: Code
    argv: list[str]
    parameters: dict[str, int | float | str]
    machine: Machine
    conditions: Conditions
    packages: dict[str, str]
    samples: Annotated[list[dict[str, JsonValue]], Field(min_length=1)]
    summary: dict[str, JsonValue]
    findings: Annotated[list[str], Field(min_length=1)]
    validity: Validity


def result_folder(root: Path, label: str) -> Path:
    """The folder for the machine ``label``, made if need be. Raises OSError when nothing can be written there."""
    folder = root / label
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


def write_result(result: Result, root: Path = RESULTS) -> Path:
    """Store ``result`` under ``root`` as a new file, whole or not at all; returns its path.

    The first run of a day has no number, the second is ``-2``, and so on. No file is ever replaced.
    """
    folder = result_folder(root, result.machine.label)
    document = result.model_dump(mode="json")
    text = _as_text({**document, "sha256": _sha256(document)})
    descriptor, partial = tempfile.mkstemp(prefix=".partial-", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        return _publish(Path(partial), folder, f"{result.started:%Y-%m-%d}-{result.benchmark}")
    finally:
        os.unlink(partial)


def _as_text(document: dict[str, Any]) -> str:
    """JSON to be read by people and by ``diff``: one line for each raw sample, of which there may be a thousand."""
    samples = ",\n".join("  " + json.dumps(sample, allow_nan=False) for sample in document["samples"])
    rest = json.dumps({**document, "samples": []}, indent=1, allow_nan=False)
    # The result's own samples and no others: they alone stand behind one space.
    return rest.replace('\n "samples": []', f'\n "samples": [\n{samples}\n ]', 1) + "\n"


def _publish(partial: Path, folder: Path, stem: str) -> Path:
    for number in itertools.count(1):
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        # Where a rename would replace a file that appeared meanwhile, a link fails.
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
            return path
    raise AssertionError("unreachable")


def load_result(path: Path) -> Result:
    """The result in the file at ``path``.

    Raises `ResultError` when the file is missing, truncated, of another schema version, changed since it was
    written, or lacks what a result has.
    """
    try:
        document = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise ResultError(f"{shown(path)}: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"{shown(path)}: not whole JSON, so truncated or damaged: {error}") from error
    if not isinstance(document, dict):
        raise ResultError(f"{shown(path)}: not a benchmark result: expected a JSON object")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ResultError(
            f"{shown(path)}: schema version {json.dumps(version)}, and this code reads {SCHEMA_VERSION}; "
            "use the benchmarks package of the commit that wrote it"
        )
    recorded = document.pop("sha256", None)
    if recorded != _sha256(document):
        raise ResultError(f"{shown(path)}: changed since it was written: its sha256 is not that of its contents")
    try:
        return Result.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(_in_words(problem) for problem in error.errors())
        raise ResultError(f"{shown(path)}: not a result of schema version {SCHEMA_VERSION}: {problems}") from error


def stored_results(root: Path = RESULTS) -> list[Path]:
    """Every result file under ``root``, ordered by machine, date and name."""
    return sorted(root.glob("*/*.json"))


def superseded(root: Path = RESULTS) -> dict[Path, dict[str, str]]:
    """The results that are kept and not shown, each with ``because`` and, where there is one, the file it is ``by``.

    Raises `ResultError` where ``superseded.toml`` names what is not there, or gives no reason.
    """
    file = root / "superseded.toml"
    entries: dict[str, dict[str, str]] = tomllib.loads(file.read_text()) if file.exists() else {}
    for name, entry in entries.items():
        if not (root / name).is_file() or not (root / entry.get("by", name)).is_file() or not entry.get("because"):
            raise ResultError(f"{shown(file)}: {name}: name a result, the one it is superseded by, and because of what")
    return {root / name: entry for name, entry in entries.items()}


def current_results(root: Path = RESULTS) -> list[Path]:
    """Every result file under ``root`` that is not superseded, ordered by machine, date and name."""
    gone = superseded(root)
    return [path for path in stored_results(root) if path not in gone]


def replicates(of: Result, root: Path = RESULTS) -> list[Result]:
    """The results for quoting that the same code measured on the same machine with the same parameters as ``of``.

    Of each hour the newest, ``of`` among them, the oldest first. Raises `ResultError` for a file that cannot be used.
    """
    hours = {f"{of.started:%Y-%m-%d %H}": of}
    for path in current_results(root):
        found = load_result(path) if _is_of(path, of.benchmark) else of
        same = _what(found) == _what(of) and found.validity.valid
        if same and found.started >= hours.setdefault(f"{found.started:%Y-%m-%d %H}", found).started:
            hours[f"{found.started:%Y-%m-%d %H}"] = found
    return [hours[hour] for hour in sorted(hours)]


def _what(result: Result) -> tuple[Any, ...]:
    parameters = {name: value for name, value in result.parameters.items() if name != "seed"}
    return result.benchmark, result.machine.label, result.code.sha256, parameters


def newest_result(benchmark: str, root: Path = RESULTS, machine: str | None = None) -> tuple[Path, Result]:
    """The result of ``benchmark`` that was measured last, and its file; with ``machine``, of that label only.

    Raises `ResultError` when there is none, or when one of those there cannot be used.
    """
    paths = [path for path in current_results(root) if _is_of(path, benchmark) and machine in (None, path.parent.name)]
    if not paths:
        where = f"{shown(root)}/{machine}" if machine else shown(root)
        raise ResultError(f"{where}: no result of {benchmark}; measure one: python -m benchmarks run {benchmark}")
    return max(((path, load_result(path)) for path in paths), key=_started)


def newest_results(root: Path = RESULTS) -> list[tuple[Path, Result]]:
    """Of each benchmark on each machine the result that was measured last, and its file."""
    newest: dict[tuple[str, str], tuple[Path, Result]] = {}
    for path in current_results(root):
        found = (path, load_result(path))
        kind = (found[1].machine.label, found[1].benchmark)
        newest[kind] = max(newest.get(kind, found), found, key=_started)
    return list(newest.values())


def _started(found: tuple[Path, Result]) -> datetime:
    return found[1].started


def _is_of(path: Path, benchmark: str) -> bool:
    return re.fullmatch(rf"\d{{4}}-\d\d-\d\d-{re.escape(benchmark)}(-\d+)?", path.stem) is not None


def is_label(text: str) -> bool:
    """True when ``text`` can name a machine: lower-case letters, digits, dots, dashes and underscores."""
    return re.match(_LABEL, text) is not None and "\n" not in text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _sha256(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _in_words(problem: Any) -> str:
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
