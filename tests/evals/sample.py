"""A small suite and what was observed of it, for tests that judge."""

from __future__ import annotations

from dataclasses import replace

from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Outcome, Reason
from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import (
    AgentName,
    ApprovalId,
    DecisionId,
    EffectId,
    RunId,
    StepName,
    ToolName,
    WorkflowName,
)
from interlock.domain.principal import DEFAULT_TENANT, Seat
from interlock.domain.run import Run, RunState, StartRequest, TriggerRef
from interlock.domain.tool import EffectClass
from interlock.evals.observation import Observation, ObservedCall
from interlock.evals.suite import (
    Approvals,
    Case,
    Delivery,
    End,
    Expect,
    ExpectedWrite,
    Limits,
    Predicate,
    Program,
    Suite,
)
from interlock.store.decisions import RecordedDecision

SEAT = Seat(workflow=WorkflowName("desk"), agent=AgentName("resolver"))
RUN = RunId("run-1")
AT_US = 1_000_000

EXPECT = Expect(
    end=End(outcome="routed"),
    writes=(ExpectedWrite(tool="desk.issue.update", args={"id": "3"}),),
    approvals=Approvals(asked=1, given=1),
    world=(Predicate(at="tracker:/issues", where={"id": "3"}, has={"team": "netops"}),),
)
CASE = Case(id="routed", title="A ticket is routed", trigger=Delivery(), expect=EXPECT)
SUITE = Suite(
    suite="desk",
    project="..",
    workflow="desk",
    mode="deterministic",
    repeats=2,
    limits=Limits(steps=5, cost_micro_usd=100, wall_s=10),
    model=Program(serve=("model",)),
    world={"tracker": Program(serve=("tracker",), export=("export",))},
    references=("tracker:/issues/*/reference",),
    cases=(CASE,),
)


def call(
    name: str = "c1",
    *,
    tool: str = "desk.issue.update",
    state: EffectState = EffectState.SUCCEEDED,
    arguments: JsonObject | None = None,
    key_hash: str | None = None,
    is_write: bool = True,
    traits: frozenset[str] = frozenset({"write"}),
    approved: ApprovalState | None = None,
    outcome: Outcome = Outcome.ALLOW,
    policy: str = "grant",
) -> ObservedCall:
    """Return a call that was decided, and sent if it was allowed."""
    is_sent = outcome is Outcome.ALLOW
    effect = Effect(
        effect_id=EffectId(name),
        run_id=RUN,
        step_name=StepName(f"resolve/1/{name}"),
        tenant=DEFAULT_TENANT,
        environment="dev",
        workflow="desk",
        seats=(SEAT,),
        tool=ToolName(tool),
        tool_version=1,
        pin="pin",
        effect_class=EffectClass.CONDITIONAL,
        is_write=is_write,
        arguments={"id": "3", "team": "netops"} if arguments is None else arguments,
        args_digest="digest",
        state=state,
        epoch=1,
        attempt=1,
        created_us=AT_US,
        idem_key=name,
        key_hash=key_hash,
        key_text=key_hash,
        decision_id=DecisionId(f"d-{name}"),
        intent_us=AT_US if is_sent else None,
        error_code=None if is_sent else "policy.denied",
    )
    decided = RecordedDecision(
        decision_id=DecisionId(f"d-{name}"),
        run_id=RUN,
        effect_id=EffectId(name),
        seats=(SEAT,),
        tool=tool,
        tool_version=1,
        decision=Decision(
            outcome=outcome,
            reasons=(Reason(code="policy", message="why", policy_id=policy),),
            policy_version="p1",
        ),
        request={},
        at_us=AT_US,
    )
    asked = () if approved is None else (_approval(name, approved),)
    return ObservedCall(effect=effect, decisions=(decided,), approvals=asked, traits=traits)


def run(
    *,
    run_id: RunId = RUN,
    state: RunState = RunState.SUCCEEDED,
    end_state: str | None = "routed",
    parent_id: RunId | None = None,
) -> Run:
    """Return a run that ended."""
    request = StartRequest(
        workflow=WorkflowName("desk"),
        workflow_version=1,
        release=1,
        environment="dev",
        tenant=DEFAULT_TENANT,
        department="it",
        trigger=TriggerRef(kind="webhook", source="desk", key="1"),
        input={},
        parent_id=parent_id,
    )
    return Run(
        run_id=run_id,
        request=request,
        state=state,
        epoch=1,
        segment=1,
        recoveries=0,
        created_us=AT_US,
        end_state=end_state,
    )


def _approval(name: str, state: ApprovalState) -> Approval:
    return Approval(
        approval_id=ApprovalId(f"a-{name}"),
        run_id=RUN,
        effect_id=EffectId(name),
        decision_id=DecisionId(f"d-{name}"),
        digest="digest",
        group="owners",
        state=state,
        asked_us=AT_US,
        expires_us=AT_US + 1,
    )


GOOD = Observation(
    runs=(run(), run(run_id=RunId("run-2"), parent_id=RUN, end_state=None)),
    calls=(
        call("c1", approved=ApprovalState.APPROVED),
        call("c2", tool="desk.issue.show", is_write=False, traits=frozenset({"read"})),
    ),
    world={"tracker": {"issues": [{"id": "3", "team": "netops", "reference": "c1"}, {"id": "4"}]}},
    steps=4,
    cost_micro_usd=90,
    wall_s=1.5,
    policy_versions=("p1",),
)


def good(**changes: object) -> Observation:
    """Return an observation that passes, but for some members."""
    return replace(GOOD, **changes)  # type: ignore[arg-type]  # the members' types differ
