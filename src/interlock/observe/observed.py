"""What policies in observe mode would have said, policy by policy, from the decisions recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

from interlock.domain.decision import Outcome
from interlock.domain.ids import TenantId
from interlock.store import decisions
from interlock.store.tx import Tx

EXAMPLES = 3
"""How many calls are named for each policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPolicy:
    """Where a policy would have held; `let_through` are the calls that were allowed all the same.

    `examples` are the last of those, calls or else decisions on requests to models.
    """

    policy_id: str
    why: str
    calls: int
    runs: int
    let_through: int
    tools: tuple[str, ...]
    examples: tuple[str, ...]


@dataclass(slots=True)
class _Found:
    why: str = ""
    calls: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    tools: set[str] = field(default_factory=set)
    let_through: dict[str, None] = field(default_factory=dict)


def observed_since(tx: Tx, tenant: TenantId, since_us: int) -> tuple[ObservedPolicy, ...]:
    """Return the policies that would have held since a moment, those with most calls first."""
    every: dict[str, _Found] = {}
    for row in decisions.list_observed(tx, tenant, since_us):
        call = row.effect_id or row.decision_id
        for reason in row.decision.observed:
            found = every.setdefault(reason.policy_id or reason.code, _Found())
            found.why = reason.message
            found.calls.add(call)
            found.runs.add(row.run_id)
            found.tools.add(row.tool)
            if row.decision.outcome is Outcome.ALLOW:
                found.let_through[call] = None
    told = [
        ObservedPolicy(
            policy_id=policy_id,
            why=found.why,
            calls=len(found.calls),
            runs=len(found.runs),
            let_through=len(found.let_through),
            tools=tuple(sorted(found.tools)),
            examples=tuple(found.let_through)[-EXAMPLES:],
        )
        for policy_id, found in every.items()
    ]
    return tuple(sorted(told, key=lambda each: (-each.calls, each.policy_id)))
