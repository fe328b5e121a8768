"""Records anew what a real vLLM answers, so that what a new vLLM changes is seen: `make record`.

    python tests/mock_vllm/record.py                    starts an engine for each set of flags, and rewrites wire/
    python tests/mock_vllm/record.py --url URL          asks the server at URL, what needs no flags alone
    python tests/mock_vllm/record.py --check            compares, and writes nothing

Prints what changed. Exits with 1 if any answer changed in shape: status, content type, keys, types, error texts,
framing. An answer that differs only in what a model says, or in ids and times, is rewritten in silence.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import conformance
import httpx
from conformance import Answer, Recording

WIRE = Path(__file__).parent / "wire"
MODEL = "mistral-tiny"
MAX_MODEL_LEN = 1024

# `/v1/models` tells where a model is kept, which is a path of one machine.
_MODEL_FOLDER = re.compile(r'"root":"[^"]*/([^/"]+)"')

# They need a key, a full queue, or an engine that dies: made by hand.
BY_HAND = ("limits_", "engine_crash_", "chat_stream_client_abort", "otlp_")


def recordings(folder: Path) -> list[Recording]:
    """Those that can be made by asking, in the order of their names."""
    paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith(BY_HAND))
    return [conformance.load(path) for path in paths]


def again(recording: Recording, url: str) -> tuple[Recording, list[str]]:
    """The recording with the answer of the server at `url`, and in what its shape has changed.

    Raises `SystemExit` when the server cannot be asked.
    """
    try:
        answer = conformance.send(recording, url)
    except httpx.HTTPError as error:
        raise SystemExit(f"{recording.name}: {url} does not answer: {error!r}") from None
    answer = replace(answer, text=_MODEL_FOLDER.sub(r'"root":"models/\1"', answer.text))
    return replace(recording, answer=answer), shape_changes(recording, answer)


def shape_changes(recording: Recording, answer: Answer) -> list[str]:
    """What differs, but for how long an answer is: that is the model's affair."""
    if not recording.answer.status:
        return ["is new"]
    return [change for change in conformance.differences(recording, answer) if not change.endswith("length")]


def described(url: str) -> str:
    """The server in words, without where it is. Raises `SystemExit` when it cannot be asked."""
    try:
        version = httpx.get(f"{url}/version").json()["version"]
    except httpx.HTTPError as error:
        raise SystemExit(f"{url} does not answer: {error!r}") from None
    return f"real vLLM {version}, CPU, random weights"


@contextmanager
def engine(server_args: Sequence[str]) -> Iterator[str]:
    """The URL of a real vLLM with these flags, for as long as it is needed."""
    from workbook.engine import Engine

    arguments = {"served_model_name": MODEL, "max_model_len": MAX_MODEL_LEN, "args": server_args}
    with Engine("record", shape="tiny", **arguments) as vllm:
        yield vllm.url


def record(asked: list[Recording], url: str, folder: Path, check: bool) -> list[str]:
    """Ask for all of them; returns a line for each that changed in shape."""
    changed = []
    server = described(url)
    for old in asked:
        new, changes = again(old, url)
        if not check:
            conformance.store(folder / f"{old.name}.json", new, server)
        changed += [f"{old.name}: {change}" for change in changes]
    return changed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Record anew what a real vLLM answers.", allow_abbrev=False)
    parser.add_argument("--url", help=f"a running server of {MODEL!r} with --max-model-len {MAX_MODEL_LEN}")
    parser.add_argument("--server-args", default="", help="the flags that the server at --url was started with")
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    parser.add_argument("--wire", type=Path, default=WIRE, help="folder of the recordings (default: %(default)s)")
    args = parser.parse_args(argv)
    groups: dict[tuple[str, ...], list[Recording]] = {}
    for recording in recordings(args.wire):
        groups.setdefault(recording.server_args, []).append(recording)
    if args.url:
        flags = tuple(args.server_args.split())
        changed = record(groups.get(flags, []), args.url, args.wire, args.check)
    else:
        changed = []
        for flags, asked in groups.items():
            with engine(flags) as url:
                changed += record(asked, url, args.wire, args.check)
    print("\n".join([*changed, f"{len(changed)} changes of shape"]))
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
