"""Content rows; only `interlock.observe.bodies` reads and writes them, and it redacts first."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from interlock.domain.canonical import Json, digest
from interlock.domain.ids import RunId
from interlock.store.columns import pack, unpack
from interlock.store.tables.seen import body as table
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One part (`arguments`, `result`, `request`, ...) of the content of one span."""

    span_key: str
    part: str
    content: Json
    digest: str
    at_us: int


def put(tx: Tx, run_id: RunId, span_key: str, part: str, content: Json) -> None:
    """Write content that was redacted already, or replace the same part."""
    tx.upsert(
        table,
        {
            "run_id": run_id,
            "span_key": span_key,
            "part": part,
            "content": pack(content),
            "digest": digest(content),
            "at_us": tx.now_us,
        },
    )


def list_for_run(tx: Tx, run_id: RunId) -> list[Body]:
    """Return the content of one run, by span and part."""
    columns = (table.c.span_key, table.c.part, table.c.content, table.c.digest, table.c.at_us)
    query = select(*columns).where(table.c.run_id == run_id)
    rows = tx.connection.execute(query.order_by(table.c.span_key, table.c.part))
    return [
        Body(span_key=span_key, part=part, content=unpack(text), digest=found, at_us=at_us)
        for span_key, part, text, found, at_us in rows
    ]
