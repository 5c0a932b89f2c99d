"""Who may sign in: API keys, console sessions and one-time links; of each secret only a hash."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, RowMapping, Select, or_, select, update

from interlock.domain.ids import AgentName, TenantId, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Role, Seat
from interlock.domain.record import to_json
from interlock.domain.tool import Environment
from interlock.store.columns import pack, unpack_texts
from interlock.store.tables.keys import api_key, session, sign_in_link
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPlace:
    """Where an outside agent works: its seat, and in which environment."""

    seat: Seat
    environment: Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key and whose it is; it works until `expires_us` (None: for ever) unless revoked.

    `place` is set for the key of an outside agent: all that it opens are sessions there.
    """

    key_id: str
    principal: Principal
    created_us: int
    created_by: str
    expires_us: int | None = None
    revoked_us: int | None = None
    place: AgentPlace | None = None

    def works_at(self, now_us: int) -> bool:
        """Return whether the key lets its principal in at a moment."""
        return self.revoked_us is None and (self.expires_us is None or self.expires_us > now_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A console session of a key's principal; `seen_us` is its last request."""

    session_hash: str
    key_id: str
    principal: Principal
    csrf_token: str
    created_us: int
    seen_us: int


def put_key(
    tx: Tx,
    principal: Principal,
    *,
    secret_hash: str,
    by: str,
    expires_us: int | None = None,
    place: AgentPlace | None = None,
) -> str:
    """Store a new key and return its id."""
    key_id = tx.new_id()
    tx.connection.execute(
        api_key.insert().values(
            key_id=key_id,
            secret_hash=secret_hash,
            name=principal.name,
            kind=principal.kind,
            tenant=principal.tenant,
            roles=pack(to_json(principal.roles)),
            groups=pack(to_json(principal.groups)),
            created_us=tx.now_us,
            created_by=by,
            expires_us=expires_us,
            workflow=None if place is None else place.seat.workflow,
            agent=None if place is None else place.seat.agent,
            environment=None if place is None else place.environment,
        )
    )
    return key_id


def find_key(tx: Tx, secret_hash: str) -> ApiKey | None:
    """Return the key of a secret if it works now, else None."""
    query = select(api_key).where(api_key.c.secret_hash == secret_hash, *_works(tx))
    row = tx.connection.execute(query).mappings().first()
    return None if row is None else _key(row)


def list_keys(tx: Tx, *, tenant: TenantId | None = None) -> list[ApiKey]:
    """Return all keys ever made, also those that no longer work, newest first."""
    query: Select[tuple[object, ...]] = select(api_key).order_by(api_key.c.key_id.desc())
    if tenant is not None:
        query = query.where(api_key.c.tenant == tenant)
    return [_key(row) for row in tx.connection.execute(query).mappings()]


def revoke_key(tx: Tx, key_id: str) -> bool:
    """Stop a key, its sessions and its links at once; False if there is none that works."""
    statement = (
        update(api_key)
        .where(api_key.c.key_id == key_id, api_key.c.revoked_us.is_(None))
        .values(revoked_us=tx.now_us)
    )
    return tx.connection.execute(statement).rowcount == 1


def put_session(tx: Tx, *, session_hash: str, key_id: str, csrf_token: str) -> None:
    """Start a session."""
    tx.connection.execute(
        session.insert().values(
            session_hash=session_hash,
            key_id=key_id,
            csrf_token=csrf_token,
            created_us=tx.now_us,
            seen_us=tx.now_us,
        )
    )


def find_session(tx: Tx, session_hash: str) -> Session | None:
    """Return a session that was not ended and whose key works now, else None."""
    query = (
        select(session, api_key.c.name, api_key.c.kind, api_key.c.tenant)
        .add_columns(api_key.c.roles, api_key.c.groups)
        .join(api_key, api_key.c.key_id == session.c.key_id)
        .where(session.c.session_hash == session_hash, session.c.ended_us.is_(None), *_works(tx))
    )
    row = tx.connection.execute(query).mappings().first()
    if row is None:
        return None
    return Session(
        session_hash=row["session_hash"],
        key_id=row["key_id"],
        principal=_principal(row),
        csrf_token=row["csrf_token"],
        created_us=row["created_us"],
        seen_us=row["seen_us"],
    )


def touch_session(tx: Tx, session_hash: str) -> None:
    """Note that a session made a request now."""
    tx.connection.execute(
        update(session).where(session.c.session_hash == session_hash).values(seen_us=tx.now_us)
    )


def end_session(tx: Tx, session_hash: str) -> bool:
    """End a session; False if there is none that goes on."""
    statement = (
        update(session)
        .where(session.c.session_hash == session_hash, session.c.ended_us.is_(None))
        .values(ended_us=tx.now_us)
    )
    return tx.connection.execute(statement).rowcount == 1


def put_link(tx: Tx, *, link_hash: str, key_id: str, expires_us: int) -> None:
    """Store a sign-in link."""
    tx.connection.execute(
        sign_in_link.insert().values(link_hash=link_hash, key_id=key_id, expires_us=expires_us)
    )


def use_link(tx: Tx, link_hash: str) -> str | None:
    """Use a link up and return its key's id; None if it is used, too old or its key is stopped."""
    working = select(api_key.c.key_id).where(*_works(tx))
    statement = (
        update(sign_in_link)
        .where(
            sign_in_link.c.link_hash == link_hash,
            sign_in_link.c.used_us.is_(None),
            sign_in_link.c.expires_us > tx.now_us,
            sign_in_link.c.key_id.in_(working),
        )
        .values(used_us=tx.now_us)
        .returning(sign_in_link.c.key_id)
    )
    return tx.connection.execute(statement).scalar()


def _works(tx: Tx) -> tuple[ColumnElement[bool], ...]:
    return (
        api_key.c.revoked_us.is_(None),
        or_(api_key.c.expires_us.is_(None), api_key.c.expires_us > tx.now_us),
    )


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(
        key_id=row["key_id"],
        principal=_principal(row),
        created_us=row["created_us"],
        created_by=row["created_by"],
        expires_us=row["expires_us"],
        revoked_us=row["revoked_us"],
        place=_place(row),
    )


def _place(row: RowMapping) -> AgentPlace | None:
    if row["agent"] is None:
        return None
    seat = Seat(workflow=WorkflowName(row["workflow"]), agent=AgentName(row["agent"]))
    return AgentPlace(seat=seat, environment=row["environment"])


def _principal(row: RowMapping) -> Principal:
    return Principal(
        name=row["name"],
        kind=PrincipalKind(row["kind"]),
        tenant=TenantId(row["tenant"]),
        roles=frozenset(map(Role, unpack_texts(row["roles"]))),
        groups=frozenset(unpack_texts(row["groups"])),
    )
