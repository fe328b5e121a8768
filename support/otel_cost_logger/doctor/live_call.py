"""A real call through a running proxy, and whether its record arrives."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from otel_cost_logger.doctor.checks import FAIL, OK, WARN, Finding
from otel_cost_logger.ledger.file import LedgerError, open_for_reading
from otel_cost_logger.settings import Settings

_ANSWER_SECONDS = 60.0
_RECORD_SECONDS = 15.0


def live_call(url: str, key: str, model: str | None, settings: Settings | None) -> Iterator[Finding]:
    """Ask ``model`` (default: the first that the proxy names) of the proxy at ``url`` for one token, with ``key``."""
    base = url.rstrip("/").removesuffix("/v1")
    call_id = str(uuid.uuid4())
    try:
        model = model or _answer(f"{base}/v1/models", key)["data"][0]["id"]
        asked = {"model": model, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
        answer = _answer(f"{base}/v1/chat/completions", key, asked, {"x-litellm-call-id": call_id})
    except urllib.error.HTTPError as error:
        said = " ".join(error.read(300).decode(errors="replace").split())
        yield Finding(
            FAIL, "call", f"{base} answered {error.code}: {said}", "check the key, the model, the proxy's log"
        )
        return
    except (OSError, ValueError, LookupError) as error:
        yield Finding(FAIL, "call", f"{base}: {type(error).__name__}: {error}", "check the address and the proxy's log")
        return
    usage = answer.get("usage") or {}
    tokens = f"{usage.get('prompt_tokens')} and {usage.get('completion_tokens')} tokens"
    yield Finding(OK, "call", f"{base} answered for {model}: {tokens}")
    yield _record(call_id, settings)


def _record(call_id: str, settings: Settings | None) -> Finding:
    if settings is None or settings.ledger is None:
        return Finding(WARN, "record", f"of call {call_id}: no ledger to look into", "look for it in your backend")
    path = settings.ledger.path
    deadline = time.monotonic() + _RECORD_SECONDS
    while True:
        try:
            with closing(open_for_reading(path)) as ledger:
                row = ledger.execute(
                    "SELECT tenant_id, total_tokens, cost_nano_usd, cost_source FROM spans WHERE call_id = ?", [call_id]
                ).fetchone()
        except LedgerError as error:
            return Finding(FAIL, "record", str(error), "run the doctor where the proxy's ledger is")
        if row:
            tenant, tokens, cost, source = row
            return Finding(OK, "record", f"of {tenant}: {tokens} tokens, {cost} nano-USD ({source})")
        if time.monotonic() > deadline:
            remedy = "run the doctor with the proxy's settings; read the proxy's log"
            return Finding(FAIL, "record", f"none of call {call_id} in {path}", remedy)
        time.sleep(0.1)


def _answer(url: str, key: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
    sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}
    content = json.dumps(body).encode() if body is not None else None
    if not url.startswith(("http://", "https://")):
        raise ValueError("an address begins with http:// or https://")
    request = urllib.request.Request(url, content, sent)
    with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
        return json.load(answer)
