"""REST: who may come in, by keys and one-time links, and what tools authenticate with."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends
from pydantic import Field

from interlock.app import Interlock
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    InterlockError,
    NotFoundError,
)
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Role, Seat
from interlock.domain.record import to_json
from interlock.domain.release import Release
from interlock.domain.tool import Environment
from interlock.serve.auth import App, SignedIn, mint_key, mint_link, needs
from interlock.serve.doctor import uses_of
from interlock.serve.routes.operations import span_of
from interlock.serve.strict import Body, StrictRoute
from interlock.store import keys
from interlock.store.keys import AgentPlace
from interlock.store.secrets import list_newest
from interlock.store.tx import Tx
from interlock.tools.secrets.reference import MAX_BYTES, parse

router = APIRouter(prefix="/keys", tags=["keys"], route_class=StrictRoute)
secrets = APIRouter(prefix="/secrets", tags=["secrets"], route_class=StrictRoute)
Admin = Annotated[Principal, Depends(needs(Role.ADMIN))]
_Overseer = Annotated[Principal, Depends(needs(Role.ADMIN, Role.AUDITOR, Role.OWNER))]
_log = structlog.get_logger(__name__)
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


class ReferenceBody(Body):
    """A secret by its reference."""

    reference: str = Field(max_length=300)


class SecretBody(ReferenceBody):
    """A secret with its value, which nothing ever returns."""

    value: str = Field(max_length=MAX_BYTES)


class RotationBody(SecretBody):
    """A new value; signatures made with the one before are accepted for `overlap` more."""

    overlap: str = Field(default="1d", max_length=20)


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


@secrets.get("")
def list_secrets(app: App, overseer: _Overseer) -> JsonObject:
    """List what is stored and what the live release names, with what uses it; never values."""
    is_here = app.credentials is app.secrets
    with app.db.reading() as tx:
        release = app.release(tx)
        stored = {one.reference: (one, until) for one, until in list_newest(tx)} if is_here else {}
    uses = uses_of(release, app.config.models)
    rows: list[Json] = []
    for reference in sorted(stored.keys() | uses):
        if _is_own(release, overseer, reference):
            one, until_us = stored.get(reference, (None, None))
            rows.append(
                {
                    "reference": reference,
                    "version": None if one is None else one.version,
                    "created_us": None if one is None else one.created_us,
                    "created_by": None if one is None else one.created_by,
                    "key_id": None if one is None else one.key_id,
                    "until_us": until_us,
                    "used_by": [*uses.get(reference, ())],
                    "problem": None if one is not None else _problem(app, reference),
                }
            )
    return {"secrets": rows, "kept_in": app.credentials.place}


@secrets.post("", status_code=201)
def set_secret(app: App, admin: Admin, body: SecretBody) -> JsonObject:
    """Store a secret; from now on it is the one that is sent."""
    _check_here(app)
    _check_own(app, admin, body.reference)
    version = app.secrets.set(body.reference, body.value, by=admin.name)
    _log.info("secret.set", reference=body.reference, version=version, by=admin.name)
    return {"reference": body.reference, "version": version}


@secrets.post("/rotate", status_code=201)
def rotate_secret(app: App, admin: Admin, body: RotationBody) -> JsonObject:
    """Replace a secret that is in use; what others signed with the one before counts a while."""
    _check_here(app)
    _check_own(app, admin, body.reference)
    version = app.secrets.rotate(
        body.reference, body.value, by=admin.name, overlap_s=span_of(body.overlap) // 1_000_000
    )
    _log.info("secret.rotated", reference=body.reference, version=version, by=admin.name)
    return {"reference": body.reference, "version": version}


@secrets.post("/remove")
def remove_secret(app: App, admin: Admin, body: ReferenceBody) -> JsonObject:
    """Delete a secret with all its versions."""
    _check_here(app)
    _check_own(app, admin, body.reference)
    app.secrets.remove(body.reference)
    _log.info("secret.removed", reference=body.reference, by=admin.name)
    return {"reference": body.reference}


@secrets.post("/rekey")
def rekey_secrets(app: App, admin: Admin) -> JsonObject:
    """Seal all secrets with a new key, while they are in use."""
    if admin.tenant != DEFAULT_TENANT:
        raise ForbiddenError("the keys of secrets are those of all tenants")
    _check_here(app)
    count = app.secrets.rekey()
    _log.info("secret.rekeyed", count=count, by=admin.name)
    return {"count": count}


def _problem(app: Interlock, reference: str) -> str | None:
    """Return why a secret cannot be read, None if it can."""
    try:
        app.credentials.resolve(reference)
    except InterlockError as error:
        return error.message
    return None


def _check_here(app: Interlock) -> None:
    """Raise `ConflictError` if credentials are kept elsewhere, where they are changed too."""
    if app.credentials is not app.secrets:
        raise ConflictError(f"credentials are kept in {app.credentials.place}; change them there")


def _check_own(app: Interlock, admin: Principal, reference: str) -> None:
    """Raise `NotFoundError` for a system that is another tenant's; `InputError` for none."""
    system = parse(reference).system
    with app.db.reading() as tx:
        release = app.release(tx)
    if not _is_own(release, admin, reference):
        raise NotFoundError(f"there is no system `{system}`")


def _is_own(release: Release, reader: Principal, reference: str) -> bool:
    """Return whether a secret is for a system of the reader's tenant, or a shared one's."""
    system = release.systems.get(parse(reference).system)
    tenant = None if system is None else system.tenant
    return reader.tenant == (DEFAULT_TENANT if tenant is None else tenant)
