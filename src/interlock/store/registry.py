"""Releases: each apply adds one, none is ever changed, the one with the highest number is live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from sqlalchemy import delete, func, select

from interlock.domain.canonical import digest
from interlock.domain.errors import ConflictError, NotFoundError, VersionMissingError
from interlock.domain.record import from_json, object_to_json
from interlock.domain.release import RELEASE_FORMAT, Release
from interlock.store.columns import pack, unpack
from interlock.store.statement import Statement
from interlock.store.tables.runs import release as table
from interlock.store.tables.runs import release_ask
from interlock.store.tx import Tx

_LIVE_FORMAT = Statement(select(table.c.format).order_by(table.c.number.desc()).limit(1))
_LIVE = Statement(select(func.max(table.c.number).label("number")))


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRelease:
    """Who applied a release and when; `digest` covers everything but its number.

    `asked_by` is who asked for it first, if it took two people.
    """

    number: int
    digest: str
    applied_by: str
    applied_us: int
    asked_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asked for a difference to be applied that takes two people, and since when."""

    by: str
    at_us: int


def find_asked(tx: Tx, diff: str) -> Asked | None:
    """Return who asked for a difference, by its digest; None if nobody has."""
    row = tx.connection.execute(select(release_ask).where(release_ask.c.diff == diff)).first()
    return None if row is None else Asked(by=row.asked_by, at_us=row.asked_us)


def put_asked(tx: Tx, diff: str, *, by: str) -> Asked:
    """Note that somebody asks for a difference now, in place of whoever asked before."""
    tx.connection.execute(delete(release_ask).where(release_ask.c.diff == diff))
    tx.insert(release_ask, {"diff": diff, "asked_us": tx.now_us, "asked_by": by})
    return Asked(by=by, at_us=tx.now_us)


def put_release(tx: Tx, release: Release, *, by: str, asked_by: str | None = None) -> Release:
    """Store the next release and return it with its number; raises `ConflictError` on a race."""
    numbered = replace(release, number=live_number(tx) + 1)
    is_new = tx.insert_once(
        table,
        {
            "number": numbered.number,
            "format": RELEASE_FORMAT,
            "digest": digest_of(release),
            "body": pack(object_to_json(numbered)),
            "applied_us": tx.now_us,
            "applied_by": by,
            "asked_by": asked_by,
        },
    )
    if not is_new:
        raise ConflictError("another apply came in between; plan again")
    return numbered


def quarantine(tx: Tx, bindings: Mapping[str, str], *, by: str) -> Release | None:
    """Let the bindings (`tool@environment`, each with its reason) deny every call from now on.

    That is the next release; None if they all do so already. A new version of the tool lifts it.
    """
    number = live_number(tx)
    live = get_release(tx, number)
    both = {**bindings, **live.quarantine}
    return (
        None if both == live.quarantine else put_release(tx, replace(live, quarantine=both), by=by)
    )


def expect_live(tx: Tx) -> None:
    """Say that the number of the live release will be asked for."""
    tx.expect(_LIVE, {})


def live_number(tx: Tx) -> int:
    """Return the number of the live release, 0 if nothing was applied yet."""
    (row,) = tx.rows(_LIVE, {})
    return row["number"] or 0


def get_release(tx: Tx, number: int) -> Release:
    """Return a release; raises `NotFoundError`, and `VersionMissingError` if it is too new."""
    query = select(table.c.format, table.c.body).where(table.c.number == number)
    row = tx.connection.execute(query).first()
    if row is None:
        raise NotFoundError(f"there is no release `{number}`")
    written, body = row
    if written > RELEASE_FORMAT:
        raise VersionMissingError(
            f"release {number} has the format {written}, and this program reads up to"
            f" {RELEASE_FORMAT}; install the version that applied it"
        )
    return from_json(Release, unpack(body))


def expect_live_format(tx: Tx) -> None:
    """Say that the format of the live release will be asked for."""
    tx.expect(_LIVE_FORMAT, {})


def live_format(tx: Tx) -> int:
    """Return in which format the live release is written, 0 if nothing was applied yet."""
    rows = tx.rows(_LIVE_FORMAT, {})
    return int(rows[0]["format"]) if rows else 0


def format_of(tx: Tx, number: int) -> int:
    """Return in which format a release is written; raises `NotFoundError`."""
    query = select(table.c.format).where(table.c.number == number)
    written = tx.connection.execute(query).scalar()
    if written is None:
        raise NotFoundError(f"there is no release `{number}`")
    return int(written)


def list_releases(tx: Tx) -> list[AppliedRelease]:
    """Return what was applied, newest first."""
    columns = (table.c[each.name] for each in fields(AppliedRelease))
    rows = tx.connection.execute(select(*columns).order_by(table.c.number.desc())).mappings()
    return [AppliedRelease(**row) for row in rows]


def digest_of(release: Release) -> str:
    """Return the digest of a release without its number: equal projects have equal digests."""
    return digest(object_to_json(replace(release, number=0)))
