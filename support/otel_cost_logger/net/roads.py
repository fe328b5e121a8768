"""Every address of the proxy: is there an engine behind it, and who counts what it generates?

One table. The first row that fits an address decides. An address that fits none is closed: what LiteLLM adds in a later
version stays closed until it has a row. An operator may open a closed address by its name in the table, or by a pattern
of their own, with ``OTEL_COST_LOGGER_OPEN_ROADS``.

In a pattern ``{name}`` stands for one part of an address, and ``*`` for one or more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

# Who counts.
REPORTED = "reported"  # LiteLLM's hooks, call by call
TRANSLATED = "translated"  # LiteLLM's hooks, of the call that it makes of this one
RAW = "raw"  # the net: what the engine says goes through as it is
OPENED = "opened"  # the operator opened it: the hooks, or the net, or nobody
# Who need not.
NO_ENGINE = "no engine"
CLOSED = "closed"

COUNTED = frozenset({REPORTED, TRANSLATED, RAW})


@dataclass(frozen=True, slots=True)
class Road:
    """A row of the table: ``pattern`` is its name, ``kind`` one of the words above, ``why`` a sentence for people.

    ``streams_text`` says that LiteLLM may drop what the engine counted of a stream whose caller leaves.
    """

    pattern: str
    kind: str
    why: str
    streams_text: bool = False


def _rows(kind: str, why: str, patterns: str, *, streams_text: bool = False) -> Iterator[Road]:
    return (Road(pattern, kind, why, streams_text) for pattern in patterns.split())


def _vllm() -> str:
    served = (
        "chat/completions completions embeddings messages responses rerank score pooling classify "
        "audio/transcriptions audio/translations"
    )
    versions = ("", "v1/", "v2/")
    return " ".join(f"/vllm/{version}{name}" for name in served.split() for version in versions)


_CHAT = "/v1/chat/completions /chat/completions /engines/*/chat/completions /openai/deployments/*/chat/completions"
_TEXT = "/v1/completions /completions /engines/*/completions /openai/deployments/*/completions"
_EMBEDDINGS = "/v1/embeddings /embeddings /engines/*/embeddings /openai/deployments/*/embeddings"
_RESPONSES = "/v1/responses /responses /openai/v1/responses"
_GOOGLE = "/v1beta/models/*:{} /models/*:{}"

ROADS: tuple[Road, ...] = (
    # What vLLM serves.
    *_rows(REPORTED, "chats", f"{_CHAT} /cursor/chat/completions"),
    *_rows(REPORTED, "messages, Anthropic's form", "/v1/messages", streams_text=True),
    *_rows(REPORTED, "responses", _RESPONSES, streams_text=True),
    *_rows(REPORTED, "text completions", _TEXT, streams_text=True),
    *_rows(REPORTED, "embeddings", _EMBEDDINGS),
    *_rows(TRANSLATED, "rerankings", "/v1/rerank /v2/rerank /rerank"),
    *_rows(TRANSLATED, "transcriptions", "/v1/audio/transcriptions /audio/transcriptions"),
    *_rows(TRANSLATED, "speech", "/v1/audio/speech /audio/speech"),
    *_rows(
        TRANSLATED,
        "Google's form",
        f"{_GOOGLE.replace('{}', 'generateContent')} {_GOOGLE.replace('{}', 'streamGenerateContent')}",
        streams_text=True,
    ),
    *_rows(TRANSLATED, "Google's interactions", "/v1beta/interactions /interactions", streams_text=True),
    *_rows(RAW, "what vLLM serves, passed through as it is", _vllm()),
    # Nothing is generated.
    *_rows(NO_ENGINE, "the engine is asked what it serves", "/vllm/models /vllm/v1/models"),
    *_rows(
        NO_ENGINE,
        "tokens are counted, not generated",
        f"{_GOOGLE.replace('{}', 'countTokens')} /v1/messages/count_tokens /v1/responses/input_tokens "
        "/responses/input_tokens /openai/v1/responses/input_tokens /utils/token_counter /utils/transform_request "
        "/utils/supported_openai_params /utils/model_info /vllm/tokenize /vllm/detokenize /cost/estimate "
        "/cost/predict-cache",
    ),
    *_rows(
        NO_ENGINE,
        "which models there are",
        "/v1/models /models /v1/models/{model} /models/{model} /model/info /v1/model/info /v2/model/info "
        "/model_group/info /cursor/models /cursor/v1/models /model/settings /model/metrics /model/metrics/* "
        "/model/streaming_metrics /model/deprecations /v1/model/deprecations /model/cost_map/source /public/* "
        "/model_hub /model_hub/*",
    ),
    *_rows(
        NO_ENGINE,
        "whether the proxy is well",
        "/health/liveliness /health/liveness /health/readiness /health/readiness/details /health/license "
        "/health/backlog /health/drain /health/history /health/latest /health/shared-status /test /metrics /metrics/",
    ),
    *_rows(
        NO_ENGINE,
        "pages and their parts",
        "/ /docs /docs/* /redoc /openapi.json /swagger/* /ui /ui/* /_next/* /litellm-asset-prefix/* /favicon.ico "
        "/robots.txt /get_image /get_favicon /get_logo_url /routes /.well-known/* /litellm/.well-known/*",
    ),
    # LiteLLM's own administration, which its roles guard. Where a part of it makes a call, that part is closed.
    *_rows(CLOSED, "it makes a call to try the logging", "/key/health"),
    *_rows(CLOSED, "it sends what it is asked to send", "/team/*/callback"),
    *_rows(
        NO_ENGINE,
        "administration",
        "/key/* /v2/key/* /user/* /v2/user/* /team/* /v2/team/* /organization/* /v2/organization/* /project/* "
        "/customer/* /end_user/* /budget/* /tag/* /access_group/* /v1/access_group /v1/access_group/* "
        "/v1/unified_access_group /v1/unified_access_group/* /jwt/* /scim/* /invitation/* /onboarding/* /sso/* "
        "/login /v2/login /v3/login /v3/login/* /fallback/login /session/* /logout /audit /audit/* /credentials "
        "/credentials/* /model/new /model/update /model/delete /model/block /model/unblock /model/{model}/update "
        "/model_group/make_public /config/* /config_overrides/* /router/settings /router/fields /settings /get/* "
        "/update/* /add/* /delete/* /upload/* /email/* /alerting/* /callbacks/* /active/callbacks /cache/* /spend/* "
        "/global/* /gateway/* /provider/budgets /agent/daily/* /management/* /cost_optimization/* "
        "/coordination_redis/* /schedule/* /reload/* /debug/* /memory-usage-in-mem-cache "
        "/memory-usage-in-mem-cache-items /otel-spans /cloudzero/* /vantage/* /lazy/*",
    ),
)


def _expression(pattern: str) -> str:
    parts = re.split(r"(\{[^}]*\}|\*)", pattern)
    return "".join(".+" if part == "*" else "[^/]+" if part[:1] == "{" else re.escape(part) for part in parts)


_CLOSED = Road("", CLOSED, "it is not known what is behind it, or nobody can count it")


class Roads:
    """The table, with what the operator opened: patterns as in the table."""

    def __init__(self, opened: Iterable[str] = ()) -> None:
        rows = ROADS + tuple(_rows(OPENED, "the operator opened it", " ".join(opened)))
        plain = [row for row in rows if not re.search(r"[{*]", row.pattern)]
        self._exact = {row.pattern: row for row in reversed(plain) if row.kind not in (CLOSED, OPENED)}
        self._patterns = [(re.compile(_expression(row.pattern)), row) for row in rows]
        self._of = lru_cache(maxsize=4096)(self._looked_up)  # callers choose the addresses

    def of(self, address: str) -> Road:
        """The road that begins at ``address`` (a decoded path without the proxy's root path)."""
        return self._exact.get(address) or self._of(address)

    def _looked_up(self, address: str) -> Road:
        fitting = [row for expression, row in self._patterns if expression.fullmatch(address)]
        first = fitting[0] if fitting else _CLOSED
        opened = next((row for row in fitting if row.kind == OPENED), None)
        return opened or first if first.kind == CLOSED else first
