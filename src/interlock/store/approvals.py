"""Approvals: asked, answered once by compare-and-set, and each used by one attempt only."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, RowMapping, exists, select, text, update

from interlock.domain.approval import MOST_PEOPLE, Approval, ApprovalState, groups_of, team_of
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError, NotFoundError
from interlock.domain.ids import ApprovalId, DecisionId, EffectId, RunId, StepName, TenantId
from interlock.store.columns import pack, unpack_texts
from interlock.store.tables.calls import approval as table
from interlock.store.tables.calls import approval_use, effect
from interlock.store.tx import Tx


def put(tx: Tx, approval: Approval, *, tenant: TenantId) -> None:
    """Insert an approval that a group is asked for."""
    tx.connection.execute(
        table.insert().values(
            approval_id=approval.approval_id,
            run_id=approval.run_id,
            effect_id=approval.effect_id,
            decision_id=approval.decision_id,
            tenant=tenant,
            digest=approval.digest,
            grp=approval.group,
            state=approval.state,
            requester=approval.requester,
            sponsors=pack([*approval.sponsors]),
            asked_us=approval.asked_us,
            expires_us=approval.expires_us,
            answered_us=approval.answered_us,
            answered_by=approval.answered_by,
            answer_reason=approval.answer_reason,
            plan=approval.plan,
        )
    )


def get(tx: Tx, approval_id: ApprovalId) -> Approval:
    """Return an approval; raises `NotFoundError`."""
    query = select(table).where(table.c.approval_id == approval_id)
    row = tx.connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"there is no approval `{approval_id}`")
    return approval_of(row)


def list_open(tx: Tx, *, tenant: TenantId, groups: Collection[str] | None = None) -> list[Approval]:
    """Return the approvals that wait for an answer of these groups (None: of any), oldest first."""
    # In the words of the partial index, so that both databases see that it serves.
    query = select(table).where(text("state = 'pending'"), table.c.tenant == tenant)
    if groups is not None:
        every = [each for team in groups for each in groups_of(team, MOST_PEOPLE)]
        query = query.where(table.c.grp.in_(every))
    rows = tx.connection.execute(query.order_by(table.c.asked_us, table.c.approval_id)).mappings()
    return [approval_of(row) for row in rows]


def list_approvals(
    tx: Tx, *, tenant: TenantId, states: Collection[ApprovalState] = (), limit: int = 50
) -> list[Approval]:
    """Return approvals in these states (none given: in any), those asked last first."""
    query = select(table).where(table.c.tenant == tenant)
    if states:
        query = query.where(table.c.state.in_(states))
    query = query.order_by(table.c.asked_us.desc(), table.c.approval_id.desc()).limit(limit)
    return [approval_of(row) for row in tx.connection.execute(query).mappings()]


def list_for_effect(tx: Tx, effect_id: EffectId) -> list[Approval]:
    """Return all approvals that were asked for one call, oldest first."""
    query = select(table).where(table.c.effect_id == effect_id)
    rows = tx.connection.execute(query.order_by(table.c.asked_us, table.c.approval_id)).mappings()
    return [approval_of(row) for row in rows]


def list_agreed(tx: Tx, approval: Approval) -> list[Approval]:
    """Return what others of its team have approved of the same call."""
    team = team_of(approval.group)
    return [
        each
        for each in list_for_effect(tx, approval.effect_id)
        if each.state is ApprovalState.APPROVED
        and each.digest == approval.digest
        and team_of(each.group) == team
        and each.group != approval.group
    ]


def list_together(tx: Tx, approval: Approval) -> list[Approval]:
    """Return the approvals that one answer is for: those a plan asks of one group, or just one."""
    if approval.plan is None:
        return [approval]
    query = select(table).where(
        table.c.run_id == approval.run_id,
        table.c.plan == approval.plan,
        table.c.grp == approval.group,
    )
    # In the order of the plan's calls, as they were asked for.
    rows = tx.connection.execute(query.order_by(table.c.asked_us, table.c.approval_id)).mappings()
    return [approval_of(row) for row in rows]


def list_valid(tx: Tx, effect_id: EffectId, digest: str, *, now_us: int) -> list[Approval]:
    """Return the approvals that let exactly this call go now.

    They are given for this digest and not expired. One that an earlier attempt has used still
    counts, except after a person found that the attempt did nothing (`confirmed_absent`).
    """
    is_used_up = exists().where(
        approval_use.c.approval_id == table.c.approval_id,
        effect.c.effect_id == approval_use.c.effect_id,
        effect.c.state == EffectState.CONFIRMED_ABSENT,
    )
    query = select(table).where(
        table.c.effect_id == effect_id,
        table.c.digest == digest,
        table.c.state == ApprovalState.APPROVED,
        table.c.expires_us > now_us,
        ~is_used_up,
    )
    rows = tx.connection.execute(query.order_by(table.c.asked_us, table.c.approval_id)).mappings()
    return [approval_of(row) for row in rows]


def answer(
    tx: Tx, approval_id: ApprovalId, *, state: ApprovalState, by: str, reason: str | None
) -> Approval:
    """Record a person's answer; raises `ConflictError` if it was answered or has expired."""
    return _close(
        tx,
        approval_id,
        state,
        table.c.expires_us > tx.now_us,
        answered_us=tx.now_us,
        answered_by=by,
        answer_reason=reason,
    )


def expire(tx: Tx, approval_id: ApprovalId) -> Approval:
    """Close a pending approval that nobody answered; raises `ConflictError` if it is closed."""
    return _close(tx, approval_id, ApprovalState.EXPIRED)


def void_for_effect(tx: Tx, effect_id: EffectId, *, except_digest: str | None = None) -> int:
    """Make a call's unused approvals void, except those for one digest; return how many."""
    is_used = exists().where(approval_use.c.approval_id == table.c.approval_id)
    statement = (
        update(table)
        .where(
            table.c.effect_id == effect_id,
            table.c.state.in_((ApprovalState.PENDING, ApprovalState.APPROVED)),
            ~is_used,
        )
        .values(state=ApprovalState.VOID)
    )
    if except_digest is not None:
        statement = statement.where(table.c.digest != except_digest)
    return tx.connection.execute(statement).rowcount


def use(tx: Tx, approval_id: ApprovalId, effect_id: EffectId, attempt: int) -> None:
    """Use up an approval for an attempt; a later attempt of the same effect keeps the use.

    Raises `ConflictError` if another effect has used it.
    """
    is_new = tx.insert_once(
        approval_use,
        {
            "approval_id": approval_id,
            "effect_id": effect_id,
            "attempt": attempt,
            "at_us": tx.now_us,
        },
    )
    query = select(approval_use.c.effect_id).where(approval_use.c.approval_id == approval_id)
    if not is_new and tx.connection.execute(query).scalar_one() != effect_id:
        raise ConflictError(f"the approval `{approval_id}` was used already")


def _close(
    tx: Tx,
    approval_id: ApprovalId,
    state: ApprovalState,
    *conditions: ColumnElement[bool],
    **values: object,
) -> Approval:
    statement = (
        update(table)
        .where(
            table.c.approval_id == approval_id,
            table.c.state == ApprovalState.PENDING,
            *conditions,
        )
        .values(state=state, **values)
        .returning(table)
    )
    row = tx.connection.execute(statement).mappings().first()
    if row is None:
        raise ConflictError(f"the approval is `{get(tx, approval_id).state}` already or expired")
    return approval_of(row)


def approval_of(row: RowMapping) -> Approval:
    """Build an approval from a row of its table."""
    return Approval(
        approval_id=ApprovalId(row["approval_id"]),
        run_id=RunId(row["run_id"]),
        effect_id=EffectId(row["effect_id"]),
        decision_id=DecisionId(row["decision_id"]),
        digest=row["digest"],
        group=row["grp"],
        state=ApprovalState(row["state"]),
        asked_us=row["asked_us"],
        expires_us=row["expires_us"],
        requester=row["requester"],
        sponsors=unpack_texts(row["sponsors"]),
        answered_us=row["answered_us"],
        answered_by=row["answered_by"],
        answer_reason=row["answer_reason"],
        plan=None if row["plan"] is None else StepName(row["plan"]),
    )
