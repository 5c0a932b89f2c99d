"""Values that the store's conformance suite writes, with the members that a test does not name."""

from __future__ import annotations

from dataclasses import replace

from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import (
    AgentName,
    ApprovalId,
    DecisionId,
    ExecutorId,
    RunId,
    StepName,
    TenantId,
    ToolName,
    WorkflowName,
    effect_id_of,
    idempotency_key_of,
)
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.run import Run, RunState, StartRequest, TriggerRef
from interlock.domain.tool import EffectClass
from interlock.store import runs, triggers
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.clock import START_US

TENANT = TenantId("default")
WORKFLOW = WorkflowName("triage")
TOOL = ToolName("desk.issue.create")
WORKER = ExecutorId("worker-1")
OTHER_WORKER = ExecutorId("worker-2")
SEAT = Seat(workflow=WORKFLOW, agent=AgentName("resolver"))
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US


def request(key: str = "k1", *, parent: Run | None = None) -> StartRequest:
    """Return a request for a run of the workflow, or for a child of `parent`."""
    start = StartRequest(
        workflow=WORKFLOW,
        workflow_version=3,
        release=1,
        environment="dev",
        tenant=TENANT,
        department="it",
        trigger=TriggerRef(kind="webhook", source="desk", key=key),
        input={"issue": 7, "text": "VPN is down"},
        seats=(SEAT,),
        deciding=(SEAT,),
        user="ada",
        labels=Labels(names=frozenset({"internal"})),
        deadline_us=START_US + HOUR_US,
    )
    if parent is None:
        return start
    root_id = parent.request.root_id
    depth = parent.request.depth + 1
    return replace(start, parent_id=parent.run_id, root_id=root_id, depth=depth)


def accepted(tx: Tx, key: str = "k1", *, parent: Run | None = None) -> Run:
    """Accept a run and return it, queued."""
    run_id, _ = triggers.accept(tx, request(key, parent=parent), body_digest="sha256:1")
    return runs.get(tx, run_id)


def running(db: Database, key: str = "k1", *, parent: Run | None = None) -> Run:
    """Accept a run, let the worker claim it, and return it."""

    def start(tx: Tx) -> Run:
        run = accepted(tx, key, parent=parent)
        claimed = runs.claim(tx, run.run_id, segment=0, executor_id=WORKER)
        assert claimed is not None
        return claimed

    return db.run("test.start", start)


def ended(db: Database, key: str = "k1", *, parent: Run | None = None) -> RunId:
    """Let a run succeed, and return its id."""
    run = running(db, key, parent=parent)
    db.run("test.end", lambda tx: runs.finish(tx, run.run_id, epoch=1, state=RunState.SUCCEEDED))
    return run.run_id


def effect(run_id: RunId, step: str = "file") -> Effect:
    """Return the proposed effect of one step of a run."""
    step_name = StepName(step)
    effect_id = effect_id_of(run_id, step_name)
    return Effect(
        effect_id=effect_id,
        run_id=run_id,
        step_name=step_name,
        tenant=TENANT,
        environment="dev",
        workflow=WORKFLOW,
        seats=(SEAT,),
        tool=TOOL,
        tool_version=2,
        pin="sha256:pin",
        effect_class=EffectClass.KEYED,
        is_write=True,
        arguments={"title": "VPN is down"},
        args_digest="sha256:args",
        state=EffectState.PROPOSED,
        epoch=1,
        attempt=0,
        created_us=START_US,
        idem_key=idempotency_key_of(effect_id),
        key_hash="key-hash",
        key_text="vpn is down",
    )


def intent(run_id: RunId, step: str = "file", *, at_us: int = START_US) -> Effect:
    """Return the effect of one step of a run with its intent written at a moment."""
    proposed = effect(run_id, step)
    return replace(proposed, state=EffectState.INTENT, attempt=1, created_us=at_us, intent_us=at_us)


def approval(of: Effect, name: str = "a1") -> Approval:
    """Return a pending approval of an effect by the group `leads`."""
    return Approval(
        approval_id=ApprovalId(name),
        run_id=of.run_id,
        effect_id=of.effect_id,
        decision_id=DecisionId("d1"),
        digest="sha256:call",
        group="leads",
        state=ApprovalState.PENDING,
        asked_us=START_US,
        expires_us=START_US + HOUR_US,
        requester="ada",
        sponsors=("grace",),
    )
