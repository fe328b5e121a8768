"""``doctor``: everything that the plugin needs, checked by hand; what is wrong, and what to do."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

from otel_cost_logger.doctor import checks
from otel_cost_logger.doctor.checks import FAIL, Finding
from otel_cost_logger.doctor.live_call import live_call
from otel_cost_logger.text_table import print_json

_KEY_VARIABLE = "LITELLM_MASTER_KEY"
_COLUMNS = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.description = "Exit status: 0 when all is well, 1 when a check fails, 2 for a request that cannot be met."
    parser.add_argument("--url", help="also make a real call through the proxy at this address")
    parser.add_argument("--key-file", type=Path, help=f"file with the key for --url; else {_KEY_VARIABLE} has it")
    parser.add_argument("--model", help="the model to ask with --url; else the first that the proxy names")
    parser.add_argument("--json", action="store_true", help="the findings as a JSON array")


def run(arguments: argparse.Namespace) -> int:
    """Makes the checks; returns 0, 1 when one fails, 2 when there is no key for --url."""
    key = ""
    if arguments.url:
        key = (arguments.key_file.read_text() if arguments.key_file else os.environ.get(_KEY_VARIABLE, "")).strip()
        if not key:
            raise OSError(f"--url needs a key: set {_KEY_VARIABLE}, or name a file with --key-file")
    failed = False
    found = []
    for finding in _findings(arguments, key):
        failed |= finding.state == FAIL
        found.append(finding.as_dict())
        if not arguments.json:
            print("\n".join(_lines(finding)), flush=True)
    if arguments.json:
        print_json(found)
    return int(failed)


def _findings(arguments: argparse.Namespace, key: str) -> Iterator[Finding]:
    yield from checks.python_and_versions()
    settings, found = checks.settings()
    yield from found
    if settings is not None:
        yield from checks.files(settings)
        yield from checks.collector(settings)
    yield from checks.self_check()
    if arguments.url:
        yield from live_call(arguments.url, key, arguments.model, settings)


def _lines(finding: Finding) -> list[str]:
    text = f"{finding.state:5} {finding.check}: {finding.found}"
    remedy = f"      -> {finding.remedy}" if finding.remedy else ""
    return [
        line
        for paragraph in (text, remedy)
        if paragraph
        for line in textwrap.wrap(paragraph, _COLUMNS, subsequent_indent=" " * 9, drop_whitespace=True)
    ]
