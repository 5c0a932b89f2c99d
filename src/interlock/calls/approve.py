"""Station 3, approve: a call that needs people waits for them without a thread.

`ask` opens the approvals in the transaction of the decision, `hear` waits for the answers,
`answer` is what a person's sign-in leads to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from interlock.calls import protocol
from interlock.calls.durable import Dispatch, Durable
from interlock.calls.road import WITHDRAWN, Call, Live, view_of
from interlock.domain.approval import Approval, ApprovalState, team_of
from interlock.domain.canonical import Json
from interlock.domain.canonical import digest as digest_of
from interlock.domain.decision import Decision, Outcome
from interlock.domain.effect import Effect, EffectState, Evidence
from interlock.domain.errors import ConflictError, ForbiddenError, InputError
from interlock.domain.ids import ApprovalId, DecisionId, StepName
from interlock.domain.principal import Principal, PrincipalKind, Role, Seat
from interlock.domain.run import Expired, Run
from interlock.observe import emit
from interlock.store import approvals, effects, reviews, runs, spans, waits
from interlock.store.engine import Database
from interlock.store.tx import Tx

WAITING = frozenset({EffectState.PROPOSED, EffectState.AUTHORIZED})
"""States of a call that may wait for people."""
_REFUSED = {
    ApprovalState.REJECTED: "approval.rejected",
    ApprovalState.EXPIRED: "approval.expired",
}


def ask(
    tx: Tx,
    live: Live,
    run: Run,
    effect: Effect,
    *,
    decision: Decision,
    decision_id: DecisionId,
    ttl_us: int,
    planner: Seat | None = None,
    plan: StepName | None = None,
) -> None:
    """Open one approval per group that is not asked yet; those for another digest become void.

    `plan` is the plan whose preview asks. Whoever answers for `planner`, who worded the call, is
    barred like the sponsors of its seats.
    """
    # INVARIANT: a row gets its digest in the same transaction, before anyone is asked.
    assert effect.call_digest is not None
    approvals.void_for_effect(tx, effect.effect_id, except_digest=effect.call_digest)
    open_groups = {
        a.group
        for a in approvals.list_for_effect(tx, effect.effect_id)
        if a.digest == effect.call_digest
        and a.state in {ApprovalState.PENDING, ApprovalState.APPROVED}
        and a.expires_us > tx.now_us
    }
    seats = effect.seats if planner is None else (*effect.seats, planner)
    agents = [live.release.agents.get(seat.agent) for seat in seats]
    sponsors = sorted({agent.sponsor for agent in agents if agent is not None})
    for group in decision.groups:
        if group in open_groups:
            continue
        approval = Approval(
            approval_id=ApprovalId(tx.new_id()),
            run_id=run.run_id,
            effect_id=effect.effect_id,
            decision_id=decision_id,
            digest=effect.call_digest,
            group=group,
            state=ApprovalState.PENDING,
            asked_us=tx.now_us,
            expires_us=tx.now_us + ttl_us,
            requester=run.request.user,
            sponsors=tuple(sponsors),
            plan=plan,
        )
        approvals.put(tx, approval, tenant=effect.tenant)
        spans.put(tx, emit.approval_span(approval, call_key=effect.step_name))


async def hear(durable: Durable, call: Call) -> Call:
    """Wait until every open approval of the call is answered; one refusal ends the call.

    If one expired before the last was given, people are asked again: only they are waited for.
    One that was recalled is void, and its run is told so as if it had been answered.
    """

    def unheard(tx: Tx) -> list[Approval]:
        return [
            a
            for a in approvals.list_for_effect(tx, call.effect.effect_id)
            if a.digest == call.effect.call_digest
            and a.approval_id not in call.heard
            and (a.state is not ApprovalState.VOID or _is_recalled(tx, a))
        ]

    asked = await durable.read(unheard)
    for approval in asked:
        name = StepName(emit.approval_key(approval, call_key=call.effect.step_name))
        answer = await durable.wait(
            name, _topic(approval.approval_id), until_us=approval.expires_us
        )
        if isinstance(answer, Expired):
            return await _refuse(durable, call, approval.approval_id, ApprovalState.EXPIRED)
        # Only a refusal is taken from the signal: what was approved is read when it counts.
        word = answer.get("answer") if isinstance(answer, dict) else None
        if word == "reject":
            return await _refuse(durable, call, approval.approval_id, ApprovalState.REJECTED)
        if word == "withdraw":
            return replace(call, refusal=WITHDRAWN)
    return replace(call, heard=call.heard.union(a.approval_id for a in asked))


def withdraw(tx: Tx, effect: Effect, *, code: str, message: str) -> Effect:
    """Deny a call that waits for people; what they were asked, or have approved, becomes void."""
    approvals.void_for_effect(tx, effect.effect_id)
    after = protocol.step(view_of(effect, None), protocol.Decided(outcome=Outcome.DENY))
    denied = effects.move(
        tx,
        effect,
        replace(
            effect,
            state=after.state,
            error_code=code,
            error_message=message,
            outcome_us=tx.now_us,
        ),
    )
    spans.close(
        tx,
        effect.run_id,
        effect.step_name,
        end_us=tx.now_us,
        status=emit.effect_status(denied.state),
        error_code=code,
        attributes=emit.effect_outcome(denied),
    )
    return denied


def recall(tx: Tx, effect: Effect) -> list[str]:
    """Make what people are asked for a call void; return the topics that its run waits for.

    No topics if nobody can answer any more: then the run may be about to send it. Whoever recalls
    a call tells its run on these topics, in the same transaction: `{"answer": "withdraw"}`.
    """
    opened = [one for one in approvals.list_for_effect(tx, effect.effect_id) if is_open(tx, one)]
    if opened:
        approvals.void_for_effect(tx, effect.effect_id)
    return [_topic(approval.approval_id) for approval in opened]


def _is_recalled(tx: Tx, approval: Approval) -> bool:
    return waits.has_signal(tx, approval.run_id, _topic(approval.approval_id))


def is_open(tx: Tx, approval: Approval) -> bool:
    """Return whether people can answer an approval now."""
    return approval.state is ApprovalState.PENDING and approval.expires_us > tx.now_us


async def _refuse(
    durable: Durable, call: Call, approval_id: ApprovalId, state: ApprovalState
) -> Call:
    def deny(tx: Tx) -> Effect:
        approval = approvals.get(tx, approval_id)
        if approval.state is ApprovalState.PENDING:
            approval = approvals.expire(tx, approval_id)
            spans.put(tx, emit.approval_span(approval, call_key=call.effect.step_name))
            reviews.disagreed(tx, call.effect)
        effect = effects.get(tx, call.effect.effect_id)
        return withdraw(tx, effect, code=_REFUSED[state], message=_sentence(approval, state))

    return call.at(await durable.transact("call.decide", deny, tool=call.effect.tool))


def answer(
    db: Database,
    dispatch: Dispatch,
    approval_id: ApprovalId,
    *,
    by: Principal,
    answer: Literal["approve", "reject"],
    digest: str,
    reason: str | None = None,
) -> Approval:
    """Record a person's answer and wake the run, in one transaction.

    An answer to one approval of a plan's preview is the answer to all that the plan asks of that
    group. `digest` is the one that was shown. Raises `ForbiddenError` for the wrong person and
    `ConflictError` if the approval was answered, ran out, or its call changed, `InputError` for a
    rejection without a reason.
    """
    if answer == "reject" and not (reason and reason.strip()):
        raise InputError("say why: a rejection needs a reason, and the agent is told it")

    def record(tx: Tx) -> Approval:
        # The run first, as its own code locks: then neither waits for the other.
        run = runs.lock_any(tx, approvals.get(tx, approval_id).run_id)
        together = approvals.list_together(tx, approvals.get(tx, approval_id))
        shown = shown_digest(tx, approvals.get(tx, approval_id))
        for approval in together:
            check_person(tx, approval, run, by)
            _is_answerable(tx, approval, is_shown=digest == shown)
        state = ApprovalState.APPROVED if answer == "approve" else ApprovalState.REJECTED
        for approval in together:
            _record(tx, approval, state, by=by.name, reason=reason)
            topic = _topic(approval.approval_id)
            value: Json = {"answer": answer, "by": by.name, "reason": reason}
            dispatch.signal(tx, approval.run_id, topic, value, dedupe_key=topic)
        return approvals.get(tx, approval_id)

    return db.run("approval.answer", record)


def shown_digest(tx: Tx, approval: Approval) -> str:
    """Return what an answer has to repeat: the call's digest, or one over all calls of a plan's."""
    if approval.plan is None:
        return approval.digest
    together = approvals.list_together(tx, approval)
    bound: list[Json] = [[each.approval_id, each.digest] for each in together]
    return digest_of([approval.plan, bound])


def check_person(tx: Tx, approval: Approval, run: Run, by: Principal) -> None:
    """Raise `ForbiddenError` if this person may never answer this approval, with the reason."""
    team = team_of(approval.group)
    if by.kind is not PrincipalKind.USER or Role.APPROVER not in by.roles:
        msg = f"`{by.name}` is not an approver; only people with the role approver answer"
        raise ForbiddenError(msg)
    if by.tenant != run.request.tenant or team not in by.groups:
        msg = f"`{by.name}` is not in the group `{team}` that answers this approval"
        raise ForbiddenError(msg)
    if by.name in {approval.requester, *approval.sponsors}:
        msg = f"`{by.name}` requested this call or sponsors its agent and cannot approve it"
        raise ForbiddenError(msg)
    if any(each.answered_by == by.name for each in approvals.list_agreed(tx, approval)):
        msg = f"`{by.name}` has approved this call; another person of `{team}` has to as well"
        raise ForbiddenError(msg)


def _record(
    tx: Tx, approval: Approval, state: ApprovalState, *, by: str, reason: str | None
) -> None:
    answered = approvals.answer(tx, approval.approval_id, state=state, by=by, reason=reason)
    effect = effects.get(tx, approval.effect_id)
    spans.put(tx, emit.approval_span(answered, call_key=effect.step_name))
    effects.add_evidence(
        tx,
        Evidence(
            effect_id=effect.effect_id,
            attempt=effect.attempt,
            epoch=effect.epoch,
            kind=f"approval.{state}",
            detail={"approval": approval.approval_id, "group": approval.group, "reason": reason},
            by=by,
            at_us=tx.now_us,
        ),
    )
    if state is ApprovalState.REJECTED:
        reviews.disagreed(tx, effect)


def _is_answerable(tx: Tx, approval: Approval, *, is_shown: bool) -> None:
    if approval.state is not ApprovalState.PENDING:
        msg = f"the approval is `{approval.state}` already"
        raise ConflictError(msg)
    if approval.expires_us <= tx.now_us:
        msg = "the approval has expired; the call counts as refused"
        raise ConflictError(msg)
    if not is_shown:
        msg = "the call is not the one that was shown; open the approval again"
        raise ConflictError(msg)


def _sentence(approval: Approval, state: ApprovalState) -> str:
    if state is ApprovalState.EXPIRED:
        return f"nobody of `{team_of(approval.group)}` answered in time"
    why = f": {approval.answer_reason}" if approval.answer_reason else ""
    return f"`{approval.answered_by}` of `{team_of(approval.group)}` rejected the call{why}"


def _topic(approval_id: ApprovalId) -> str:
    return f"approval/{approval_id}"
