"""Decisions and approvals: what was asked and answered, and that an answer works once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest, Reason
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError, NotFoundError
from interlock.domain.ids import ApprovalId, DecisionId, EffectId, RunId, StepName, TenantId
from interlock.domain.record import object_to_json
from interlock.store import approvals, decisions, effects
from interlock.store.decisions import RecordedDecision
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.store_race import both
from tests.conformance.store_rows import SEAT, SECOND_US, TENANT, TOOL, approval, effect

RUN = RunId("run-1")
EFFECT = effect(RUN)
ASKED = approval(EFFECT)
REQUEST = PolicyRequest(
    seats=(SEAT,), environment="dev", tool=TOOL, arguments={"title": "x"}, facts=Facts(depth=1)
)
DECISION = Decision(
    outcome=Outcome.NEEDS_APPROVAL,
    reasons=(
        Reason(code="policy.approval", message="writes are approved", policy_id="approve"),
        Reason(code="policy.denied", message="no"),
    ),
    groups=("leads", "owners"),
    policy_version="p1",
    slice_version="s1",
)


def decide(tx: Tx, name: str, decision: Decision = DECISION) -> None:
    """Record a decision on the effect."""
    decisions.put(
        tx,
        decision_id=DecisionId(name),
        run_id=RUN,
        effect_id=EFFECT.effect_id,
        decision=decision,
        request=REQUEST,
        tool=TOOL,
        tool_version=2,
    )


def ask(db: Database, *asked: Approval) -> None:
    """Write approvals."""
    with db.transaction("ask") as tx:
        for each in asked:
            approvals.put(tx, each, tenant=TENANT)


def approve(tx: Tx, name: str = "a1") -> Approval:
    """Answer an approval with yes."""
    return approvals.answer(
        tx, ApprovalId(name), state=ApprovalState.APPROVED, by="linus", reason="fine"
    )


def test_decision_is_kept_with_its_question(db: Database, clock: ManualClock) -> None:
    """Outcome, reasons, groups, versions and the exact request come back, oldest first."""
    db.run("decide", lambda tx: decide(tx, "d1"))
    clock.advance(1)
    db.run("decide", lambda tx: decide(tx, "d2", Decision(outcome=Outcome.ALLOW, reasons=())))

    with db.reading() as tx:
        listed = decisions.list_for_effect(tx, EFFECT.effect_id)
        of_run = decisions.list_for_run(tx, RUN)
        of_none = decisions.list_for_run(tx, RunId("absent"))

    first = RecordedDecision(
        decision_id=DecisionId("d1"),
        run_id=RUN,
        effect_id=EFFECT.effect_id,
        seats=(SEAT,),
        tool=TOOL,
        tool_version=2,
        decision=DECISION,
        request=object_to_json(REQUEST),
        at_us=START_US,
    )
    assert first == listed[0]
    assert Outcome.ALLOW == listed[1].decision.outcome
    assert (listed, []) == (of_run, of_none)


def test_approval_comes_back_as_it_was_asked(db: Database) -> None:
    """An approval is read by id and by effect; an unknown one raises."""
    ask(db, ASKED)

    with db.reading() as tx:
        assert ASKED == approvals.get(tx, ASKED.approval_id)
        assert [ASKED] == approvals.list_for_effect(tx, EFFECT.effect_id)
        with pytest.raises(NotFoundError):
            approvals.get(tx, ApprovalId("absent"))


def test_open_approvals_are_those_of_the_groups(db: Database) -> None:
    """Pending ones of the tenant and groups, oldest first; answered ones only in the full list."""
    later = replace(approval(EFFECT, "a2"), asked_us=START_US + 1, group="owners")
    ask(db, later, ASKED, replace(ASKED, approval_id=ApprovalId("a3"), asked_us=START_US + 2))
    db.run("answer", lambda tx: approve(tx, "a3"))

    with db.reading() as tx:
        found = {
            "any": approvals.list_open(tx, tenant=TENANT),
            "leads": approvals.list_open(tx, tenant=TENANT, groups=("leads",)),
            "none": approvals.list_open(tx, tenant=TENANT, groups=()),
            "foreign": approvals.list_open(tx, tenant=TenantId("other")),
            "all": approvals.list_approvals(tx, tenant=TENANT),
            "approved": approvals.list_approvals(
                tx, tenant=TENANT, states=(ApprovalState.APPROVED,)
            ),
        }

    assert {name: [a.approval_id for a in listed] for name, listed in found.items()} == {
        "any": ["a1", "a2"],
        "leads": ["a1"],
        "none": [],
        "foreign": [],
        "all": ["a3", "a2", "a1"],
        "approved": ["a3"],
    }


def test_approvals_of_one_plan_and_group_belong_together(db: Database) -> None:
    """One answer is for all that a plan asks of a group; one without a plan stands alone."""
    of_plan = [
        replace(approval(EFFECT, name), plan=StepName("act/plan.1")) for name in ("p1", "p2")
    ]
    others = [
        ASKED,
        replace(of_plan[0], approval_id=ApprovalId("p3"), group="others"),
        replace(of_plan[0], approval_id=ApprovalId("p4"), plan=StepName("act/plan.2")),
        replace(of_plan[0], approval_id=ApprovalId("p5"), run_id=RunId("another")),
    ]
    ask(db, *of_plan, *others)

    with db.reading() as tx:
        assert of_plan == approvals.list_together(tx, of_plan[1])
        assert [ASKED] == approvals.list_together(tx, ASKED)


def test_answer_is_kept(db: Database, clock: ManualClock) -> None:
    """An answer has its person, reason and time."""
    ask(db, ASKED)
    clock.advance(1)

    answered = db.run("answer", approve)

    expected = replace(
        ASKED,
        state=ApprovalState.APPROVED,
        answered_us=START_US + SECOND_US,
        answered_by="linus",
        answer_reason="fine",
    )
    assert expected == answered
    with db.reading() as tx:
        assert expected == approvals.get(tx, ASKED.approval_id)


def test_approval_is_answered_once(db: Database) -> None:
    """A second answer, and an expiry after it, are conflicts."""
    ask(db, ASKED)
    db.run("answer", approve)

    with pytest.raises(ConflictError, match="`approved` already"):
        db.run("answer", approve)
    with pytest.raises(ConflictError):
        db.run("expire", lambda tx: approvals.expire(tx, ASKED.approval_id))


def test_of_two_answers_at_once_one_counts(db: Database) -> None:
    """Two people who answer at the same moment: one of them is told so."""
    ask(db, ASKED)

    def answer(tx: Tx) -> bool:
        try:
            approve(tx)
        except ConflictError:
            return False
        return True

    assert {True, False} == set(both(db, answer))


def test_answer_after_the_end_is_refused(db: Database, clock: ManualClock) -> None:
    """From `expires_us` on nobody can answer, and the approval can be closed as expired."""
    ask(db, ASKED)
    clock.advance(3600)

    with pytest.raises(ConflictError, match="expired"):
        db.run("answer", approve)
    closed = db.run("expire", lambda tx: approvals.expire(tx, ASKED.approval_id))

    assert replace(ASKED, state=ApprovalState.EXPIRED) == closed


def test_changed_call_voids_what_was_not_used(db: Database) -> None:
    """Pending and approved ones of another digest become void; used and rejected ones stay."""
    names = ["pending", "approved", "used", "rejected", "same"]
    ask(db, *(replace(ASKED, approval_id=ApprovalId(name)) for name in names))
    with db.transaction("set up") as tx:
        for name in ("approved", "used"):
            approve(tx, name)
        approvals.use(tx, ApprovalId("used"), EFFECT.effect_id, 1)
        approvals.answer(
            tx, ApprovalId("rejected"), state=ApprovalState.REJECTED, by="x", reason=None
        )
    ask(db, replace(ASKED, approval_id=ApprovalId("new"), digest="sha256:new"))

    n = db.run(
        "void",
        lambda tx: approvals.void_for_effect(tx, EFFECT.effect_id, except_digest="sha256:new"),
    )

    with db.reading() as tx:
        states = {
            a.approval_id: str(a.state) for a in approvals.list_for_effect(tx, EFFECT.effect_id)
        }
    assert n == 3
    assert states == {
        "pending": "void",
        "approved": "void",
        "used": "approved",
        "rejected": "rejected",
        "same": "void",
        "new": "pending",
    }


def valid(db: Database, digest: str = "sha256:call") -> list[str]:
    """Return the ids of the approvals that let the effect's call go now."""
    with db.reading() as tx:
        found = approvals.list_valid(tx, EFFECT.effect_id, digest, now_us=tx.now_us)
    return [a.approval_id for a in found]


def test_approval_is_valid_for_its_digest_until_it_ends(db: Database, clock: ManualClock) -> None:
    """It must be given, for exactly this digest, and not be expired."""
    ask(db, ASKED)
    pending = valid(db)
    db.run("answer", approve)

    approved, other_digest = valid(db), valid(db, "sha256:other")
    clock.advance(3600)

    assert ([], ["a1"], [], []) == (pending, approved, other_digest, valid(db))


def test_approval_is_used_by_one_effect(db: Database) -> None:
    """A later attempt of the same effect keeps the use; another effect is refused."""
    ask(db, ASKED)

    with db.transaction("use") as tx:
        approvals.use(tx, ASKED.approval_id, EFFECT.effect_id, 1)
        approvals.use(tx, ASKED.approval_id, EFFECT.effect_id, 2)
        with pytest.raises(ConflictError, match="used already"):
            approvals.use(tx, ASKED.approval_id, EffectId("other"), 1)


def test_use_counts_again_unless_the_attempt_was_found_absent(db: Database) -> None:
    """After a definite failure the approval holds; after `confirmed_absent` a new one is needed."""
    ask(db, ASKED)
    with db.transaction("use") as tx:
        approve(tx)
        effects.insert(tx, EFFECT)
        approvals.use(tx, ASKED.approval_id, EFFECT.effect_id, 1)

    found = []
    row = EFFECT
    for state in (EffectState.FAILED_DEFINITE, EffectState.CONFIRMED_ABSENT):
        after = replace(row, state=state)
        row = db.run("move", lambda tx, row=row, after=after: effects.move(tx, row, after))  # type: ignore[misc]
        found.append(valid(db))

    assert [["a1"], []] == found
