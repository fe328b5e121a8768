"""What every notebook looks like, checked without running it.

Each rule is a function that lists what it finds wrong. Below, each is also shown a notebook that breaks it.
"""

import ast
import copy
import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from workbook.saving import normalised

OPENING = ("What you'll do", "What you'll learn", "What you'll need")
MAX_LINES = 30  # a cell that is read without scrolling
FILE_NAME = re.compile(r"\d\d(_[a-z0-9]+){2,}")  # NN_verb_topic
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
ABSOLUTE_PATH = re.compile(r"(?<![\w./:-])/(?:Users|etc|home|mnt|opt|private|root|srv|tmp|usr|var|work)/")
KEY = re.compile(r"\bsk-[0-9A-Za-z]{16,}")


@dataclass
class Page:
    """A notebook with what the rules need to know about it: its place, and which comes after it."""

    path: Path
    content: NotebookNode
    following: str

    @property
    def code(self) -> list[NotebookNode]:
        return [cell for cell in self.content.cells if cell.cell_type == "code"]

    @property
    def prose(self) -> list[NotebookNode]:
        return [cell for cell in self.content.cells if cell.cell_type == "markdown"]

    @property
    def outputs(self) -> list[NotebookNode]:
        return [output for cell in self.code for output in cell.outputs]

    def texts(self) -> Iterator[str]:
        """Everything that a reader can read: sources and outputs, but not the bytes of pictures."""
        yield from (cell.source for cell in self.content.cells)
        for output in self.outputs:
            data = {kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"}
            yield json.dumps([data, output.get("text", ""), output.get("traceback", [])], ensure_ascii=False)


def file_name(page: Page) -> list[str]:
    return [] if FILE_NAME.fullmatch(page.path.stem) else [f"{page.path.name} is not NN_verb_topic.ipynb"]


def kernel(page: Page) -> list[str]:
    metadata = page.content.metadata
    found = (metadata.get("kernelspec", {}).get("name"), metadata.get("language_info", {}).get("name"))
    return [] if found == ("python3", "python") else [f"kernel and language are {found}"]


def title(page: Page) -> list[str]:
    headings = [line for cell in page.prose for line in cell.source.splitlines() if line.startswith("# ")]
    first = page.content.cells[0]
    opens = first.cell_type == "markdown" and first.source.startswith("# ")
    return [] if opens and len(headings) == 1 else [f"the first cell must open with the only H1: {headings}"]


def opening(page: Page) -> list[str]:
    places = [page.content.cells[0].source.find(f"**{words}:**") for words in OPENING]
    return [] if -1 not in places and places == sorted(places) else [f"the first cell needs, in order: {OPENING}"]


def parameters(page: Page) -> list[str]:
    tagged = [cell for cell in page.content.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0].cell_type != "code":
        return [f"{len(tagged)} cells are tagged 'parameters', instead of one code cell"]
    names = []
    for statement in ast.parse(tagged[0].source).body:
        if not isinstance(statement, ast.AnnAssign) or statement.value is None:
            return [f"line {statement.lineno} is not `name: type = literal`"]
        try:
            ast.literal_eval(statement.value)
        except ValueError:
            return [f"line {statement.lineno} has no plain literal"]
        names.append(ast.unparse(statement.target))
    known = list(papermill.inspect_notebook(page.content))
    return [] if names == known and names else [f"papermill sees {known}, the cell has {names}"]


def prose_before_code(page: Page) -> list[str]:
    cells = page.content.cells
    return [
        f"no prose before: {cell.source[:60]!r}"
        for before, cell in zip([None, *cells], cells, strict=False)
        if cell.cell_type == "code" and (before is None or before.cell_type != "markdown")
    ]


def short_cells(page: Page) -> list[str]:
    lengths = [len(cell.source.splitlines()) for cell in page.code]
    return [f"code cell {n} has {length} lines" for n, length in enumerate(lengths, 1) if length > MAX_LINES]


def executed_in_order(page: Page) -> list[str]:
    counts = [cell.execution_count for cell in page.code]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts are {counts}"]


def no_errors_shown(page: Page) -> list[str]:
    bad = [output for output in page.outputs if output.output_type == "error" or output.get("name") == "stderr"]
    return [f"output: {json.dumps(output)[:200]}" for output in bad]


def nothing_of_this_machine(page: Page) -> list[str]:
    host = re.compile(rf"\b{re.escape(socket.gethostname())}\b")
    patterns = (ABSOLUTE_PATH, KEY, host)
    return [
        f"{found.group()!r} in {text[:80]!r}" for text in page.texts() for p in patterns if (found := p.search(text))
    ]


def recap(page: Page) -> list[str]:
    headings = [index for index, cell in enumerate(page.content.cells) if cell.source.startswith("## Recap")]
    after = [cell for index in headings for cell in page.content.cells[index + 1 :]]
    asserts = any(cell.cell_type == "code" and re.search(r"^assert ", cell.source, re.MULTILINE) for cell in after)
    return [] if len(headings) == 1 and asserts else ["it needs one '## Recap' with a cell of asserts after it"]


def link_to_the_next(page: Page) -> list[str]:
    last = page.content.cells[-1]
    linked = last.cell_type == "markdown" and f"({page.following})" in last.source
    return [] if linked else [f"the last cell has no link to {page.following}"]


def links_resolve(page: Page) -> list[str]:
    targets = [target for cell in page.prose for target in LINK.findall(cell.source)]
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    return [f"nothing at {target}" for target in local if not (page.path.parent / target).exists()]


def described_figures(page: Page) -> list[str]:
    figures = [output for output in page.outputs if "image/png" in output.get("data", {})]
    texts = [output.metadata.get("image/png", {}).get("alt", "") for output in figures]
    return [
        f"figure {n} has no alternative text of its own: {text!r}"
        for n, text in enumerate(texts, 1)
        if not text or texts.count(text) > 1
    ]


def unique_ids(page: Page) -> list[str]:
    ids = Counter(cell.get("id") for cell in page.content.cells)
    return [f"cell id {name!r} is used {count} times" for name, count in ids.items() if count > 1 or not name]


def as_saved(page: Page) -> list[str]:
    """`python -m workbook save` would change nothing."""
    same = normalised(copy.deepcopy(page.content)) == page.path.read_text(encoding="utf-8")
    return [] if same else ["not in normal form: use `python -m workbook run` and `python -m workbook save`"]


RULES: list[Callable[[Page], list[str]]] = [
    file_name,
    kernel,
    title,
    opening,
    parameters,
    prose_before_code,
    short_cells,
    executed_in_order,
    no_errors_shown,
    nothing_of_this_machine,
    recap,
    link_to_the_next,
    links_resolve,
    described_figures,
    unique_ids,
    as_saved,
]


def by_name(rule: Callable[[Page], list[str]]) -> str:
    return rule.__name__


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_rule(rule: Callable[[Page], list[str]], notebook_path: Path, notebook_paths: list[Path]) -> None:
    place = notebook_paths.index(notebook_path)
    following = notebook_paths[(place + 1) % len(notebook_paths)].name
    assert rule(Page(notebook_path, nbformat.read(notebook_path, as_version=4), following)) == []


def test_no_number_is_used_twice(notebook_paths: list[Path]) -> None:
    numbers = [int(path.name[:2]) for path in notebook_paths]
    assert numbers[0] == 0
    assert len(set(numbers)) == len(numbers)


@pytest.fixture
def good(tmp_path: Path) -> Page:
    """A notebook that breaks no rule."""
    path = tmp_path / "03_wire_proxy.ipynb"
    (tmp_path / "04_next.ipynb").touch()
    opening_text = "\n\n".join(f"**{words}:** something." for words in OPENING)
    content = new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
        cells=[
            new_markdown_cell(f"# Wire the proxy\n\n{opening_text}"),
            new_code_cell("calls: int = 2", metadata={"tags": ["parameters"]}, execution_count=1),
            new_markdown_cell("## Recap"),
            new_code_cell(
                "assert calls == 2\nprint(calls)",
                execution_count=2,
                outputs=[new_output("stream", name="stdout", text="2\n")],
            ),
            new_markdown_cell("**Next:** [04](04_next.ipynb), [README](https://example.org)"),
        ],
    )
    path.write_text(normalised(content), encoding="utf-8")
    return Page(path, nbformat.read(path, as_version=4), "04_next.ipynb")


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_a_good_notebook_breaks_no_rule(rule: Callable[[Page], list[str]], good: Page) -> None:
    assert rule(good) == []


def rename(page: Page) -> None:
    page.path = page.path.with_name("Untitled.ipynb")


def change_metadata(key: str, value: dict[str, str]) -> Callable[[Page], None]:
    return lambda page: page.content.metadata.update({key: value})


def change_cell(index: int, **fields: object) -> Callable[[Page], None]:
    return lambda page: page.content.cells[index].update(fields)


def add_cell(index: int, cell: NotebookNode) -> Callable[[Page], None]:
    return lambda page: page.content.cells.insert(index, cell)


def add_output(output: NotebookNode) -> Callable[[Page], None]:
    return lambda page: page.content.cells[3].outputs.append(output)


def write_with_run_times(page: Page) -> None:
    page.content.metadata.update(papermill={"start_time": "today"})
    nbformat.write(page.content, page.path)


TAGGED = {"tags": ["parameters"]}
BREAKS: list[tuple[Callable[[Page], list[str]], Callable[[Page], None]]] = [
    (file_name, rename),
    (kernel, change_metadata("kernelspec", {"name": "my-env", "display_name": "x"})),
    (kernel, change_metadata("language_info", {"name": "julia"})),
    (title, change_cell(0, source="No heading")),
    (title, add_cell(2, new_markdown_cell("# Another"))),
    (opening, change_cell(0, source="# Title\n\n**What you'll do:** all")),
    (parameters, change_cell(1, metadata={})),
    (parameters, add_cell(2, new_code_cell("more: int = 1", metadata=TAGGED))),
    (parameters, change_cell(1, source="import os")),
    (parameters, change_cell(1, source="calls: int = 2\ntwice: int = calls * 2")),
    (parameters, change_cell(1, source="")),
    (prose_before_code, add_cell(4, new_code_cell("1"))),
    (short_cells, change_cell(3, source="x = 1\n" * (MAX_LINES + 1))),
    (executed_in_order, change_cell(3, execution_count=None)),
    (executed_in_order, change_cell(3, execution_count=3)),
    (no_errors_shown, add_output(new_output("error", ename="E", evalue="v", traceback=[]))),
    (no_errors_shown, add_output(new_output("stream", name="stderr", text="careful"))),
    (nothing_of_this_machine, add_output(new_output("stream", name="stdout", text="wrote /home/me/x"))),
    (nothing_of_this_machine, add_output(new_output("execute_result", data={"text/plain": "'/tmp/a'"}))),
    (nothing_of_this_machine, change_cell(3, source=f"key = 'sk-{'0' * 48}'")),
    (nothing_of_this_machine, change_cell(2, source=f"## On {socket.gethostname()}")),
    (recap, change_cell(2, source="## The end")),
    (recap, change_cell(3, source="print(calls)")),
    (link_to_the_next, change_cell(4, source="The end.")),
    (links_resolve, change_cell(4, source="[gone](gone.ipynb)")),
    (described_figures, add_output(new_output("display_data", data={"image/png": "AA=="}))),
    (unique_ids, lambda page: page.content.cells[1].update(id=page.content.cells[0].id)),
    (as_saved, write_with_run_times),
]


@pytest.mark.parametrize(("rule", "damage"), BREAKS, ids=[by_name(rule) for rule, _ in BREAKS])
def test_a_rule_sees_what_breaks_it(
    rule: Callable[[Page], list[str]], damage: Callable[[Page], None], good: Page
) -> None:
    damage(good)
    assert rule(good) != []


def test_every_rule_has_something_that_breaks_it() -> None:
    assert {rule for rule, _ in BREAKS} == set(RULES)
