"""What one repeat of a case left behind: runs, calls and decisions of the ledger, and the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interlock.domain.approval import Approval
from interlock.domain.canonical import Json
from interlock.domain.effect import Effect
from interlock.domain.release import Release
from interlock.domain.run import Run
from interlock.domain.tool import Group, ToolVersion
from interlock.domain.trace import SpanKind
from interlock.store import approvals, decisions, effects, runs, spans
from interlock.store.decisions import RecordedDecision
from interlock.store.tx import Tx

MAX_RUNS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedCall:
    """One tool call: its row in the ledger, what was decided and asked, and its tool's traits."""

    effect: Effect
    decisions: tuple[RecordedDecision, ...]
    approvals: tuple[Approval, ...]
    traits: frozenset[str]

    @property
    def is_sent(self) -> bool:
        """Whether there is an intent, so that the outside may have seen it."""
        return self.effect.intent_us is not None

    @property
    def policy_ids(self) -> tuple[str, ...]:
        """The policies that determined the last decision."""
        return self.decisions[-1].decision.policy_ids if self.decisions else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that a verdict is made of; `world` holds each program's export, `steps` counts requests.

    `unanswered` are the groups that were asked and for which the case names nobody.
    """

    runs: tuple[Run, ...]
    calls: tuple[ObservedCall, ...]
    world: Mapping[str, Json]
    steps: int
    cost_micro_usd: int
    wall_s: float
    policy_versions: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()

    @property
    def roots(self) -> tuple[Run, ...]:
        """The runs that a trigger started."""
        return tuple(run for run in self.runs if run.request.parent_id is None)


def observe(
    tx: Tx,
    release: Release,
    *,
    world: Mapping[str, Json],
    wall_s: float,
    unanswered: tuple[str, ...] = (),
) -> Observation:
    """Read what an installation that served one case has recorded."""
    found = tuple(reversed(runs.list_runs(tx, limit=MAX_RUNS)))
    calls = tuple(
        ObservedCall(
            effect=effect,
            decisions=tuple(decisions.list_for_effect(tx, effect.effect_id)),
            approvals=tuple(approvals.list_for_effect(tx, effect.effect_id)),
            traits=_traits(release.tool_version(effect.tool, effect.tool_version)),
        )
        for run in found
        for effect in effects.list_for_run(tx, run.run_id)
    )
    requests = [
        span
        for run in found
        for span in spans.list_for_run(tx, run.run_id)
        if span.kind is SpanKind.MODEL
    ]
    roots = [run.run_id for run in found if run.request.parent_id is None]
    versions = {d.decision.policy_version for call in calls for d in call.decisions}
    return Observation(
        runs=found,
        calls=calls,
        world=world,
        steps=len(requests) + len(calls),
        cost_micro_usd=sum(spans.cost_of_tree(tx, root) for root in roots),
        wall_s=wall_s,
        policy_versions=tuple(sorted(versions - {""})),
        unanswered=unanswered,
    )


def _traits(tool: ToolVersion | None) -> frozenset[str]:
    """Return what a tool is to a suite; one that is not known may be anything."""
    if tool is None:
        return frozenset({"write", "destructive", "egress", "irreversible"})
    traits = {tool.group.value}
    traits |= {"write"} if tool.group is Group.DESTRUCTIVE else set()
    traits |= {"egress"} if tool.is_egress else set()
    traits |= {"irreversible"} if tool.is_irreversible else set()
    return frozenset(traits)
