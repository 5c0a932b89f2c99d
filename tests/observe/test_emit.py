from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.approval import ApprovalState
from interlock.domain.decision import Decision, Outcome, Reason
from interlock.domain.effect import EffectState
from interlock.domain.ids import AgentName, DecisionId, EffectId, RunId, StepName
from interlock.domain.run import Run, RunState
from interlock.domain.tool import ConnectorKind, HttpRequest, McpCall
from interlock.domain.trace import ModelUse, Span, SpanKind, SpanStatus
from interlock.domain.workflow import FailureMode
from interlock.observe import emit, semconv
from tests.conformance import store_rows as rows
from tests.policy.project import binding_of, tool

RUN_ID = RunId("0191a3c4-0000-7000-8000-000000000001")
RUN = Run(
    run_id=RUN_ID,
    request=rows.request(),
    state=RunState.RUNNING,
    epoch=1,
    segment=0,
    recoveries=0,
    created_us=5,
)
EFFECT = replace(rows.effect(RUN_ID, "resolve/2/1/desk.issue.create"), created_us=10)
DECISION = Decision(
    outcome=Outcome.NEEDS_APPROVAL,
    reasons=(Reason(code="policy.needs_approval", message="why", policy_id="b"),),
    groups=("leads",),
    policy_version="sha256:p",
)
USE = ModelUse(
    run_id=RUN_ID,
    span_key="resolve/2/model",
    provider="openai",
    model="gpt-x",
    input_tokens=3,
    output_tokens=4,
    cost_micro_usd=5,
    price_version="p/1",
    is_estimated=False,
    at_us=9,
)


HTTP = tool(
    "desk.issue.create",
    connector=ConnectorKind.HTTP,
    request=HttpRequest(method="POST", path="/issues/{id}"),
)
MCP = tool("desk.issue.create", connector=ConnectorKind.MCP, request=McpCall(upstream="create"))
PYTHON = tool("desk.issue.create")


def every_span(*, late_us: int = 0) -> list[Span]:
    """Return one span of each builder, as it is built so much later."""
    approval = rows.approval(EFFECT)
    return [
        emit.workflow_span(RUN, autonomy_level=2),
        emit.agent_span(RUN_ID, "resolve", seat=rows.SEAT, start_us=6 + late_us, agent_version=3),
        emit.step_span(RUN_ID, "assign", start_us=6 + late_us),
        emit.model_span(
            RUN_ID,
            StepName("resolve/2/model"),
            parent_key="resolve",
            provider="openai",
            model="gpt-x",
            start_us=7 + late_us,
        ),
        emit.tool_span(EFFECT, parent_key="resolve"),
        emit.tool_span(replace(EFFECT, compensates=EffectId("e0")), parent_key="run"),
        emit.decide_span(
            EFFECT,
            DECISION,
            n=1,
            decision_id=DecisionId(f"d{late_us}"),
            start_us=10 + late_us,
            end_us=11 + late_us,
        ),
        emit.approval_span(approval, call_key=EFFECT.step_name),
        emit.approval_span(
            replace(approval, state=ApprovalState.APPROVED, answered_us=20),
            call_key=EFFECT.step_name,
        ),
        *(
            emit.send_span(EFFECT, binding_of(kind), start_us=12 + late_us)
            for kind in (HTTP, MCP, PYTHON)
        ),
        emit.probe_span(EFFECT, n=1, start_us=13 + late_us, found=0),
        emit.handoff_span(RUN_ID, "resolve", agent=AgentName("resolver"), start_us=6 + late_us),
        emit.fallback_span(
            RUN_ID, "resolve", FailureMode(code="*", then="stop"), code="x", at_us=14 + late_us
        ),
        emit.wait_span(RUN_ID, "wait", topic="reply", start_us=6 + late_us, due_us=60),
    ]


def test_every_attribute_that_is_emitted_is_in_the_table() -> None:
    """No span carries a key outside `semconv`."""
    closing = [emit.model_outcome(USE), emit.effect_outcome(EFFECT)]

    keys = {key for span in every_span() for key in span.attributes}
    keys |= {key for attributes in closing for key in attributes}

    assert set() == keys - set(semconv.ATTRIBUTES)


def test_spans_hold_only_plain_json() -> None:
    """Attributes are JSON as it is stored, not enumerations that look like it."""
    values = [value for span in every_span() for value in span.attributes.values()]

    assert {str, int, bool, list} >= {type(value) for value in values}


def test_replay_emits_the_same_keys() -> None:
    """Keys depend on names alone, not on when, so that replay updates rows."""
    first, replay = every_span(), every_span(late_us=100)

    assert [span.key for span in first] == [span.key for span in replay]
    assert first != replay


def test_spans_of_a_call_hang_below_it() -> None:
    """Decision, approval, send and probe are named after their call."""
    call = EFFECT.step_name

    below = {span.key: span.parent_key for span in every_span() if span.parent_key == call}

    assert {
        f"{call}#decide.1": call,
        f"{call}#approval.a1": call,
        f"{call}#send.0": call,
        f"{call}#probe.1": call,
    } == below


def test_run_that_ended_has_a_closed_root() -> None:
    """The root span takes times, end state and error of its run."""
    failed = replace(
        RUN, state=RunState.FAILED, started_us=6, ended_us=90, error_code="x", end_state="stuck"
    )

    span = emit.workflow_span(failed)

    assert ("run", None, 6, 90) == (span.key, span.parent_key, span.start_us, span.end_us)
    assert (SpanStatus.ERROR, "x") == (span.status, span.error_code)
    assert "stuck" == span.attributes[semconv.END_STATE]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (EffectState.DENIED, SpanStatus.OK),
        (EffectState.DRAFTED, SpanStatus.OK),
        (EffectState.SUCCEEDED, SpanStatus.OK),
        (EffectState.FAILED_DEFINITE, SpanStatus.ERROR),
        (EffectState.PARKED, SpanStatus.ERROR),
    ],
)
def test_refusal_is_no_error(state: EffectState, status: SpanStatus) -> None:
    """Only what failed or is unknown is an error."""
    assert status is emit.tool_span(replace(EFFECT, state=state), parent_key="run").status


def test_send_is_named_like_the_request_on_the_wire() -> None:
    """HTTP spans carry method and route, MCP spans the method."""
    names = [emit.send_span(EFFECT, binding_of(k), start_us=1).name for k in (HTTP, MCP, PYTHON)]

    assert [
        "POST /issues/{id}",
        "tools/call desk.issue.create",
        "interlock.send desk.issue.create",
    ] == names


def test_expired_approval_ends_when_it_expired() -> None:
    """An approval that nobody answered ends at its expiry, without error."""
    expired = replace(rows.approval(EFFECT), state=ApprovalState.EXPIRED)

    span = emit.approval_span(expired, call_key=EFFECT.step_name)

    assert (expired.expires_us, SpanStatus.OK) == (span.end_us, span.status)


def test_undo_is_a_span_of_its_own_kind() -> None:
    """A call that compensates another says so and names it."""
    span = emit.tool_span(replace(EFFECT, compensates=EffectId("e0")), parent_key="run")

    assert (SpanKind.COMPENSATE, "e0") == (
        span.kind,
        span.attributes[semconv.EFFECT_COMPENSATES],
    )


def test_call_without_seats_has_no_seat() -> None:
    """A value that is not there is left out, not null."""
    span = emit.tool_span(replace(EFFECT, seats=()), parent_key="run")

    assert semconv.SEAT not in span.attributes
