"""Where things are: the checkout, its notebooks and deployment files, and the folder that runs write to.

Everything is found from this package's own location, so a notebook works from any working directory.
"""

from __future__ import annotations

import os
from pathlib import Path

BUILD_VARIABLE = "WORKBOOK_BUILD_DIR"


class CheckoutNotFound(RuntimeError):
    """This package was not installed from a checkout of the workbook."""


def find_root(package: Path) -> Path:
    """The checkout that holds the folder ``package`` (``support/workbook``).

    Raises `CheckoutNotFound` when the folder is somewhere else, as after a plain ``pip install .``.
    """
    root = package.resolve().parents[1]
    if not (root / "support" / "deploy").is_dir() or not (root / "pyproject.toml").is_file():
        raise CheckoutNotFound(
            f"the workbook package lies in {package}, which is not inside a checkout of the workbook; "
            "install it from the checkout with `pip install --editable .`"
        )
    return root


ROOT = find_root(Path(__file__).parent)
NOTEBOOKS = ROOT / "notebooks"
DEPLOY = ROOT / "support" / "deploy"


def build_dir() -> Path:
    """The folder for everything that a run leaves behind: $WORKBOOK_BUILD_DIR, or ``build`` in the checkout."""
    chosen = os.environ.get(BUILD_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else ROOT / "build"


def shown(path: Path) -> str:
    """``path`` as a message shows it: the same on every machine for a file of the checkout or of a run.

    A file under `build_dir` is shown as ``build/...`` wherever that folder is.
    """
    path = path.absolute()
    for folder, prefix in ((build_dir(), "build"), (ROOT, "")):
        if path.is_relative_to(folder):
            return (Path(prefix) / path.relative_to(folder)).as_posix()
    return str(path)
