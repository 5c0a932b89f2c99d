from __future__ import annotations

from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.ids import ApprovalId, DecisionId, EffectId, RunId


def test_asked_approval_is_answered_by_nobody() -> None:
    """A new row holds no answer, and only one of the states is a yes."""
    approval = Approval(
        approval_id=ApprovalId("a"),
        run_id=RunId("r"),
        effect_id=EffectId("e"),
        decision_id=DecisionId("d"),
        digest="sha256:0",
        group="it",
        state=ApprovalState.PENDING,
        asked_us=1,
        expires_us=2,
    )

    assert (None, None, None) == (
        approval.answered_by,
        approval.answered_us,
        approval.answer_reason,
    )
    assert {"pending", "approved", "rejected", "expired", "void"} == set(ApprovalState)
