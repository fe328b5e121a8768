"""What JupyterLab, as `make lab` starts it, writes into a notebook: what its author has changed, and nothing else."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest

from workbook.paths import NOTEBOOKS, ROOT
from workbook.ports import free_port

START_SECONDS = 60
CONFIG = "support/workbook/jupyterlab_config.json"


@dataclass(frozen=True)
class Lab:
    """A running server over a copy of the notebooks, and the requests of its page."""

    root: Path
    http: httpx.Client

    def opened(self, name: str) -> dict[str, Any]:
        return self.http.get(f"/api/contents/notebooks/{name}").raise_for_status().json()["content"]

    def save(self, name: str, content: dict[str, Any]) -> str:
        """Returns the text of the file."""
        model = {"type": "notebook", "format": "json", "content": content}
        self.http.put(f"/api/contents/notebooks/{name}", json=model).raise_for_status()
        return (self.root / "notebooks" / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    port = free_port()
    command = [
        *(sys.executable, "-m", "jupyter", "lab", f"--config={ROOT / CONFIG}", "--allow-root", "--no-browser"),
        *(f"--ServerApp.root_dir={root}", f"--ServerApp.port={port}", "--IdentityProvider.token=of-this-test"),
    ]
    with (root / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=root) as server:
        headers = {"Authorization": "token of-this-test"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=30) as http:
            try:
                deadline = time.monotonic() + START_SECONDS
                while not answers(http):
                    ended = server.poll() is not None or time.monotonic() > deadline
                    assert not ended, (root / "log").read_text()
                    time.sleep(0.05)
                yield Lab(root, http)
            finally:
                server.terminate()


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/api/status").is_success
    except httpx.TransportError:
        return False


def run_all(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` as Lab has it when another machine has run all cells and somebody has looked around."""
    content["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    content["metadata"]["language_info"] |= {"version": "3.11.99", "pygments_lexer": "ipython3"}
    content["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    for number, cell in enumerate(content["cells"], 40):
        if cell["cell_type"] == "code":
            cell["execution_count"] = number
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "of another run\n"}]
            cell["metadata"] |= {"trusted": True, "scrolled": True, "execution": {"iopub.status.idle": "2026"}}
    return content


def test_running_a_notebook_leaves_its_file_as_it_is(lab: Lab, notebook_path: Path) -> None:
    name = notebook_path.name
    assert lab.save(name, run_all(lab.opened(name))) == notebook_path.read_text(encoding="utf-8")


def test_what_was_edited_is_saved_and_has_no_outputs_yet(lab: Lab) -> None:
    name = "02_run_mock_vllm.ipynb"
    content = run_all(lab.opened(name))
    stored = nbformat.read(NOTEBOOKS / name, as_version=4)
    prose, first, second = content["cells"][0], content["cells"][4], content["cells"][6]
    prose["source"] += "\n\nA better explanation."
    first["source"] += "  # edited"
    new = {"cell_type": "code", "id": "new", "metadata": {}, "source": "1", "outputs": [], "execution_count": 7}
    content["cells"].append(new)
    saved = nbformat.reads(lab.save(name, content), as_version=4)
    assert [cell.source for cell in saved.cells] == [cell["source"] for cell in content["cells"]]
    changed = {cell.id: cell for cell in saved.cells}
    assert [(changed[each].outputs, changed[each].execution_count) for each in (first["id"], "new")] == [([], None)] * 2
    assert changed[second["id"]] == stored.cells[6]


def test_a_copy_is_its_owners(lab: Lab) -> None:
    content = run_all(lab.opened("03_wire_litellm_proxy.ipynb"))
    for _ in range(2):  # when it is new, and when it is there
        assert "of another run" in lab.save("03_wire_litellm_proxy-Copy1.ipynb", content)


def test_make_lab_starts_it_so() -> None:
    recipe = subprocess.run(["make", "--dry-run", "lab"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"jupyter lab --config={CONFIG} --ServerApp.root_dir=." in recipe.stdout
    assert "NeverCheckForUpdate" in json.loads((ROOT / CONFIG).read_text())["LabApp"]["check_for_updates_class"]
