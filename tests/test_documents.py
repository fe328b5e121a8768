"""The documents: their links and anchors, their generated tables, their lengths, and their numbers."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbook.documents import TABLES, with_table
from workbook.notebooks import all_notebooks
from workbook.pages import anchor
from workbook.paths import ROOT

LONGEST_LINE = 160
MOST_LINES = {"README.md": 120, "CONTRIBUTING.md": 80}
MEASURED = ("README.md", "docs/measured.md")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$|\[[^\]]+\]\[([^\]]+)\]", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?(?![\w.,]*\w)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CLOUDS = re.compile(r"colab\.research|mybinder|codespaces|kaggle\.com|gitpod", re.IGNORECASE)
TUTORIAL = (  # the symptoms of the tutorial's troubleshooting section
    "No module named 'litellm.integrations.custom_logger'",
    "APIConnectionError",
    "`cost_usd` is always 0.0",
    "Spans appear in the console but not in Tempo",
    "`litellm.callbacks` resets between calls",
    "401 on every request",
)


def documents() -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in names]


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def headings(path: Path) -> Iterator[str]:
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = text_of(path)
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE):
        yield anchor(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))


def broken(document: Path, text: str) -> list[str]:
    """The links of ``text`` that lead nowhere when they stand in ``document``."""
    named = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, re.MULTILINE))
    wrong = []
    for inline, definition, name in LINK.findall(FENCE.sub("", text)):
        link = inline or definition or named.get(name, "")
        path, _, fragment = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not link:
            wrong.append(f"[{name}] is not defined")
        elif not re.match(r"[a-z]+:", link) and (
            not target.exists() or (fragment and fragment not in set(headings(target)))
        ):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_is_in_order(document: Path) -> None:
    text = text_of(document)
    assert broken(document, text) == []
    assert [line for line in text.splitlines() if len(line) > LONGEST_LINE] == []
    assert not CLOUDS.search(text)


def test_a_broken_link_is_noticed() -> None:
    text = "[a](gone.md) [b](LICENSE) [c](#gone) [d][e] [f][g]\n\n[g]: README.md#start\n[h]: README.md#gone\n"
    assert broken(ROOT / "README.md", text) == ["gone.md", "#gone", "[e] is not defined", "README.md#gone"]


@pytest.mark.parametrize(("name", "most"), MOST_LINES.items())
def test_it_fits(name: str, most: int) -> None:
    assert len(text_of(ROOT / name).splitlines()) <= most


@pytest.mark.parametrize("document", TABLES, ids=lambda path: path.name)
def test_a_generated_table_is_that_of_the_code(document: Path) -> None:
    assert text_of(document) == with_table(text_of(document), TABLES[document]()), "run `make docs`"


def test_a_document_without_marks_has_no_place_for_a_table() -> None:
    with pytest.raises(ValueError, match="the document needs one"):
        with_table("# Settings\n", "| a |")


def test_every_notebook_says_what_its_reader_has_at_the_end() -> None:
    for notebook in all_notebooks():
        assert all(notebook.about().values()), notebook.name


def test_every_make_target_of_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {name for each in documents() for name in re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text_of(each), re.M)}
    assert {"run", "test", "lab", "html"} <= named <= targets


def test_every_item_of_the_tutorials_troubleshooting_has_a_heading() -> None:
    found = [line for line in text_of(ROOT / "docs/troubleshooting.md").splitlines() if line.startswith("### ")]
    assert [symptom for symptom in TUTORIAL if not any(symptom in line for line in found)] == []


def wrong_numbers(text: str, folder: Path) -> list[str]:
    """The numbers in the tables of ``text`` that are not in the result that the row, or else its section, links to."""
    named = dict(re.findall(r"^\[([^\]]+)\]: (\S+\.json)$", text, re.MULTILINE))
    wrong = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        in_head = True
        for line in section.splitlines():
            if not line.startswith("|"):
                in_head = True
            elif line.startswith("| ---"):
                in_head = False
            elif not in_head and (results := _linked(line, named) or _linked(section, named)):
                values = [value for each in results for value in told(json.loads((folder / each).read_text()))]
                cells = [re.sub(r"\[[^\]]*\]\[[^\]]*\]", "", cell) for cell in line.split("|")[2:]]
                numbers = [number for cell in cells for number in NUMBER.findall(cell)]
                wrong += [f"{number} in {line[:60]}" for number in numbers if not any(fits(number, v) for v in values)]
    return wrong


def _linked(text: str, named: dict[str, str]) -> list[str]:
    return [named[name] for name in dict.fromkeys(re.findall(r"\]\[([^\]]+)\]", text)) if name in named]


def told(result: dict[str, Any]) -> list[float]:
    """Every number in a result's findings, and the confidences of its summary in percent."""
    findings = [float(word.replace(",", "")) for text in result["findings"] for word in NUMBER.findall(text)]
    confidences = re.findall(r'"confidence": ([0-9.]+)', json.dumps(result["summary"]))
    return [*findings, *(100 * float(each) for each in set(confidences))]


def fits(number: str, value: float) -> bool:
    """Whether ``value``, rounded to the digits of ``number``, is that number; from 10,000 on three digits do."""
    digits = number.replace(",", "")
    decimals = len(digits.partition(".")[2])
    step = 10.0**-decimals if decimals or float(digits) < 10_000 else 10.0 ** (len(digits) - len(digits.rstrip("0")))
    return abs(float(digits) - value) <= step / 2 + 1e-9


@pytest.mark.parametrize("name", MEASURED)
def test_the_numbers_are_those_of_the_results(name: str) -> None:
    document = ROOT / name
    text = text_of(document)
    assert ".json" in text
    assert wrong_numbers(text, document.parent) == []


def test_a_wrong_number_is_noticed() -> None:
    text = text_of(ROOT / "docs/measured.md")
    for right, wrong in (("84.9 us", "84.8 us"), ("507 of 984", "508 of 984"), ("63,300", "63,400")):
        assert right in text
        assert wrong_numbers(text.replace(right, wrong), ROOT / "docs") != []
