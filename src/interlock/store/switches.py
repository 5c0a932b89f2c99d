"""Kill switches: a row is in force from its commit on, and is read with every decision to send."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select, update

from interlock.domain.errors import NotFoundError
from interlock.domain.ids import TenantId
from interlock.domain.record import from_json, object_to_json
from interlock.domain.switch import KillSwitch, LiftAsked, Scope, Target, first_stopping, topic_of
from interlock.store.columns import pack, unpack
from interlock.store.statement import Row, Statement
from interlock.store.tables.calls import kill_switch as table
from interlock.store.tables.runs import wait
from interlock.store.tx import Tx

_LIVE = Statement(select(table.c.body).where(table.c.lifted_us.is_(None)).order_by(table.c.set_us))


def expect(tx: Tx) -> None:
    """Say that `stopping` will be asked."""
    tx.expect(_LIVE, {})


def stopping(tx: Tx, target: Target) -> KillSwitch | None:
    """Return a switch that stops a call or model request now, None if it may be made."""
    return first_stopping(map(_switch, tx.rows(_LIVE, {})), target, now_us=tx.now_us)


def put(
    tx: Tx, tenant: TenantId, scope: Scope, *, reason: str, by: str, expires_us: int | None
) -> KillSwitch:
    """Set a switch; it counts once `tx` has committed."""
    switch = KillSwitch(
        switch_id=tx.new_id(),
        tenant=tenant,
        scope=scope,
        reason=reason,
        set_by=by,
        set_us=tx.now_us,
        expires_us=expires_us,
    )
    tx.insert(
        table,
        {
            "switch_id": switch.switch_id,
            "tenant": tenant,
            "set_us": switch.set_us,
            "body": pack(object_to_json(switch)),
        },
    )
    return switch


def get(tx: Tx, tenant: TenantId, switch_id: str, *, is_locked: bool = False) -> KillSwitch:
    """Return a switch of a tenant; raises `NotFoundError`.

    If `is_locked`, nobody else changes it until `tx` ends.
    """
    query = select(table.c.body).where(table.c.switch_id == switch_id, table.c.tenant == tenant)
    query = query.with_for_update() if is_locked else query
    row = tx.connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"there is no kill switch `{switch_id}`")
    return _switch(row)


def list_all(tx: Tx, tenant: TenantId, *, limit: int) -> list[KillSwitch]:
    """Return the switches of a tenant, also those that are lifted or over, newest first."""
    query = select(table.c.body).where(table.c.tenant == tenant)
    query = query.order_by(table.c.set_us.desc(), table.c.switch_id.desc()).limit(limit)
    return [_switch(row) for row in tx.connection.execute(query).mappings()]


def list_in_force(tx: Tx, tenant: TenantId | None = None) -> list[KillSwitch]:
    """Return the switches, of a tenant, that stop something now, in the order they were set in."""
    return [
        switch
        for switch in map(_switch, tx.rows(_LIVE, {}))
        if tenant in {None, switch.tenant} and switch.is_in_force_at(tx.now_us)
    ]


def ask_lift(tx: Tx, switch: KillSwitch, asked: LiftAsked) -> KillSwitch:
    """Note that a first person wants a switch lifted."""
    return _write(tx, replace(switch, lift_asked=asked))


def lift(tx: Tx, switch: KillSwitch, *, asked: LiftAsked, by: tuple[str, ...]) -> KillSwitch:
    """Lift a switch; the runs that wait for it go on once `tx` has committed."""
    lifted = replace(switch, lift_asked=asked, lifted_us=tx.now_us, lifted_by=by)
    waiting = update(wait).where(wait.c.topic == topic_of(switch.switch_id))
    tx.connection.execute(waiting.values(due_us=tx.now_us))
    return _write(tx, lifted)


def _write(tx: Tx, switch: KillSwitch) -> KillSwitch:
    changes = {"lifted_us": switch.lifted_us, "body": pack(object_to_json(switch))}
    mine = table.c.switch_id == switch.switch_id
    tx.connection.execute(update(table).where(mine).values(**changes))
    return switch


def _switch(row: Row) -> KillSwitch:
    return from_json(KillSwitch, unpack(row["body"]))
