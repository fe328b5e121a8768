"""A file that is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_file(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Where to write what becomes ``path``, with the permissions ``mode``, when it is whole and on the disk.

    Raises `FileExistsError` when ``path`` is taken, `FileNotFoundError` when its folder does not exist; the message
    says what to do.
    """
    _require_free(path)
    with part_of(path, mode) as part:
        yield part
        _require_free(path)
        put(part, path)


@contextmanager
def part_of(path: Path, mode: int) -> Iterator[Path]:
    """An empty file beside ``path`` to `put` in its place; gone at the end if it was not."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist")
    part = folder / f"{path.name}.{os.getpid()}.part"
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def put(part: Path, path: Path) -> None:
    """Give ``part`` the name ``path``; both its content and its name are on the disk then."""
    _sync(part)
    part.rename(path)
    _sync(path.absolute().parent)


def _require_free(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists; name a new file")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
