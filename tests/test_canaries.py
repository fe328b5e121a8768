"""What a prompt, an answer or a key says is found nowhere afterwards: planted texts, real processes, every file."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_cost_logger.keys.file import add_key, revoke_key
from workbook.stacks import Stack, stack

pytestmark = pytest.mark.timeout(240)


@dataclass
class Planted:
    """Texts that must not be found, by what they are; and every file that the processes have written."""

    prompts: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    files: dict[Path, bytes] = field(default_factory=dict)

    def prompt(self) -> str:
        """Another one."""
        self.prompts.append(f"canary-{secrets.token_hex(8)}")
        return self.prompts[-1]


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "mistral-7b", "max_tokens": 24, "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """The calls of a bad day, with the ledger, the console and a collector as witnesses, and then a `kill -9`."""
    build = tmp_path_factory.mktemp("canaries")
    found = Planted()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD_DIR", str(build))
        env = {"OTEL_TRACES_EXPORTER": "console,otlp"}
        with stack("canaries", processor="durable", mock_args=["--enable-faults"], env=env) as running:
            found.keys += [*running.keys.values(), running.master_key]
            calls = _make_calls(running, found)
            running.wait_for_records(calls, timeout=60)
            running.proxy.kill()  # what is in the ledger's write-ahead log stays there
            found.files = {path: path.read_bytes() for path in build.rglob("*") if path.is_file()}
        yield found


def _make_calls(running: Stack, found: Planted) -> int:
    """Make calls of every kind; returns how many leave a record."""
    client = running.http("tenant-acme")
    chat = "/v1/chat/completions"
    for path, body in (
        (chat, ask(found.prompt())),
        ("/v1/messages", ask(found.prompt())),
        ("/v1/completions", {"model": "mistral-7b", "prompt": found.prompt(), "max_tokens": 24}),
        ("/v1/responses", {"model": "mistral-7b", "input": found.prompt(), "max_output_tokens": 24}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        found.answers.append(_longest_text(answer.json()))
    streamed = client.post(chat, json=ask(found.prompt(), stream=True))
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]]
    found.answers.append("".join(pieces))

    for body in (
        ask(found.prompt(), mock_fault="500"),
        ask(found.prompt(), model="no-such-model"),
        ask(found.prompt(), stream=True, mock_fault="die:3"),
        ask(found.prompt(), user=found.keys[0], metadata={"tenant_id": found.keys[0]}),  # a key in the wrong field
    ):
        client.post(chat, json=body)
    with client.stream("POST", chat, json=ask(found.prompt(), stream=True, mock_fault="hang:4")) as answer:
        next(answer.iter_lines())  # and hang up

    revoked = add_key(running.run_dir / "keys.json", "tenant-gone")
    revoke_key(running.run_dir / "keys.json", "tenant-gone")
    wrong = ["sk-" + secrets.token_hex(24), secrets.token_hex(16), revoked]
    found.keys += wrong
    for key in wrong:
        for headers in ({"Authorization": f"Bearer {key}"}, {"x-api-key": key}):
            answer = httpx.post(running.proxy_url + chat, json=ask(found.prompt()), headers=headers, trust_env=False)
            assert answer.status_code == 401
            assert key not in answer.text
    return 10 + 2 * len(wrong)


def _longest_text(answer: Any) -> str:
    """The longest text in an answer, which is what the model said."""
    if isinstance(answer, str):
        return answer
    inner = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else []
    return max((_longest_text(value) for value in inner), key=len, default="")


def where(text: str, files: dict[Path, bytes]) -> list[str]:
    """Names of the files that hold ``text``, as it is or as JSON has it."""
    shapes = {text.encode(), json.dumps(text)[1:-1].encode()}
    return [path.name for path, content in files.items() if any(shape in content for shape in shapes)]


def test_the_witnesses_are_all_there(planted: Planted) -> None:
    """A search that looks at nothing finds nothing."""
    names = {path.name for path in planted.files}
    assert {"ledger.db", "canaries.jsonl", "litellm_proxy.log", "receiver.log", "mock_vllm.log", "keys.json"} <= names
    assert where("tenant-acme", planted.files) >= ["canaries.jsonl"]
    spans = [name for name in ("ledger.db", "ledger.db-wal") if name in where("tenant-acme", planted.files)]
    assert spans, "the ledger holds the records"
    assert "litellm_proxy.log" in where("llm.tenant_id", planted.files), "the console shows the spans"
    assert len(planted.prompts) >= 16
    assert all(len(answer) > 20 for answer in planted.answers)


def test_no_prompt_is_written_anywhere(planted: Planted) -> None:
    assert {text: found for text in planted.prompts if (found := where(text, planted.files))} == {}


def test_no_answer_is_written_anywhere(planted: Planted) -> None:
    assert {text: found for text in planted.answers if (found := where(text, planted.files))} == {}


@pytest.mark.parametrize("part", [slice(None), slice(0, 20), slice(-20, None)], ids=["whole", "beginning", "end"])
def test_no_key_is_written_anywhere(planted: Planted, part: slice) -> None:
    for number, key in enumerate(planted.keys):
        assert where(key[part], planted.files) == [], f"key {number}"


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    for content in ('a "canary" here', json.dumps('a "canary" here')):
        assert where('a "canary" here', {tmp_path / "log": content.encode()}) == ["log"]
    assert where("another", {tmp_path / "log": b"canary"}) == []
