from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest, Reason
from interlock.domain.effect import EffectState
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import AgentName, DecisionId, RunId, StepName
from interlock.domain.record import object_to_json
from interlock.domain.run import Run
from interlock.domain.trace import Span, SpanStatus
from interlock.observe import bodies, emit, semconv, trace
from interlock.observe.trace import TraceNode
from interlock.store import decisions, runs, spans
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.clock import START_US
from tests.conformance import store_rows as rows
from tests.policy.project import binding_of, tool

CALL = "resolve/2/1/desk.issue.create"
DECIDED = Decision(
    outcome=Outcome.NEEDS_APPROVAL,
    reasons=(
        Reason(code="policy.needs_approval", message="Level 1", policy_id="autonomy-1"),
        Reason(code="policy.needs_approval", message="", policy_id="other"),
        Reason(code="policy.error", message="it failed"),
    ),
    groups=("leads",),
)


def put(db: Database, *written: Span) -> None:
    """Write spans in order."""

    def write(tx: Tx) -> None:
        for span in written:
            spans.put(tx, span)

    db.run("test.put", write)


def built(db: Database, run: Run) -> TraceNode:
    """Return the trace of a run."""
    with db.reading() as tx:
        return trace.build(tx, run.run_id)


def outline(node: TraceNode) -> list[tuple[str, str, str]]:
    """Return key, state and detail of a node and all below it."""
    return [(each.key, each.state, each.detail) for each in trace.walk(node)]


def write_call(tx: Tx, run: Run) -> None:
    """Write an agent's step with a model request and one call that waits for approval."""
    effect = replace(
        rows.effect(run.run_id, CALL), created_us=START_US + 2, state=EffectState.PROPOSED
    )
    decision_id = DecisionId(tx.new_id())
    decisions.put(
        tx,
        decision_id=decision_id,
        run_id=run.run_id,
        effect_id=effect.effect_id,
        decision=DECIDED,
        request=PolicyRequest(
            seats=(rows.SEAT,), environment="dev", tool=rows.TOOL, arguments={}, facts=Facts()
        ),
        tool=rows.TOOL,
        tool_version=2,
    )
    model = emit.model_span(
        run.run_id,
        StepName("resolve/2/model"),
        parent_key="resolve",
        provider="openai",
        model="gpt-x",
        start_us=START_US + 1,
    )
    tokens = {semconv.INPUT_TOKENS: 3, semconv.OUTPUT_TOKENS: 4}
    for span in (
        emit.workflow_span(run),
        # Written before what starts earlier: order is by start, not by writing.
        emit.tool_span(effect, parent_key="resolve"),
        emit.agent_span(run.run_id, "resolve", seat=rows.SEAT, start_us=START_US),
        replace(
            model, end_us=START_US + 3, cost_micro_usd=40, attributes=model.attributes | tokens
        ),
        emit.decide_span(
            effect,
            DECIDED,
            n=1,
            decision_id=decision_id,
            start_us=START_US + 3,
            end_us=START_US + 4,
        ),
        emit.approval_span(
            replace(rows.approval(effect), asked_us=START_US + 5), call_key=effect.step_name
        ),
    ):
        spans.put(tx, span)
    bodies.write_arguments(tx, effect, tool("desk.issue.create", input_schema={"type": "object"}))


def test_tree_nests_spans_in_order_with_their_states_and_reasons(db: Database) -> None:
    """A call that waits for approval shows who asked why, and what the model has cost."""
    run = rows.running(db)
    db.run("test.call", lambda tx: write_call(tx, run))

    node = built(db, run)

    assert [
        ("run", "running", ""),
        ("resolve", "open", ""),
        ("resolve/2/model", "ok", "3 tokens in, 4 out"),
        (CALL, "proposed", ""),
        (
            f"{CALL}#decide.1",
            "needs_approval",
            "Level 1 (autonomy-1); other; it failed",
        ),
        (f"{CALL}#approval.a1", "pending", "by leads"),
    ] == outline(node)
    assert 40 == node.total_micro_usd
    assert 0 == node.cost_micro_usd
    assert None is node.duration_us


def test_call_carries_stored_content_and_decision_its_reasons(db: Database) -> None:
    """The node of a call has its arguments, the node of a decision all reasons."""
    run = rows.running(db)
    db.run("test.call", lambda tx: write_call(tx, run))

    nodes = {node.key: node for node in trace.walk(built(db, run))}

    assert {"arguments": {"title": "VPN is down"}} == nodes[CALL].content
    assert DECIDED.reasons == nodes[f"{CALL}#decide.1"].reasons


def test_run_that_was_not_started_has_a_root(db: Database) -> None:
    """A queued run has a trace of one node."""
    run = db.run("test.accept", rows.accepted)

    assert [("run", "queued", "")] == outline(built(db, run))


def test_root_is_made_up_for_spans_without_one(db: Database) -> None:
    """Spans whose parent was not written hang below the root."""
    run = rows.running(db)
    put(db, replace(emit.step_span(run.run_id, "assign", start_us=START_US), parent_key="nowhere"))

    assert [("run", "running", ""), ("assign", "open", "")] == outline(built(db, run))


def test_child_run_hangs_below_the_handoff_that_links_to_it(db: Database) -> None:
    """A hand-off's node leads into the child's trace, and its cost counts at the root."""
    run = rows.running(db)
    child = rows.running(db, "k2", parent=run)
    handoff = emit.handoff_span(
        run.run_id,
        "resolve",
        agent=AgentName("resolver"),
        start_us=START_US,
    )
    put(
        db,
        emit.workflow_span(run),
        replace(
            handoff,
            end_us=START_US + 9,
            attributes={semconv.CHILD_RUN: child.run_id, semconv.CHILD_STATE: "succeeded"},
        ),
        replace(emit.workflow_span(child), cost_micro_usd=7),
    )

    node = built(db, run)

    assert [
        (run.run_id, "run", "running", ""),
        (run.run_id, "resolve", "succeeded", f"run {child.run_id}"),
        (child.run_id, "run", "running", ""),
    ] == [(each.run_id, each.key, each.state, each.detail) for each in trace.walk(node)]
    assert 7 == node.total_micro_usd
    assert 9 == node.children[0].duration_us


def test_child_run_without_link_hangs_below_the_root(db: Database) -> None:
    """Until the hand-off is joined the child is shown at the root."""
    run = rows.running(db)
    child = rows.running(db, "k2", parent=run)
    put(db, emit.workflow_span(run))

    assert [run.run_id, child.run_id] == [node.run_id for node in trace.walk(built(db, run))]


def test_send_and_error_say_where_and_why(db: Database) -> None:
    """A send names its server; a step that failed its code; an unlinked hand-off nothing."""
    run = rows.running(db)
    effect = replace(rows.effect(run.run_id, CALL), state=EffectState.INTENT, attempt=1)
    version = tool("desk.issue.create")
    put(
        db,
        emit.workflow_span(run),
        emit.send_span(effect, binding_of(version), start_us=START_US + 1),
        replace(
            emit.step_span(run.run_id, "assign", start_us=START_US + 2),
            end_us=START_US + 3,
            status=SpanStatus.ERROR,
            error_code="step.failed",
        ),
        emit.handoff_span(run.run_id, "later", agent=AgentName("a"), start_us=START_US + 3),
        emit.wait_span(run.run_id, "wait", topic="reply", start_us=START_US + 4, due_us=None),
    )

    assert [
        ("run", "running", ""),
        (f"{CALL}#send.1", "intent", "to desk-dev"),
        ("assign", "error", "step.failed"),
        ("later", "open", ""),
        ("wait", "open", ""),
    ] == outline(built(db, run))


def test_trace_has_a_json_form(db: Database) -> None:
    """REST and terminal read the tree as JSON."""
    run = rows.running(db)
    db.run("test.call", lambda tx: write_call(tx, run))

    rendered = object_to_json(built(db, run))

    assert ("invoke_workflow triage", "running") == (rendered["name"], rendered["state"])


def test_unknown_run_is_not_found(db: Database) -> None:
    """There is no trace of a run that is not there."""
    with db.reading() as tx, pytest.raises(NotFoundError):
        trace.build(tx, RunId("nope"))


def test_ended_run_shows_how_it_ended(db: Database) -> None:
    """The root's detail is the run's end state or error."""
    run = rows.running(db)

    def finish(tx: Tx) -> None:
        spans.put(tx, emit.workflow_span(run))
        runs.finish(tx, run.run_id, epoch=run.epoch, state=run.state.SUCCEEDED, end_state="routed")

    db.run("test.finish", finish)

    assert [("run", "succeeded", "routed")] == outline(built(db, run))
