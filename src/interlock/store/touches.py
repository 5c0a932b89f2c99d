"""Touches: which call read or wrote which outside record; append-only."""

from __future__ import annotations

from sqlalchemy import RowMapping, select

from interlock.domain.ids import EffectId, RunId, TenantId
from interlock.domain.touch import Touch
from interlock.store.tables.calls import touch as table
from interlock.store.tx import Tx


def put(tx: Tx, touch: Touch) -> None:
    """Append a touch; the same one again changes nothing."""
    tx.insert_once(
        table,
        {
            "tenant": touch.tenant,
            "system": touch.system,
            "type": touch.type,
            "external_id": touch.external_id,
            "at_us": touch.at_us,
            "effect_id": touch.effect_id,
            "mode": touch.mode,
            "run_id": touch.run_id,
            "after": touch.after,
        },
    )


def list_for_record(
    tx: Tx, tenant: TenantId, *, system: str, kind: str, external_id: str, limit: int = 200
) -> list[Touch]:
    """Return who touched one record (`kind` is its type), newest first."""
    query = (
        select(table)
        .where(
            table.c.tenant == tenant,
            table.c.system == system,
            table.c.type == kind,
            table.c.external_id == external_id,
        )
        .order_by(table.c.at_us.desc(), table.c.effect_id, table.c.mode)
        .limit(limit)
    )
    return [_touch(row) for row in tx.connection.execute(query).mappings()]


def list_for_run(tx: Tx, run_id: RunId) -> list[Touch]:
    """Return what one run touched, oldest first."""
    query = select(table).where(table.c.run_id == run_id)
    query = query.order_by(table.c.at_us, table.c.effect_id, table.c.external_id, table.c.mode)
    return [_touch(row) for row in tx.connection.execute(query).mappings()]


def _touch(row: RowMapping) -> Touch:
    return Touch(
        tenant=TenantId(row["tenant"]),
        run_id=RunId(row["run_id"]),
        effect_id=EffectId(row["effect_id"]),
        system=row["system"],
        type=row["type"],
        external_id=row["external_id"],
        mode=row["mode"],
        at_us=row["at_us"],
        after=row["after"],
    )
