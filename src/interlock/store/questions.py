"""The reads behind on-call questions: why there are duplicates, answered from two indexes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from interlock.domain.approval import Approval
from interlock.domain.decision import Outcome
from interlock.domain.effect import EffectState
from interlock.domain.ids import EffectId, RunId, TenantId, ToolName
from interlock.domain.principal import Seat
from interlock.store.approvals import approval_of
from interlock.store.columns import unpack_seats
from interlock.store.effects import same_key
from interlock.store.tables.calls import approval, approval_use, decision, dup, effect
from interlock.store.tables.runs import run, trigger_event
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateKey:
    """A business key that `n` effects of one tool share, each soon after the one before."""

    tool: ToolName
    key_hash: str
    n: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedEffect:
    """One effect of a business key with all that tells where it came from.

    `trigger_*` and `body_digest` are those of the run tree's root: what reached us from outside.
    `outcome` is what the decision that counted said, `approvals` are those that it used.
    """

    effect_id: EffectId
    state: EffectState
    key_text: str | None
    idem_key: str
    external_id: str | None
    attempt: int
    intent_us: int
    step_name: str
    seats: tuple[Seat, ...]
    run_id: RunId
    parent_id: RunId | None
    root_id: RunId
    workflow: str
    trigger_kind: str
    trigger_source: str
    trigger_key: str
    body_digest: str | None
    policy_version: str | None
    outcome: Outcome | None
    approvals: tuple[Approval, ...]


def recent_duplicates(
    tx: Tx, tenant: TenantId, since_us: int, *, limit: int = 200
) -> list[DuplicateKey]:
    """Return the business keys that had another duplicate since a moment, latest first."""
    query = (
        select(dup.c.tool, dup.c.key_hash, dup.c.n, dup.c.first_us, dup.c.last_us)
        .where(dup.c.tenant == tenant, dup.c.last_us >= since_us)
        .order_by(dup.c.last_us.desc())
        .limit(limit)
    )
    return [DuplicateKey(**row) for row in tx.connection.execute(query).mappings()]


def effects_of_key(
    tx: Tx, tenant: TenantId, tool: ToolName, key_hash: str, since_us: int
) -> list[KeyedEffect]:
    """Return the effects of a business key since a moment, oldest intent first."""
    root = run.alias("root")
    query = (
        select(
            effect.c.effect_id,
            effect.c.state,
            effect.c.key_text,
            effect.c.idem_key,
            effect.c.external_id,
            effect.c.attempt,
            effect.c.intent_us,
            effect.c.step_name,
            effect.c.seats,
            effect.c.workflow,
            effect.c.policy_version,
            run.c.run_id,
            run.c.parent_id,
            run.c.root_id,
            root.c.trigger_kind,
            root.c.trigger_source,
            root.c.trigger_key,
            trigger_event.c.body_digest,
            decision.c.outcome,
        )
        .join(run, run.c.run_id == effect.c.run_id)
        .join(root, root.c.run_id == run.c.root_id)
        .outerjoin(
            trigger_event,
            (trigger_event.c.source == root.c.trigger_source)
            & (trigger_event.c.dedupe_key == root.c.trigger_key),
        )
        .outerjoin(decision, decision.c.decision_id == effect.c.decision_id)
        .where(*same_key(tenant, tool, key_hash, since_us))
        .order_by(effect.c.intent_us, effect.c.effect_id)
    )
    rows = tx.connection.execute(query).mappings().all()
    used = _used_approvals(tx, [row["effect_id"] for row in rows])
    return [
        KeyedEffect(
            **{
                **row,
                "state": EffectState(row["state"]),
                "seats": unpack_seats(row["seats"]),
                "outcome": Outcome(row["outcome"]) if row["outcome"] else None,
                "approvals": tuple(used[row["effect_id"]]),
            }
        )
        for row in rows
    ]


def _used_approvals(tx: Tx, effect_ids: list[str]) -> dict[str, list[Approval]]:
    query = (
        select(approval)
        .join(approval_use, approval_use.c.approval_id == approval.c.approval_id)
        .where(approval.c.effect_id.in_(effect_ids))
        .order_by(approval.c.asked_us, approval.c.approval_id)
    )
    found: dict[str, list[Approval]] = {effect_id: [] for effect_id in effect_ids}
    for row in tx.connection.execute(query).mappings():
        found[row["effect_id"]].append(approval_of(row))
    return found
