"""The workbook as pages that open from disk: every notebook, the documents, and the files that they link to.

nbconvert makes the body of a page; the frame, the style and the search are in ``html/``. No page asks a network for
anything. A link to a file of the checkout leads to its page, or to a copy of its text.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import nbformat
from bs4 import BeautifulSoup, Tag
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from PIL import Image
from pygments.formatters import HtmlFormatter

from workbook.notebooks import Notebook
from workbook.paths import ROOT, build_dir

_TITLE = "Who used how many tokens, and what did it cost?"
_THUMBNAIL = (480, 240)  # pixels
_HEADINGS = re.compile(r"h[1-4]$")
_FIRST_DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "support/deploy/README.md")
_templates = Environment(loader=FileSystemLoader(Path(__file__).parent / "html"), autoescape=False)


@dataclass(slots=True)
class _Page:
    """A page: the file that it shows, its place below the folder of pages, its title and body."""

    source: Path
    place: Path
    title: str
    body: BeautifulSoup
    minutes: str = ""

    def href(self, start: Path = Path()) -> str:
        """The address of this page as a page in the folder ``start`` writes it."""
        return Path(os.path.relpath(self.place, start)).as_posix()


def write_pages(notebooks: Sequence[Notebook], executed: Collection[Notebook] = ()) -> Path:
    """Write ``build/html`` anew and return its ``index.html``.

    Those of ``notebooks`` that are also in ``executed`` have the outputs of their copies in ``build/notebooks``, the
    others their stored ones.
    """
    html = build_dir() / "html"
    rmtree(html, ignore_errors=True)
    run = build_dir() / "notebooks"
    exporter = HTMLExporter(template_name="basic")  # type: ignore[no-untyped-call]
    lessons = [_lesson(exporter, each, run if each in executed else each.path.parent) for each in notebooks]
    pages = {page.source: page for page in [*lessons, *map(_document, _documents())]}
    copies: set[Path] = set()
    for page in pages.values():
        for link in page.body.find_all("a", href=True):
            link["href"] = _target(str(link["href"]), page, pages, copies)
    neighbours: dict[Path, tuple[_Page | None, _Page | None]] = {}
    for page, before, after in zip(lessons, [None, *lessons], [*lessons[1:], None], strict=False):
        neighbours[page.source] = (before, after)
    for page in pages.values():
        _write(html, page, *neighbours.get(page.source, (None, None)))
    for source in copies:
        copy = html / _copy_of(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_text_of(source), encoding="utf-8")
    sections = [section for page in pages.values() for section in _sections(page)]
    (html / "search.js").write_text(f"const SECTIONS = {json.dumps(sections)};\n", encoding="utf-8")
    (html / "style.css").write_text(_style(), encoding="utf-8")
    cards = [
        {"href": page.href(), "title": page.title, "minutes": page.minutes, "name": notebook.name, **_picture(page)}
        | {"outcome": notebook.about()["outcome"].replace("`", "")}
        for notebook, page in zip(notebooks, lessons, strict=True)
    ]
    documents = [{"href": page.href(), "title": page.title} for page in pages.values() if page not in lessons]
    contents = _templates.get_template("index.html.j2").render(title=_TITLE, lessons=cards, documents=documents)
    index = _Page(ROOT, Path("index.html"), _TITLE, BeautifulSoup(contents, "html.parser"))
    return _write(html, index)


def _lesson(exporter: HTMLExporter, notebook: Notebook, folder: Path) -> _Page:
    content = nbformat.read(folder / notebook.path.name, as_version=4)
    body, _ = exporter.from_notebook_node(content)
    seconds = notebook.about()["seconds"]
    minutes = f"{notebook.minutes_to_read()} min to read" + (f", {seconds} s to run" if seconds else "")
    return _page(notebook.path, Path(f"{notebook.name}.html"), body, minutes)


def _documents() -> Iterator[Path]:
    yield from (ROOT / name for name in _FIRST_DOCUMENTS)
    yield from sorted((ROOT / "docs").rglob("*.md"))


def _document(source: Path) -> _Page:
    place = source.relative_to(ROOT).with_suffix(".html")
    return _page(source, place, markdown2html(source.read_text(encoding="utf-8")))


def _page(source: Path, place: Path, html: str, minutes: str = "") -> _Page:
    body = BeautifulSoup(html, "html.parser")
    for mark in body.find_all("a", class_="anchor-link"):
        mark.decompose()
    for heading in body.find_all(_HEADINGS):
        heading["id"] = anchor(heading.get_text())
    first = body.find("h1")
    return _Page(source, place, first.get_text() if first else source.stem, body, minutes)


def anchor(heading: str) -> str:
    """The anchor of a heading, as code hosts make it: lower case, hyphens for spaces, no punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _target(href: str, page: _Page, pages: dict[Path, _Page], copies: set[Path]) -> str:
    path, _, fragment = href.partition("#")
    if re.match(r"[a-z]+:", href) or not path:
        return href
    source = Path(os.path.normpath(page.source.parent / path))
    if source in pages:
        return pages[source].href(page.place.parent) + (f"#{fragment.lower()}" if fragment else "")
    copies.add(source)
    return Path(os.path.relpath(_copy_of(source), page.place.parent)).as_posix()


def _copy_of(source: Path) -> Path:
    return Path("files", f"{source.relative_to(ROOT).as_posix()}.txt")


def _text_of(source: Path) -> str:
    if source.is_dir():
        return "".join(f"{path.name}\n" for path in sorted(source.iterdir()) if not path.name.startswith((".", "__")))
    return source.read_text(encoding="utf-8")


def _write(html: Path, page: _Page, before: _Page | None = None, after: _Page | None = None) -> Path:
    path = html / page.place
    path.parent.mkdir(parents=True, exist_ok=True)
    near = {"before": before, "after": after}
    beside = {name: each and {"href": each.href(page.place.parent), "title": each.title} for name, each in near.items()}
    text = _templates.get_template("page.html.j2").render(
        title=page.title, body=page.body, minutes=page.minutes, top="../" * (len(page.place.parts) - 1), **beside
    )
    path.write_text(text, encoding="utf-8")
    return path


def _sections(page: _Page) -> Iterator[dict[str, str]]:
    """What the search looks through: the words from each heading to the next."""
    for heading in page.body.find_all(_HEADINGS):
        words = []
        for element in heading.next_elements:
            if isinstance(element, Tag) and _HEADINGS.match(element.name):
                break
            if isinstance(element, str) and heading not in element.parents:
                words.append(" ".join(element.split()))
        title, href = heading.get_text(), f"{page.href()}#{heading['id']}"
        yield {"page": page.title, "title": title, "href": href, "text": " ".join(filter(None, words))}


def _picture(page: _Page) -> dict[str, str]:
    """The page's first figure, small, and its alternative text."""
    image = page.body.find("img", src=re.compile("^data:image/png"))
    if image is None:
        return {}
    with Image.open(io.BytesIO(base64.b64decode(str(image["src"]).partition(",")[2]))) as picture:
        picture.thumbnail(_THUMBNAIL)
        small = io.BytesIO()
        picture.save(small, "PNG", optimize=True)
    thumbnail = f"data:image/png;base64,{base64.b64encode(small.getvalue()).decode()}"
    return {"thumbnail": thumbnail, "alt": str(image["alt"])}


def _style() -> str:
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark"))
    own = (Path(__file__).parent / "html" / "style.css").read_text(encoding="utf-8")
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"
