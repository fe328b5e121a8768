"""Who a caller says it is: written down beside the authenticated tenant, and never used for money.

A program may put its customer into ``user``, and an attacker somebody else's name: both are claims. Behind the proxy
the key alone decides; what was claimed helps whoever looks into a dispute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_METADATA = ("metadata", "litellm_metadata")
_IN_METADATA = ("tenant_id", "tenant", "team_id", "team_alias", "user_id")
_IN_BODY = ("tenant_id", "team_id", "user", "safety_identifier")
_HEADERS = (
    "x-litellm-customer-id",
    "x-litellm-end-user-id",
    "x-litellm-end-user",
    "x-litellm-user-id",
    "x-litellm-team-id",
    "x-tenant-id",
)
_IN_BAGGAGE = re.compile(r"tenant|team|customer")
_KEY = re.compile(r"sk-[\w-]{6,}")
_MAX_VALUE = 100  # characters; a record has room for 256 of all claims together


def claims_of(request: Mapping[Any, Any]) -> str | None:
    """What ``request`` (LiteLLM's ``proxy_server_request``: headers and body) claims, as ``field=value, ...``.

    None when it claims nothing. What looks like an API key is left out.
    """
    claims = [(field, text) for field, value in _claims(request) if (text := _text(value))]
    return ", ".join(f"{field}={_KEY.sub('sk-...', text[:_MAX_VALUE])}" for field, text in claims) or None


def _claims(request: Mapping[Any, Any]) -> Iterator[tuple[str, object]]:
    body, headers = _mapping(request.get("body")), _mapping(request.get("headers"))
    for field in _IN_BODY:
        if field in body:
            yield field, body[field]
    for name in _METADATA:
        if name in body and (metadata := _mapping(body[name])):
            for field in _IN_METADATA:
                yield f"{name}.{field}", metadata.get(field)
    for name in _HEADERS:  # the proxy has them in lower case
        if name in headers:
            yield name, headers[name]
    if "baggage" in headers:
        for item in _text(headers["baggage"]).split(","):
            name, _, value = item.partition("=")
            if _IN_BAGGAGE.search(name):
                yield f"baggage.{name.strip()}", value.strip()


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
