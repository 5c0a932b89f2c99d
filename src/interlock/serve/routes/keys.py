"""REST: API keys of users and services, and one-time links to sign in to the console."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from interlock.app import Interlock
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import ForbiddenError, InputError, NotFoundError
from interlock.domain.principal import Principal, PrincipalKind, Role, Seat
from interlock.domain.record import to_json
from interlock.domain.tool import Environment
from interlock.serve.auth import App, SignedIn, mint_key, mint_link, needs
from interlock.serve.strict import Body, StrictRoute
from interlock.store import keys
from interlock.store.keys import AgentPlace
from interlock.store.tx import Tx

router = APIRouter(prefix="/keys", tags=["keys"], route_class=StrictRoute)
Admin = Annotated[Principal, Depends(needs(Role.ADMIN))]
_ANYONE = needs(*Role)
_LONGEST_S = 100 * 365 * 86_400


class PlaceBody(Body):
    """Where an outside agent works: `seat` is `<workflow>/<agent>`."""

    seat: str = Field(max_length=200)
    environment: Environment


class KeyBody(Body):
    """A new key; `expires_in_s` None never expires.

    One of the kind `agent` has a `place`, where it opens sessions, and neither roles nor groups.
    """

    name: str = Field(min_length=1, max_length=80, pattern=r"^[a-z0-9][a-z0-9._@-]*$")
    kind: PrincipalKind = Field(default=PrincipalKind.USER, strict=False)
    roles: frozenset[Annotated[Role, Field(strict=False)]] = Field(
        default=frozenset(), strict=False
    )
    groups: frozenset[str] = Field(default=frozenset(), strict=False)
    expires_in_s: int | None = Field(default=None, ge=60, le=_LONGEST_S)
    place: PlaceBody | None = None


@router.get("")
def list_keys(app: App, admin: Admin) -> JsonObject:
    """List all keys ever made, newest first, without their tokens."""
    with app.db.reading() as tx:
        return {"keys": to_json(tuple(keys.list_keys(tx, tenant=admin.tenant)))}


@router.post("", status_code=201)
def create_key(app: App, admin: Admin, body: KeyBody) -> JsonObject:
    """Create a key; its token is shown once. An approver is neither admin nor owner."""

    def create(tx: Tx) -> tuple[str, str]:
        _check_duties(tx, admin, body)
        place = _place(app, tx, admin, body)
        return mint_key(
            tx,
            name=body.name,
            kind=body.kind,
            roles=body.roles,
            groups=body.groups,
            tenant=admin.tenant,
            by=admin.name,
            expires_us=None
            if body.expires_in_s is None
            else tx.now_us + body.expires_in_s * 1_000_000,
            place=place,
        )

    key_id, token = app.db.run("key.create", create)
    return {"key_id": key_id, "token": token}


@router.post("/{key_id}/revoke")
def revoke_key(app: App, admin: Admin, key_id: str) -> JsonObject:
    """Revoke a key; its sessions end with it, and what they have open is not made any more."""

    def revoke(tx: Tx) -> None:
        own = {key.key_id for key in keys.list_keys(tx, tenant=admin.tenant)}
        if key_id not in own or not app.revoke_key(tx, key_id):
            raise NotFoundError(f"there is no live key `{key_id}`")

    app.db.run("key.revoke", revoke)
    return {"key_id": key_id}


def _place(app: Interlock, tx: Tx, admin: Principal, body: KeyBody) -> AgentPlace | None:
    """Return where the agent of a new key works; only what is declared live is a place."""
    is_agent = body.kind is PrincipalKind.AGENT
    if is_agent != (body.place is not None) or (is_agent and (body.roles or body.groups)):
        raise InputError("a key of an agent has a place, and neither roles nor groups; others none")
    if body.place is None:
        return None
    try:
        seat = Seat.parse(body.place.seat)
    except ValueError as error:
        raise InputError(str(error)) from None
    place = AgentPlace(seat=seat, environment=body.place.environment)
    spec = app.release(tx).workflows.get(seat.workflow)
    if spec is None or spec.tenant != admin.tenant:
        raise NotFoundError(f"there is no workflow `{seat.workflow}`")
    app.check_place(tx, place)
    return place


def _check_duties(tx: Tx, admin: Principal, body: KeyBody) -> None:
    """Refuse what would let one name approve calls and rule who may come in, or what is asked."""
    roles = body.roles.union(
        *(
            key.principal.roles
            for key in keys.list_keys(tx, tenant=admin.tenant)
            if key.principal.name == body.name and key.works_at(tx.now_us)
        )
    )
    for role in (Role.ADMIN, Role.OWNER):
        if {role, Role.APPROVER} <= roles:
            msg = f"`{body.name}` would be {role} and approver; give the roles to two people"
            raise ForbiddenError(msg)


@router.post("/sign-in-link", status_code=201)
def sign_in_link(
    app: App, caller: SignedIn, _who: Annotated[Principal, Depends(_ANYONE)]
) -> JsonObject:
    """Return a console link for the caller's own principal; it works once, for 15 minutes."""
    if caller.csrf_token is not None:
        # It would outlive the session that made it.
        raise ForbiddenError("a link is made with a key, not from a console session")
    secret = app.db.run("link.create", lambda tx: mint_link(tx, caller.key_id))
    return {"url": link_for(app.url, secret)}


def link_for(url: str, secret: str) -> str:
    """Return the address of a sign-in link."""
    return f"{url}/sign-in?link={secret}"
