"""Where an outside agent exchanges its key for tokens (OAuth 2.1 client credentials)."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from fastapi.responses import JSONResponse

from interlock.app import Interlock
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import ForbiddenError, IntakeFullError, UnauthenticatedError
from interlock.runtime.outside.exchange import Tokens
from interlock.serve.auth import App, hash_secret
from interlock.store import keys
from interlock.store.keys import ApiKey

MCP_PATH: Final = "/mcp"
TOKEN_PATH: Final = "/oauth/token"  # noqa: S105  # a path
_REVOKE_PATH: Final = "/oauth/revoke"
RESOURCE_METADATA: Final = "/.well-known/oauth-protected-resource"
_AUTHORIZE_PATH: Final = "/oauth/authorize"
_SERVER_METADATA: Final = "/.well-known/oauth-authorization-server"

router = APIRouter(tags=["gateway"], include_in_schema=False)


@router.get(RESOURCE_METADATA)
@router.get(f"{RESOURCE_METADATA}{MCP_PATH}")
def resource_metadata(app: App) -> JsonObject:
    """Say where tokens for the gateway are had (RFC 9728)."""
    servers: list[Json] = [app.url]
    methods: list[Json] = ["header"]
    return {
        "resource": f"{app.url}{MCP_PATH}",
        "authorization_servers": servers,
        "bearer_methods_supported": methods,
        "resource_name": "Interlock",
    }


@router.get(_SERVER_METADATA)
def server_metadata(app: App) -> JsonObject:
    """Say how the token endpoint is used (RFC 8414)."""
    grants: list[Json] = ["client_credentials", "refresh_token"]
    methods: list[Json] = ["client_secret_basic", "client_secret_post"]
    none: list[Json] = []
    return {
        "issuer": app.url,
        # Clients of the MCP SDK read no metadata without one; it supports no response type.
        "authorization_endpoint": f"{app.url}{_AUTHORIZE_PATH}",
        "token_endpoint": f"{app.url}{TOKEN_PATH}",
        "revocation_endpoint": f"{app.url}{_REVOKE_PATH}",
        "grant_types_supported": grants,
        "response_types_supported": none,
        "token_endpoint_auth_methods_supported": methods,
    }


@router.get(_AUTHORIZE_PATH)
def authorize() -> JSONResponse:
    """Refuse to hand a person's rights to a client: agents come in by keys of their own."""
    message = f"agents exchange a key of their own at {TOKEN_PATH}; nobody signs in for them"
    return _refused(400, "unsupported_response_type", message)


@router.post(TOKEN_PATH)
def exchange(  # noqa: PLR0917  # the form of RFC 6749
    app: App,
    request: Request,
    grant_type: Annotated[str, Form(max_length=100)] = "",
    client_id: Annotated[str, Form(max_length=200)] = "",
    client_secret: Annotated[str, Form(max_length=200)] = "",
    refresh_token: Annotated[str, Form(max_length=200)] = "",
    resource: Annotated[str, Form(max_length=2000)] = "",
) -> JSONResponse:
    """Open a session for the agent of a key, or give one that goes on its next token.

    The client chooses neither seat, environment nor run: all of that is the key's.
    """
    given = _basic(request.headers.get("authorization", "")) or (client_id, client_secret)
    key = _key(app, *given)
    if key is None:
        return _refused(401, "invalid_client", "the client id and secret are not those of a key")
    if resource and resource.rstrip("/") not in {app.url, f"{app.url}{MCP_PATH}"}:
        return _refused(400, "invalid_target", f"tokens from here are for {app.url}{MCP_PATH}")
    try:
        match grant_type:
            case "client_credentials":
                tokens = app.open_session(key)
            case "refresh_token":
                tokens = app.refresh_session(key, refresh_token)
            case _:
                message = "use the grant `client_credentials` or `refresh_token`"
                return _refused(400, "unsupported_grant_type", message)
    except ForbiddenError as error:
        return _refused(400, "unauthorized_client", error.message)
    except UnauthenticatedError as error:
        return _refused(400, "invalid_grant", error.message)
    except IntakeFullError as error:
        answer = _refused(429, "temporarily_unavailable", error.message)
        answer.headers["Retry-After"] = str(error.retry_after_s)
        return answer
    return _granted(tokens)


@router.post(_REVOKE_PATH)
def revoke(
    app: App,
    request: Request,
    token: Annotated[str, Form(max_length=200)] = "",
    client_id: Annotated[str, Form(max_length=200)] = "",
    client_secret: Annotated[str, Form(max_length=200)] = "",
) -> JSONResponse:
    """End the session of a token (RFC 7009) once none of its calls is open.

    A token that leads to no session of this key is answered alike.
    """
    given = _basic(request.headers.get("authorization", "")) or (client_id, client_secret)
    key = _key(app, *given)
    if key is None:
        return _refused(401, "invalid_client", "the client id and secret are not those of a key")
    app.end_session(key, token)
    nothing: JsonObject = {}
    return _uncached(JSONResponse(nothing))


def _granted(tokens: Tokens) -> JSONResponse:
    body: JsonObject = {
        "access_token": tokens.access,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in_s,
        "run_id": tokens.run_id,
    }
    if tokens.refresh is not None:
        body["refresh_token"] = tokens.refresh
    return _uncached(JSONResponse(body))


def _refused(status: int, error: str, description: str) -> JSONResponse:
    return _uncached(JSONResponse({"error": error, "error_description": description}, status))


def _uncached(response: JSONResponse) -> JSONResponse:
    response.headers["Cache-Control"] = "no-store"
    return response


def _key(app: Interlock, client_id: str, secret: str) -> ApiKey | None:
    """Return the key of a client, which the key proves; its id may be left out."""
    with app.db.reading() as tx:
        found = keys.find_key(tx, hash_secret(secret))
    return found if found is not None and client_id in {"", found.key_id} else None


def _basic(header: str) -> tuple[str, str] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return client_id, secret
