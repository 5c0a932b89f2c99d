"""Tokens of outside agents: each opens one session, which is a run; of a token only its hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import bindparam, func, select

from interlock.domain.ids import RunId
from interlock.domain.label import Labels
from interlock.domain.run import Run
from interlock.store.columns import unpack_labels
from interlock.store.runs import run_of
from interlock.store.statement import Statement
from interlock.store.tables import api_key, run, run_token
from interlock.store.tx import Tx

Kind = Literal["access", "refresh"]
_FOUND = Statement(
    select(run, run_token.c.key_id)
    .join(run_token, run_token.c.run_id == run.c.run_id)
    .join(api_key, api_key.c.key_id == run_token.c.key_id)
    .where(
        run_token.c.token_hash == bindparam("token_hash"),
        run_token.c.kind == bindparam("of_kind"),
        run_token.c.expires_us > bindparam("now_us"),
        run.c.ended_us.is_(None),
        run.c.is_cancel_requested.is_(False),
        api_key.c.revoked_us.is_(None),
        func.coalesce(api_key.c.expires_us, bindparam("now_us") + 1) > bindparam("now_us"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session that a token leads to, and the key that it was opened with."""

    run: Run
    key_id: str


def put(
    tx: Tx, run_id: RunId, *, token_hash: str, kind: Kind, key_id: str, expires_us: int
) -> None:
    """Store a token of a session."""
    tx.insert(
        run_token,
        {
            "token_hash": token_hash,
            "kind": kind,
            "run_id": run_id,
            "key_id": key_id,
            "created_us": tx.now_us,
            "expires_us": expires_us,
        },
    )


def drop_expired(tx: Tx, run_id: RunId) -> None:
    """Forget the tokens of a session that are over, so that they do not pile up."""
    over = (run_token.c.run_id == run_id, run_token.c.expires_us <= tx.now_us)
    tx.connection.execute(run_token.delete().where(*over))


def find(tx: Tx, token_hash: str, *, kind: Kind) -> Session | None:
    """Return the session of a token, if token, key and session all go on now; else None."""
    found = tx.rows(_FOUND, {"token_hash": token_hash, "of_kind": kind, "now_us": tx.now_us})
    return Session(run=run_of(found[0]), key_id=found[0]["key_id"]) if found else None


def last_expiry(tx: Tx, run_id: RunId) -> int:
    """Return when the last access token of a session ends; 0 if it has none."""
    query = select(func.max(run_token.c.expires_us)).where(
        run_token.c.run_id == run_id, run_token.c.kind == "access"
    )
    return tx.connection.execute(query).scalar() or 0


def key_of(tx: Tx, run_id: RunId) -> str | None:
    """Return the key that a session was opened with; None if the run is no session."""
    query = select(run_token.c.key_id).where(run_token.c.run_id == run_id).limit(1)
    return tx.connection.execute(query).scalar()


def count_open(tx: Tx, key_id: str) -> int:
    """Return how many sessions of a key go on."""
    opened = select(run_token.c.run_id).where(
        run_token.c.key_id == key_id, run_token.c.kind == "refresh"
    )
    query = select(func.count()).where(run.c.run_id.in_(opened), run.c.ended_us.is_(None))
    return tx.connection.execute(query).scalar_one()


def labels_since(tx: Tx, key_id: str, since_us: int) -> Labels:
    """Return what the sessions that a key has opened since then, or has open, have read."""
    opened = select(run_token.c.run_id).where(
        run_token.c.key_id == key_id, run_token.c.kind == "refresh"
    )
    query = select(run.c.labels).where(
        run.c.run_id.in_(opened), (run.c.created_us >= since_us) | run.c.ended_us.is_(None)
    )
    labels = Labels()
    for row in tx.connection.execute(query).scalars():
        labels = labels.join(unpack_labels(row))
    return labels
