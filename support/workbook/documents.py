"""The tables of the documents that are made of code: the settings, and the notebooks with their minutes."""

from __future__ import annotations

import re
from pathlib import Path

from otel_cost_logger.settings import VARIABLES
from workbook.notebooks import all_notebooks
from workbook.paths import ROOT

_BEGIN, _END = "<!-- this table is written by `make docs` -->", "<!-- end of the table -->"


def settings_table() -> str:
    """The plugin's settings as Markdown, in the order of the code."""
    defaults = [f"`{each.default}`" if re.fullmatch(r"[^\s`]+", each.default) else each.default for each in VARIABLES]
    rows = [
        f"| `{each.name}` | {each.meaning} | {default} |" for each, default in zip(VARIABLES, defaults, strict=True)
    ]
    return "\n".join(["| Variable | Meaning | Default |", "| --- | --- | --- |", *rows])


def notebooks_table() -> str:
    """The notebooks as Markdown: title, what the reader has at the end, minutes to read, seconds to run."""
    known = {notebook.name[:2]: notebook for notebook in all_notebooks()}
    rows = ["| Notebook | At its end you have | Read, min | Run, s |", "| --- | --- | --- | --- |"]
    for number, notebook in known.items():
        about = notebook.about()
        title = f"[{number} {notebook.title}][{number}]"
        rows.append(f"| {title} | {about['outcome']} | {notebook.minutes_to_read()} | {about['seconds']} |")
    targets = [f"[{number}]: notebooks/{notebook.path.name}" for number, notebook in known.items()]
    return "\n".join([*rows, "", *targets])


TABLES = {ROOT / "README.md": notebooks_table, ROOT / "docs/operate/settings.md": settings_table}


def with_table(text: str, table: str) -> str:
    """``text`` with ``table`` between its two marks. Raises ValueError where it has no marks."""
    renewed, count = re.subn(f"{_BEGIN}.*{_END}", lambda _: f"{_BEGIN}\n\n{table}\n\n{_END}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the document needs one {_BEGIN} and, below it, one {_END}")
    return renewed


def _renew(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    document.write_text(with_table(text, TABLES[document]()), encoding="utf-8")


if __name__ == "__main__":
    for document in TABLES:
        _renew(document)
