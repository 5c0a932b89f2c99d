"""Approvals: a person's answer to exactly one call, bound to its digest, used once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from interlock.domain.ids import ApprovalId, DecisionId, EffectId, RunId, StepName


class ApprovalState(StrEnum):
    """Pending until answered, expired (a refusal) or void (the call changed)."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One row: the call's digest, the group that may answer, and the answer.

    `requester` is the person for whom the run acts, `sponsors` (sorted) are those of the agents in
    the call's chain, and of its planner: none of them may answer. `plan` names the plan whose
    preview asks for it: all approvals that one plan asks of one group are answered together.
    """

    approval_id: ApprovalId
    run_id: RunId
    effect_id: EffectId
    decision_id: DecisionId
    digest: str
    group: str
    state: ApprovalState
    asked_us: int
    expires_us: int
    requester: str | None = None
    sponsors: tuple[str, ...] = ()
    answered_us: int | None = None
    answered_by: str | None = None
    answer_reason: str | None = None
    plan: StepName | None = None
