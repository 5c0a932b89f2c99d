"""Approvals: a person's answer to exactly one call, bound to its digest, used once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from interlock.domain.ids import ApprovalId, DecisionId, EffectId, RunId, StepName

MOST_PEOPLE = 5
"""So many different people of one team may be asked for one call."""
_NEXT = "#"
_ORDINALS = ("", "", "a second person of ", "a third person of ", "a fourth person of ")


def groups_of(team: str, people: int) -> tuple[str, ...]:
    """Return the groups that stand for so many different people of a team.

    Each is asked by itself, and answers for itself; who answers for one may not for another.

    >>> groups_of("finance", 2)
    ('finance', 'finance#2')
    """
    return (team, *(f"{team}{_NEXT}{number}" for number in range(2, people + 1)))


def team_of(group: str) -> str:
    """Return the team whose people answer for a group."""
    return group.partition(_NEXT)[0]


def in_words(group: str) -> str:
    """Return a group for people.

    >>> in_words("finance#2")
    'a second person of finance'
    """
    team, _, number = group.partition(_NEXT)
    if not number:
        return team
    place = int(number)
    return f"{_ORDINALS[place]}{team}" if place < len(_ORDINALS) else f"a fifth person of {team}"


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
