"""Rows of secrets: every version sealed, with who stored it and until when it still counts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, update

from interlock.domain.errors import ConflictError
from interlock.store.statement import Row
from interlock.store.tables.keys import secret as table
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """One version of a secret; `sealed` says nothing without its key.

    `until_us` is None for the newest version; the one before counts until then where signatures of
    others are checked.
    """

    reference: str
    version: int
    key_id: str
    sealed: str
    created_us: int
    created_by: str
    until_us: int | None = None


def find(tx: Tx, reference: str) -> SealedSecret | None:
    """Return the newest version of a secret, or None."""
    query = select(table).where(table.c.reference == reference, table.c.until_us.is_(None))
    row = tx.connection.execute(query).mappings().first()
    return None if row is None else _of(row)


def list_accepted(tx: Tx, reference: str) -> list[SealedSecret]:
    """Return the versions of a secret that count now, newest first."""
    query = select(table).where(
        table.c.reference == reference,
        (table.c.until_us.is_(None)) | (table.c.until_us > tx.now_us),
    )
    rows = tx.connection.execute(query.order_by(table.c.version.desc())).mappings()
    return [_of(row) for row in rows]


def list_newest(tx: Tx) -> list[tuple[SealedSecret, int | None]]:
    """Return each secret, with until when its version before still counts."""
    query = select(table).where(table.c.until_us.is_(None)).order_by(table.c.reference)
    newest = [_of(row) for row in tx.connection.execute(query).mappings()]
    before = select(table.c.reference, func.max(table.c.until_us)).where(
        table.c.until_us > tx.now_us
    )
    rows = tx.connection.execute(before.group_by(table.c.reference))
    until = {row[0]: row[1] for row in rows}
    return [(one, until.get(one.reference)) for one in newest]


def next_version(tx: Tx, reference: str) -> int:
    """Return the number of the next version."""
    query = select(func.max(table.c.version)).where(table.c.reference == reference)
    return (tx.connection.execute(query).scalar() or 0) + 1


def put(tx: Tx, fresh: SealedSecret, *, until_us: int) -> None:
    """Store a version as the newest; the one before counts until then.

    Raises `ConflictError` if another was stored at the same time.
    """
    stands = (table.c.reference == fresh.reference, table.c.until_us.is_(None))
    tx.connection.execute(update(table).where(*stands).values(until_us=until_us))
    values = {name: getattr(fresh, name) for name in SealedSecret.__dataclass_fields__}
    if not tx.insert_once(table, values):
        raise ConflictError(f"`{fresh.reference}` was changed at the same time; try again")


def remove(tx: Tx, reference: str) -> bool:
    """Delete all versions of a secret; False if there is none."""
    return tx.connection.execute(table.delete().where(table.c.reference == reference)).rowcount > 0


def list_not_sealed_by(tx: Tx, key_id: str, *, limit: int) -> list[SealedSecret]:
    """Return some versions that another key seals."""
    query = select(table).where(table.c.key_id != key_id).limit(limit)
    return [_of(row) for row in tx.connection.execute(query).mappings()]


def list_key_ids(tx: Tx) -> frozenset[str]:
    """Return the ids of the keys that seal any version."""
    return frozenset(tx.connection.execute(select(table.c.key_id).distinct()).scalars())


def reseal(tx: Tx, before: SealedSecret, *, key_id: str, sealed: str) -> None:
    """Replace how a version is sealed, if it stands as it was read."""
    stands = (
        table.c.reference == before.reference,
        table.c.version == before.version,
        table.c.key_id == before.key_id,
    )
    tx.connection.execute(update(table).where(*stands).values(key_id=key_id, sealed=sealed))


def _of(row: Row) -> SealedSecret:
    return SealedSecret(**{name: row[name] for name in SealedSecret.__dataclass_fields__})
