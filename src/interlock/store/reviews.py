"""What people said of what a workflow did or would have done, and what else counts as evidence.

Drafts and unattended writes are reviewed afterwards, approved ones are judged by the answer. All
questions are about the runs of one workflow in one environment since a release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVarTuple

from sqlalchemy import ColumnElement, Select, exists, func, select

from interlock.domain.approval import ApprovalState
from interlock.domain.autonomy import SYSTEM, rung_key
from interlock.domain.decision import Outcome
from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import EffectId
from interlock.domain.run import RunState
from interlock.domain.trace import SpanKind
from interlock.store import ladder, registry
from interlock.store.tables.calls import approval, decision, dup
from interlock.store.tables.calls import effect as table
from interlock.store.tables.ladder import review
from interlock.store.tables.runs import run
from interlock.store.tables.seen import span
from interlock.store.tx import Tx

Columns = TypeVarTuple("Columns")
LAST = 50
"""So many of the newest judged writes decide whether a level is kept."""
_DONE = (EffectState.SUCCEEDED, EffectState.CONFIRMED_DONE, EffectState.COMPENSATED)
_ANSWERED = {
    ApprovalState.APPROVED: True,
    ApprovalState.REJECTED: False,
    ApprovalState.EXPIRED: False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which runs are meant: of a workflow in an environment, by releases from one on."""

    tenant: str
    workflow: str
    environment: str
    release: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One write and what people said of it; None if nobody has yet."""

    effect_id: EffectId
    at_us: int
    is_agreed: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What must not have happened, counted; and how many writes were undone."""

    unrecorded: int
    forbidden: int
    duplicates: int
    parked: int
    set_aside: int
    undone: int


def put(tx: Tx, effect: Effect, *, is_agreed: bool, note: str | None, by: str) -> bool:
    """Write what a person says of a draft or an unattended write; False if somebody has before."""
    is_new = tx.insert_once(
        review,
        {
            "effect_id": effect.effect_id,
            "run_id": effect.run_id,
            "is_agreed": is_agreed,
            "note": note,
            "by": by,
            "at_us": tx.now_us,
        },
    )
    if is_new and not is_agreed:
        disagreed(tx, effect)
    return is_new


def drafts(tx: Tx, of: Scope) -> list[Judged]:
    """Return the writes that were drafted, the oldest first."""
    query = _writes(of).where(table.c.state == EffectState.DRAFTED)
    return _judged(tx, query)


def unattended(tx: Tx, of: Scope) -> list[Judged]:
    """Return the writes that were done and nobody was asked about, the oldest first."""
    return _judged(tx, _unattended(of))


def asked(tx: Tx, of: Scope, *, last: int | None = None) -> list[Judged]:
    """Return the writes that people were asked about one by one, the oldest first.

    Those that are void or wait for an answer are left out; no answer in time is a no. With `last`
    only what the newest so many approvals say.
    """
    query = (
        _of(select(table.c.effect_id, approval.c.state, approval.c.asked_us), of)
        .join(approval, approval.c.effect_id == table.c.effect_id)
        .where(approval.c.plan.is_(None), approval.c.state != ApprovalState.VOID)
        .order_by(approval.c.asked_us.desc(), approval.c.approval_id.desc())
        .limit(last)
    )
    answers: dict[str, list[bool | None]] = {}
    since: dict[str, int] = {}
    for effect_id, state, asked_us in reversed(tx.connection.execute(query).all()):
        answers.setdefault(effect_id, []).append(_ANSWERED.get(ApprovalState(state)))
        since.setdefault(effect_id, asked_us)
    return [
        Judged(effect_id=EffectId(effect_id), at_us=since[effect_id], is_agreed=all(said))
        for effect_id, said in answers.items()
        if None not in said
    ]


def faults(tx: Tx, of: Scope) -> Faults:
    """Count what must not have happened, and what was undone."""
    sent = _of(select(func.count()), of).where(table.c.attempt > 0)
    has_decision = exists().where(decision.c.effect_id == table.c.effect_id)
    has_span = exists().where(
        span.c.run_id == table.c.run_id, span.c.effect_id == table.c.effect_id
    )
    is_allowed = exists().where(
        decision.c.decision_id == table.c.decision_id, decision.c.outcome == Outcome.ALLOW
    )
    is_doubled = exists().where(
        dup.c.tenant == table.c.tenant,
        dup.c.tool == table.c.tool,
        dup.c.key_hash == table.c.key_hash,
        dup.c.last_us >= table.c.intent_us,
        dup.c.first_us <= table.c.intent_us,
    )
    all_of = _of(select(func.count()), of)
    lost = select(func.count()).select_from(span.join(run, run.c.run_id == span.c.run_id))
    has_row = exists().where(table.c.effect_id == span.c.effect_id)
    lost = lost.where(*_runs(of), span.c.kind == SpanKind.SEND, ~has_row)
    aside = select(func.count()).select_from(run).where(*_runs(of))
    unrecorded = all_of.where(~(has_decision & has_span))
    return Faults(
        unrecorded=_count(tx, unrecorded) + _count(tx, lost),
        forbidden=_count(tx, sent.where(~is_allowed)),
        duplicates=_count(tx, sent.where(is_doubled)),
        parked=_count(tx, all_of.where(table.c.state == EffectState.PARKED)),
        set_aside=_count(tx, aside.where(run.c.state == RunState.DEAD_LETTERED)),
        undone=_count(tx, all_of.where(table.c.state == EffectState.COMPENSATED)),
    )


def disagreed(tx: Tx, effect: Effect) -> None:
    """Lower a workflow by one level if people left too few of its last writes as they were."""
    number = registry.live_number(tx)
    live = registry.get_release(tx, number) if number else None
    rung = None if live is None else live.ladder.get(rung_key(effect.workflow, effect.environment))
    if live is None or rung is None or not rung.level:
        return
    of = Scope(
        tenant=effect.tenant,
        workflow=effect.workflow,
        environment=effect.environment,
        release=rung.counted_from,
    )
    newest = _unattended(of).where(review.c.is_agreed.is_not(None)).order_by(None)
    newest = newest.order_by(table.c.created_us.desc(), table.c.effect_id.desc()).limit(LAST)
    # A call may be asked of several teams.
    said = (*asked(tx, of, last=4 * LAST), *_judged(tx, newest))
    in_order = sorted(said, key=lambda each: each.at_us)
    last = [each.is_agreed for each in in_order if each.is_agreed is not None][-LAST:]
    share = sum(last) / LAST
    if len(last) == LAST and share < live.bar(rung.level).agreement:
        reason = f"people left {sum(last)} of its last {LAST} writes as they were"
        key = rung_key(effect.workflow, effect.environment)
        ladder.lower(tx, {key: rung.level - 1}, reason=reason, by=SYSTEM)


def _unattended(of: Scope) -> Select[str, int, bool | None]:
    was_asked = exists().where(approval.c.effect_id == table.c.effect_id)
    return _writes(of).where(table.c.state.in_(_DONE), ~was_asked)


def _writes(of: Scope) -> Select[str, int, bool | None]:
    query = select(table.c.effect_id, table.c.created_us, review.c.is_agreed)
    return (
        _of(query, of)
        .outerjoin(review, review.c.effect_id == table.c.effect_id)
        .order_by(table.c.created_us, table.c.effect_id)
    )


def _of(query: Select[*Columns], of: Scope) -> Select[*Columns]:
    """Restrict a question about effects to the writes of a scope, undos left out."""
    return (
        query.select_from(table)
        .join(run, run.c.run_id == table.c.run_id)
        .where(*_runs(of), table.c.is_write, table.c.compensates.is_(None))
    )


def _runs(of: Scope) -> tuple[ColumnElement[bool], ...]:
    return (
        run.c.tenant == of.tenant,
        run.c.workflow == of.workflow,
        run.c.environment == of.environment,
        run.c.release >= of.release,
    )


def _judged(tx: Tx, query: Select[str, int, bool | None]) -> list[Judged]:
    rows = tx.connection.execute(query)
    return [
        Judged(effect_id=EffectId(effect_id), at_us=at_us, is_agreed=is_agreed)
        for effect_id, at_us, is_agreed in rows
    ]


def _count(tx: Tx, query: Select[int]) -> int:
    return int(tx.connection.execute(query).scalar_one())
