"""Decisions: append-only, each with the exact question that policy was asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import RowMapping, func, select, tuple_

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Outcome, PolicyRequest, Reason
from interlock.domain.ids import DecisionId, EffectId, RunId, TenantId, ToolName
from interlock.domain.principal import Seat
from interlock.domain.record import from_json, object_to_json, to_json
from interlock.store.columns import (
    pack,
    pack_seats,
    unpack,
    unpack_object,
    unpack_seats,
    unpack_texts,
)
from interlock.store.statement import Statement
from interlock.store.tables.calls import decision as table
from interlock.store.tables.runs import run
from interlock.store.tx import Tx

_INSERT = Statement(table.insert())
_OF_RUNS = table.join(run, run.c.run_id == table.c.run_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDecision:
    """A decision as it was written; `request` is the JSON form of the `PolicyRequest`.

    `tool_version` is None for a model request, whose `tool` is the model's name.
    """

    decision_id: DecisionId
    run_id: RunId
    effect_id: EffectId | None
    seats: tuple[Seat, ...]
    tool: str
    tool_version: int | None
    decision: Decision
    request: JsonObject
    at_us: int


def put(
    tx: Tx,
    *,
    decision_id: DecisionId,
    run_id: RunId,
    effect_id: EffectId | None,
    decision: Decision,
    request: PolicyRequest,
    tool: ToolName | str,
    tool_version: int | None,
) -> None:
    """Append a decision."""
    tx.later(
        _INSERT,
        {
            "decision_id": decision_id,
            "run_id": run_id,
            "effect_id": effect_id,
            "seats": pack_seats(request.seats),
            "tool": tool,
            "tool_version": tool_version,
            "outcome": decision.outcome,
            "groups": pack(list(decision.groups)),
            "reasons": pack(to_json(decision.reasons)),
            "policy_ids": pack(list(decision.policy_ids)),
            "observed": pack(to_json(decision.observed)) if decision.observed else None,
            "policy_version": decision.policy_version,
            "slice_version": decision.slice_version,
            "request": pack(object_to_json(request)),
            "at_us": tx.now_us,
        },
    )


def list_for_effect(tx: Tx, effect_id: EffectId) -> list[RecordedDecision]:
    """Return all decisions on one call, oldest first."""
    query = select(table).where(table.c.effect_id == effect_id)
    rows = tx.connection.execute(query.order_by(table.c.at_us, table.c.decision_id)).mappings()
    return [_decision(row) for row in rows]


def list_for_run(tx: Tx, run_id: RunId) -> list[RecordedDecision]:
    """Return all decisions of one run, oldest first."""
    query = select(table).where(table.c.run_id == run_id)
    rows = tx.connection.execute(query.order_by(table.c.at_us, table.c.decision_id)).mappings()
    return [_decision(row) for row in rows]


def count_since(tx: Tx, tenant: TenantId, since_us: int) -> int:
    """Count the decisions of a tenant's runs since a moment."""
    query = select(func.count()).select_from(_OF_RUNS)
    found = tx.connection.execute(query.where(run.c.tenant == tenant, table.c.at_us >= since_us))
    return int(found.scalar_one())


def list_since(
    tx: Tx,
    tenant: TenantId,
    since_us: int,
    *,
    after: RecordedDecision | None = None,
    limit: int,
) -> list[RecordedDecision]:
    """Return the decisions of a tenant's runs since a moment, oldest first, from `after` on."""
    query = select(table).select_from(_OF_RUNS)
    query = query.where(run.c.tenant == tenant, table.c.at_us >= since_us)
    if after is not None:
        place = tuple_(table.c.at_us, table.c.decision_id)
        query = query.where(place > (after.at_us, after.decision_id))
    query = query.order_by(table.c.at_us, table.c.decision_id).limit(limit)
    return [_decision(row) for row in tx.connection.execute(query).mappings()]


def list_observed(tx: Tx, tenant: TenantId, since_us: int) -> Iterator[RecordedDecision]:
    """Return the decisions since a moment that policies in observe mode would have changed."""
    query = select(table).select_from(_OF_RUNS)
    query = query.where(
        run.c.tenant == tenant, table.c.at_us >= since_us, table.c.observed.is_not(None)
    )
    query = query.order_by(table.c.at_us, table.c.decision_id)
    return map(_decision, tx.connection.execute(query).mappings())


def _decision(row: RowMapping) -> RecordedDecision:
    return RecordedDecision(
        decision_id=DecisionId(row["decision_id"]),
        run_id=RunId(row["run_id"]),
        effect_id=EffectId(row["effect_id"]) if row["effect_id"] else None,
        seats=unpack_seats(row["seats"]),
        tool=row["tool"],
        tool_version=row["tool_version"],
        decision=Decision(
            outcome=Outcome(row["outcome"]),
            reasons=from_json(tuple[Reason, ...], unpack(row["reasons"])),
            groups=unpack_texts(row["groups"]),
            policy_version=row["policy_version"],
            slice_version=row["slice_version"],
            observed=from_json(tuple[Reason, ...], unpack(row["observed"]) or []),
        ),
        request=unpack_object(row["request"]),
        at_us=row["at_us"],
    )
