"""Tokens of outside agents: each opens one session, which is a run; of a token only its hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Select, bindparam, func, select, update

from interlock.domain.ids import RunId
from interlock.domain.label import Labels
from interlock.domain.run import Run
from interlock.store import runs
from interlock.store.columns import unpack_labels
from interlock.store.runs import run_of
from interlock.store.statement import Statement
from interlock.store.tables.keys import api_key, run_token
from interlock.store.tables.runs import run
from interlock.store.tx import Tx

Kind = Literal["access", "refresh"]
_FOUND = Statement(
    select(run, run_token.c.key_id, run_token.c.learned.label("told"), api_key.c.learned)
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
    """A session that a token leads to, and the key that it was opened with.

    `is_behind` if other sessions of the key may have read what this one's labels do not say.
    """

    run: Run
    key_id: str
    is_behind: bool = False


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
    if not found:
        return None
    (row,) = found
    is_behind = row["told"] != row["learned"]
    return Session(run=run_of(row), key_id=row["key_id"], is_behind=is_behind)


def catch_up(tx: Tx, session: Session, token_hash: str, *, since_us: int) -> None:
    """Give a session the labels of what other sessions of its key have read."""
    # Before the labels: what others read meanwhile is another look.
    query = select(api_key.c.learned).where(api_key.c.key_id == session.key_id)
    learned = tx.connection.execute(query).scalar_one()
    runs.raise_labels(tx, session.run.run_id, labels_since(tx, session.key_id, since_us))
    told = update(run_token).where(run_token.c.token_hash == token_hash).values(learned=learned)
    tx.connection.execute(told)


def lock_key(tx: Tx, key_id: str) -> None:
    """Let the sessions of a key be opened one after another."""
    of_key = select(api_key.c.key_id).where(api_key.c.key_id == key_id)
    tx.connection.execute(of_key.with_for_update(key_share=True))


def list_open(tx: Tx, key_id: str) -> list[RunId]:
    """Return the sessions of a key that go on."""
    query = select(run.c.run_id).where(run.c.run_id.in_(_opened(key_id)), run.c.ended_us.is_(None))
    return [RunId(found) for found in tx.connection.execute(query).scalars()]


def expire(tx: Tx, run_id: RunId) -> None:
    """Let no token of a session work any more."""
    of_run = (run_token.c.run_id == run_id, run_token.c.expires_us > tx.now_us)
    tx.connection.execute(update(run_token).where(*of_run).values(expires_us=tx.now_us))


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
    query = select(func.count()).where(run.c.run_id.in_(_opened(key_id)), run.c.ended_us.is_(None))
    return tx.connection.execute(query).scalar_one()


def labels_since(tx: Tx, key_id: str, since_us: int) -> Labels:
    """Return what the sessions that a key has opened since then, or has open, have read."""
    query = select(run.c.labels).where(
        run.c.run_id.in_(_opened(key_id)),
        (run.c.created_us >= since_us) | run.c.ended_us.is_(None),
    )
    labels = Labels()
    for row in tx.connection.execute(query).scalars():
        labels = labels.join(unpack_labels(row))
    return labels


def _opened(key_id: str) -> Select[tuple[str]]:
    return select(run_token.c.run_id).where(
        run_token.c.key_id == key_id, run_token.c.kind == "refresh"
    )
