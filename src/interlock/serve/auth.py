"""Who is calling: API keys for users and services, sessions for the console, and what a route asks.

A key is `ilk_` and 256 random bits; only its SHA-256 is stored. A session starts from a one-time
sign-in link and carries a CSRF token that every form must return.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from interlock.app import Interlock
from interlock.domain.errors import ForbiddenError, UnauthenticatedError
from interlock.domain.ids import TenantId
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Role
from interlock.store import keys
from interlock.store.keys import AgentPlace
from interlock.store.tx import Tx

KEY_PREFIX = "ilk_"
SESSION_COOKIE = "__Host-interlock"
LINK_TTL_US = 15 * 60 * 1_000_000
SESSION_IDLE_US = 30 * 60 * 1_000_000
SESSION_LIFE_US = 12 * 3600 * 1_000_000
SESSION_SEEN_EVERY_US = 60 * 1_000_000
"""How exactly the last request of a session is known; a page load seldom has to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A signed-in principal; `csrf_token` is set if it came with a console session."""

    principal: Principal
    key_id: str
    csrf_token: str | None = None


def interlock_of(request: Request) -> Interlock:
    """Return the application that serves this request."""
    app: Interlock = request.app.state.interlock
    return app


App = Annotated[Interlock, Depends(interlock_of)]


def hash_secret(secret: str) -> str:
    """Return what is stored of a key, a session id or a link: its SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def mint_key(
    tx: Tx,
    *,
    name: str,
    kind: PrincipalKind,
    roles: frozenset[Role],
    groups: frozenset[str] = frozenset(),
    tenant: TenantId = DEFAULT_TENANT,
    by: str,
    expires_us: int | None = None,
    place: AgentPlace | None = None,
) -> tuple[str, str]:
    """Store a new key and return its id and its token, which cannot be read again."""
    token = KEY_PREFIX + secrets.token_urlsafe(32)
    principal = Principal(name=name, kind=kind, tenant=tenant, roles=roles, groups=groups)
    key_id = keys.put_key(
        tx, principal, secret_hash=hash_secret(token), by=by, expires_us=expires_us, place=place
    )
    return key_id, token


def mint_link(tx: Tx, key_id: str) -> str:
    """Store a one-time sign-in link for a key's principal and return its secret."""
    secret = secrets.token_urlsafe(32)
    keys.put_link(
        tx, link_hash=hash_secret(secret), key_id=key_id, expires_us=tx.now_us + LINK_TTL_US
    )
    return secret


def start_session(tx: Tx, link_secret: str) -> str:
    """Use up a sign-in link and return a new session id; raises `UnauthenticatedError`."""
    key_id = keys.use_link(tx, hash_secret(link_secret))
    if key_id is None:
        raise UnauthenticatedError(
            "the sign-in link was used before or is too old; ask for another"
        )
    session_id = secrets.token_urlsafe(32)
    keys.put_session(
        tx,
        session_hash=hash_secret(session_id),
        key_id=key_id,
        csrf_token=secrets.token_urlsafe(32),
    )
    return session_id


def caller_of(request: Request, app: App) -> Caller:
    """Return who calls, by bearer key or console session; raises `UnauthenticatedError`."""
    header = request.headers.get("authorization")
    if header is not None:
        return _by_key(app, header)
    session_id = request.cookies.get(SESSION_COOKIE)
    if session_id is not None:
        return _by_session(app, session_id)
    raise UnauthenticatedError("sign in: send `Authorization: Bearer <key>`")


SignedIn = Annotated[Caller, Depends(caller_of)]


def is_signed_in(tx: Tx, request: Request) -> bool:
    """Return whether the key or session of an earlier `caller_of` works now, as streams must ask.

    Asking does not count as a request: a page that is left open keeps no session alive.
    """
    header = request.headers.get("authorization")
    if header is not None:
        return keys.find_key(tx, hash_secret(header.partition(" ")[2].strip())) is not None
    session_id = request.cookies.get(SESSION_COOKIE)
    return session_id is not None and _find_session(tx, session_id) is not None


def needs(*roles: Role) -> Callable[[Request, Caller], Principal]:
    """Return the dependency of a route that any of these roles may call.

    A state change that comes with a session must carry its CSRF token.
    """

    def check(request: Request, caller: SignedIn) -> Principal:
        if not caller.principal.roles & set(roles):
            wanted = ", ".join(f"`{role}`" for role in roles)
            msg = f"`{caller.principal.name}` needs one of the roles {wanted}"
            raise ForbiddenError(msg)
        if caller.csrf_token is not None and request.method not in {"GET", "HEAD"}:
            check_csrf(caller, request.headers.get("x-csrf-token", ""))
        return caller.principal

    # The route audit reads this mark: every route states who may call it.
    check.roles = roles  # type: ignore[attr-defined]  # functions take attributes
    return check


def check_csrf(caller: Caller, token: str) -> None:
    """Raise `ForbiddenError` unless the token is the session's."""
    own = caller.csrf_token
    # As bytes: text that is not ASCII cannot be compared.
    if own is None or not hmac.compare_digest(own.encode(), token.encode()):
        raise ForbiddenError("the form is not from this session; load the page again")


def _by_key(app: Interlock, header: str) -> Caller:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.startswith(KEY_PREFIX):
        raise UnauthenticatedError("the Authorization header is not `Bearer ilk_...`")
    with app.db.reading() as tx:
        found = keys.find_key(tx, hash_secret(token.strip()))
    if found is None:
        raise UnauthenticatedError("the key is not known, has expired or was revoked")
    return Caller(principal=found.principal, key_id=found.key_id)


def _by_session(app: Interlock, session_id: str) -> Caller:
    with app.db.reading() as tx:
        session = _find_session(tx, session_id)
        now_us = tx.now_us
    if session is None:
        raise UnauthenticatedError("the session has ended; open a new sign-in link")
    if now_us - session.seen_us > SESSION_SEEN_EVERY_US:
        app.db.run("session.seen", lambda tx: keys.touch_session(tx, session.session_hash))
    return Caller(principal=session.principal, key_id=session.key_id, csrf_token=session.csrf_token)


def _find_session(tx: Tx, session_id: str) -> keys.Session | None:
    session = keys.find_session(tx, hash_secret(session_id))
    if session is None:
        return None
    is_over = (
        tx.now_us - session.seen_us > SESSION_IDLE_US
        or tx.now_us - session.created_us > SESSION_LIFE_US
    )
    return None if is_over else session
