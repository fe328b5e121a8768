"""The workbook's pages in a browser without a network: every page opens, and every link and picture on it is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from workbook.notebooks import all_notebooks
from workbook.pages import anchor, write_pages
from workbook.paths import BUILD_VARIABLE

CHROMIUM = shutil.which("chromium")
NO_NETWORK = ("unshare", "--map-root-user", "--net")
LOOK = """({
  links: [...document.links].map(link => link.href),
  images: [...document.images].map(image => [image.src.slice(0, 40), image.naturalWidth, image.alt]),
  ids: [...document.querySelectorAll("[id]")].map(element => element.id),
  wider: document.documentElement.scrollWidth - innerWidth,
  ink: getComputedStyle(document.body).color,
})"""

SEARCH = """
document.getElementById("words").value = "Mitigated nobody";
document.getElementById("words").dispatchEvent(new Event("input"));
const none = document.querySelectorAll("#found a").length;
document.getElementById("words").value = "401 bearer";
document.getElementById("words").dispatchEvent(new Event("input"));
[none, ...[...document.querySelectorAll("#found a")].map(link => link.textContent)]
"""


class Browser:
    """Chromium, spoken to through a pair of pipes (--remote-debugging-pipe), so that it needs no network device."""

    def __init__(self, profile: Path) -> None:
        self._from_us, self._writing = os.pipe()
        self._reading, self._to_us = os.pipe()
        options = "--headless --no-sandbox --disable-gpu --remote-debugging-pipe --window-size=800,900"
        offline = NO_NETWORK if subprocess.run([*NO_NETWORK, "true"], capture_output=True).returncode == 0 else ()
        start = f'exec "$0" {options} --user-data-dir="$1" 3<&"$2" 4>&"$3"'
        pipes = (self._from_us, self._to_us)
        arguments = (str(CHROMIUM), str(profile), *map(str, pipes))
        command = [*offline, "bash", "-c", start, *arguments]
        self._process = subprocess.Popen(command, pass_fds=pipes, stderr=subprocess.DEVNULL)
        os.close(self._from_us)
        os.close(self._to_us)
        self._answers = os.fdopen(self._reading, "rb")
        self._buffer = b""
        self._number = 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._reading, 1 << 20)
            assert more, "chromium has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._writing, json.dumps(request).encode() + b"\0")
        while (message := self._message()).get("id") != self._number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]  # type: ignore[no-any-return]

    def look(self, page: Path) -> dict[str, Any]:
        """Open ``page``, wait for its load event, and return what `LOOK` sees."""
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())
        return self.evaluate(LOOK)  # type: ignore[no-any-return]

    def evaluate(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def close(self) -> None:
        os.close(self._writing)  # chromium ends with its pipe
        self._process.wait(30)
        self._answers.close()


@dataclass
class Seen:
    """What the browser saw: by page, and what it complained of."""

    pages: dict[Path, dict[str, Any]]
    dark: dict[str, Any]
    found: list[Any]
    trouble: list[str]
    html: Path


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: install Debian's package of that name to look at the pages")
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv(BUILD_VARIABLE, str(folder))
        html = write_pages(all_notebooks()).parent
        browser = Browser(folder / "profile")
        stack.callback(browser.close)
        pages, trouble = {}, []
        for page in sorted(html.rglob("*.html")):
            pages[page] = browser.look(page)
            trouble += [f"{page.name}: {each}" for each in map(complaint, browser.events) if each]
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        browser.ask("Emulation.setEmulatedMedia", features=dark)
        contents = browser.look(html / "index.html")
        yield Seen(pages, contents, browser.evaluate(SEARCH), trouble, html)


def complaint(event: dict[str, Any]) -> str:
    """What an event says is wrong: a request that leaves the disk or fails, an error on the console."""
    method, parameters = event.get("method"), event.get("params", {})
    if method == "Network.requestWillBeSent":
        url = parameters["request"]["url"]
        return "" if urlsplit(url).scheme in ("file", "data") else f"asks for {url}"
    if method in ("Network.loadingFailed", "Runtime.exceptionThrown"):
        return json.dumps(parameters)
    wrong = parameters.get("entry", {}).get("level") == "error" or parameters.get("type") == "error"
    return json.dumps(parameters) if wrong else ""


def test_no_page_asks_a_network_or_reports_an_error(seen: Seen) -> None:
    assert len(seen.pages) > len(all_notebooks()), "a page for each notebook, the documents, the contents"
    assert seen.trouble == []


def test_every_link_leads_to_a_file_and_a_place_in_it(seen: Seen) -> None:
    wrong = []
    for page, sight in seen.pages.items():
        for link in map(urlsplit, sight["links"]):
            if link.scheme != "file":
                continue
            target = Path(unquote(link.path))
            ids = seen.pages[target]["ids"] if target in seen.pages else []
            if not target.exists() or (link.fragment and unquote(link.fragment) not in ids):
                wrong.append(f"{page.relative_to(seen.html)}: {target.relative_to(seen.html)}#{link.fragment}")
    assert wrong == []


def test_every_picture_shows_and_has_a_text_of_its_own(seen: Seen) -> None:
    images = [(page.name, *image) for page, sight in seen.pages.items() for image in sight["images"]]
    assert len(images) > 10
    assert [image for image in images if not image[2] or not image[3]] == []
    assert {text: count for text, count in Counter(image[3] for image in images).items() if count > 1} == {}


def test_no_page_is_wider_than_a_narrow_window(seen: Seen) -> None:
    assert {page.name: sight["wider"] for page, sight in seen.pages.items() if sight["wider"] > 0} == {}


def test_the_search_finds_sections_by_their_words(seen: Seen) -> None:
    none, *sections = seen.found
    assert none == 0
    assert "Troubleshooting: The proxy returns 401 on every request" in sections


def test_text_is_light_in_the_dark(seen: Seen) -> None:
    assert seen.dark["ink"] != seen.pages[seen.html / "index.html"]["ink"]


def test_an_error_of_a_page_is_noticed(seen: Seen, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text("<script>missing()</script><img src='gone.png'><script src='http://192.0.2.1/x.js'></script>")
    browser = Browser(tmp_path / "profile")
    try:
        browser.look(page)
        found = " ".join(filter(None, map(complaint, browser.events)))
    finally:
        browser.close()
    for words in ("missing is not defined", "net::ERR_FILE_NOT_FOUND", "asks for http://192.0.2.1"):
        assert words in found


def test_an_anchor_is_that_of_the_code_hosts() -> None:
    assert anchor("Prices: whose, since when, and why") == "prices-whose-since-when-and-why"
    assert anchor("`kill -9`, then") == "kill--9-then"
