"""Every address of the proxy: is there an engine behind it, and who counts what it generates?

One table. The first row that fits an address decides. An address that fits none is closed: what LiteLLM adds in a later
version stays closed until it has a row. Of what has no engine behind it (administration, pages, probes) each address is
named with its methods in ``no_engine.txt``, as LiteLLM 1.106.2 has them: below each reason one address a line. An
operator may open a closed address by a pattern of their own, with ``OTEL_COST_LOGGER_OPEN_ROADS``.

In a pattern ``{name}`` stands for one part of an address, and ``*`` for one or more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

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

    ``streams_text`` says that LiteLLM may drop what the engine counted of a stream whose caller leaves. ``methods`` are
    the HTTP methods that the row is about; None for all.
    """

    pattern: str
    kind: str
    why: str
    streams_text: bool = False
    methods: frozenset[str] | None = None

    def takes(self, method: str) -> bool:
        """Whether the row is about requests with this HTTP method."""
        return self.methods is None or method in self.methods


def _rows(kind: str, why: str, patterns: str, *, streams_text: bool = False) -> Iterator[Road]:
    return (Road(pattern, kind, why, streams_text) for pattern in patterns.split())


def _without_engine() -> Iterator[Road]:
    why = ""
    for line in files(__package__).joinpath("no_engine.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            why = line[2:]
            continue
        methods, pattern = line.split(" ")
        taken = frozenset(methods.split(","))
        yield Road(pattern, NO_ENGINE, why, methods=taken | {"HEAD"} if "GET" in taken else taken)


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
    *_without_engine(),
)


def _expression(pattern: str) -> str:
    parts = re.split(r"(\{[^}]*\}|\*)", pattern)
    return "".join(".+" if part == "*" else "[^/]+" if part[:1] == "{" else re.escape(part) for part in parts)


_CLOSED = Road("", CLOSED, "it is not known what is behind it, or nobody can count it")


class Roads:
    """The table, with what the operator opened: patterns as in the table."""

    def __init__(self, opened: Iterable[str] = ()) -> None:
        self._exact = {row.pattern: row for row in ROADS if not re.search(r"[{*]", row.pattern)}
        others = [row for row in ROADS if row.pattern not in self._exact]
        others += _rows(OPENED, "the operator opened it", " ".join(opened))
        self._patterns = [(re.compile(_expression(row.pattern)), row) for row in others]
        self._of = lru_cache(maxsize=4096)(self._looked_up)  # callers choose the addresses

    def of(self, address: str, method: str) -> Road:
        """The road that a request with this HTTP method takes at ``address``, a decoded path without the proxy's root
        path."""
        road = self._exact.get(address)
        return road if road is not None and road.takes(method) else self._of(address, method)

    def _looked_up(self, address: str, method: str) -> Road:
        fitting = (row for expression, row in self._patterns if row.takes(method) and expression.fullmatch(address))
        return next(fitting, _CLOSED)
