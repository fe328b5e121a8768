"""The proxy's front door: whose API key is this, and what may it ask for?

Name it in the proxy configuration, and point ``OTEL_COST_LOGGER_KEYS_FILE`` at the file of keys (see `keys.entries`;
``python -m otel_cost_logger keys add TENANT`` makes one)::

    general_settings:
      custom_auth: otel_cost_logger.auth.user_api_key_auth

A key is looked up in this order, and the first that knows it decides:

1. the master key (``LITELLM_MASTER_KEY``), which is the operator's own and has no tenant;
2. the keys file. The tenant becomes the key's team, the one field of a LiteLLM payload that a caller cannot write
   (`record.py` reads it back as the tenant). A key that is revoked or has expired is refused here;
3. LiteLLM's own virtual keys, where the proxy has a database: the key goes on to LiteLLM's own check.
"""

from __future__ import annotations

import hmac
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth

from otel_cost_logger.keys.entries import KeysFileError, TenantKey, hash_key, moment_text
from otel_cost_logger.keys.ring import KeyRing, key_ring
from otel_cost_logger.net.passage import Identity, Passage, current
from otel_cost_logger.settings import Settings, in_force

if TYPE_CHECKING:
    from fastapi import Request

_MODEL_IN_ADDRESS = ("model", "model_name")  # parameters of LiteLLM's routes

_log = logging.getLogger(__name__)


class KeyRefused(ProxyException):
    """The answer to a key that opens nothing, in OpenAI's form and without a word of the key.

    ``key`` is its entry where it has one: the refusal's record can then name the tenant.
    """

    def __init__(self, message: str, *, code: int = 401, key: TenantKey | None = None) -> None:
        kind = "auth_error" if code == 401 else "server_error"
        super().__init__(message=message, type=kind, param="api_key", code=code)
        self.refused_key = key


async def user_api_key_auth(request: Request, api_key: str | None) -> UserAPIKeyAuth | str:
    """LiteLLM's ``custom_auth``: the caller's identity for ``api_key``, or the key itself when LiteLLM is to check it.

    Raises `KeyRefused` with status 401 for a key that nobody knows, that is revoked or has expired, with 500 when the
    keys file cannot be used, and LiteLLM's own `ProxyException` for a model that the key may not ask for.
    """
    passage = current()
    identity = await _identity(request, api_key, passage)
    if passage is not None and isinstance(identity, UserAPIKeyAuth):
        passage.identify(identity)
        await passage.admit(passage)  # where no hook of LiteLLM's would ask
    return identity


async def _identity(request: Request, api_key: str | None, passage: Passage | None) -> UserAPIKeyAuth | str:
    if not api_key:
        raise unknown_key()
    settings = in_force()
    master_key = settings.master_key
    if master_key and hmac.compare_digest(hash_key(api_key), hash_key(master_key)):
        return UserAPIKeyAuth(api_key=hash_key(api_key), key_alias="master", user_role=LitellmUserRoles.PROXY_ADMIN)
    entry = _ring(settings).find(api_key)
    if entry is None:
        if _litellm_checks_keys():
            return api_key
        raise unknown_key()
    if passage is not None:
        passage.identity = Identity(entry.tenant, entry.alias, entry.sha256)  # also of a key that is refused below
    return await identity_of(entry, request)


async def identity_of(entry: TenantKey, request: Request) -> UserAPIKeyAuth:
    """The identity of the key with ``entry``, for LiteLLM. Raises as `user_api_key_auth` does."""
    _require_active(entry)
    identity = UserAPIKeyAuth(
        api_key=entry.sha256,
        key_alias=entry.alias,
        team_id=entry.tenant,
        team_alias=entry.tenant,
        models=list(entry.models),
        user_role=LitellmUserRoles.INTERNAL_USER,
    )
    if entry.models:
        await _require_allowed_models(entry, identity, request)
    return identity


def _ring(settings: Settings) -> KeyRing:
    try:
        return key_ring(settings.keys_file)
    except KeysFileError as error:
        _log.error("%s; every key but the master key is refused until then", error)
        raise KeyRefused("The proxy cannot read its keys. Tell its operator, whose log says why.", code=500) from error


def unknown_key() -> KeyRefused:
    """The refusal of a key that nobody knows, or of none."""
    return KeyRefused(
        "Authentication Error: unknown or missing API key. Send the key that your operator gave you as "
        "'Authorization: Bearer <key>'."
    )


def _require_active(entry: TenantKey) -> None:
    state = entry.state(datetime.now(UTC))
    if state == "active":
        return
    _log.warning("refused a key that is %s: %s of %s", state, entry.alias, entry.tenant)
    since = f" (since {moment_text(entry.expires)})" if state == "expired" and entry.expires else ""
    verb = "has expired" if state == "expired" else "is revoked"
    raise KeyRefused(f"Authentication Error: this API key {verb}{since}. Ask your operator for a new one.", key=entry)


async def _require_allowed_models(entry: TenantKey, identity: UserAPIKeyAuth, request: Request) -> None:
    """Refuse a model, also one among the request's fallbacks, that is not among the key's.

    LiteLLM itself checks the models of a custom identity only with two settings that are off by default.
    """
    from litellm.proxy.auth.auth_utils import get_request_route
    from litellm.proxy.auth.user_api_key_auth import enforce_key_and_fallback_model_access
    from litellm.proxy.common_utils.http_parsing_utils import _read_request_body, safe_get_request_query_params
    from litellm.proxy.proxy_server import llm_model_list, llm_router

    body = await _read_request_body(request=request)
    # LiteLLM checks the body's model alone, and serves that of the path or the query where there is one.
    addresses = (request.path_params, safe_get_request_query_params(request))
    named = [given.get(name) for given in addresses for name in _MODEL_IN_ADDRESS]
    try:
        for request_data in (body, *({**body, "model": model} for model in named if model)):
            await enforce_key_and_fallback_model_access(
                valid_token=identity,
                request_data=request_data,
                route=get_request_route(request=request),
                request=request,
                llm_model_list=llm_model_list,
                llm_router=llm_router,
            )
    except ProxyException as refusal:
        refusal.refused_key = entry
        raise


def _litellm_checks_keys() -> bool:
    """True where LiteLLM has a database with keys of its own, and will check a key that we give back to it.

    The latter is the doing of LiteLLM's package ``litellm-enterprise``, which the proxy's extra brings; without it the
    key would end up in an error text.
    """
    server = sys.modules.get("litellm.proxy.proxy_server")
    checks = sys.modules.get("litellm.proxy.auth.user_api_key_auth")
    return (
        getattr(server, "prisma_client", None) is not None
        and getattr(checks, "enterprise_custom_auth", None) is not None
    )
