"""Spans as values: one builder per kind, which fixes key, parent, name and attributes.

A span's key is unique in its run and the same on every replay, so that writing it again updates
one row. The root's key is `run`, an agent's the name of its step, a tool call's the step name of
its effect; what belongs to a call hangs below it as `<call>#decide.<n>` and so on. Builders take
`end_us` where the span may be closed at once; otherwise `store.spans.close` closes it later.
"""

from __future__ import annotations

from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Decision
from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import AgentName, DecisionId, RunId, StepName
from interlock.domain.plan import CheckedPlan
from interlock.domain.principal import Seat
from interlock.domain.run import Run, RunState
from interlock.domain.tool import Binding, HttpRequest, McpCall
from interlock.domain.trace import ModelUse, Span, SpanKind, SpanStatus
from interlock.domain.workflow import FailureMode
from interlock.observe import semconv

ROOT_KEY = "run"

_FAILED_EFFECTS = frozenset(
    {
        EffectState.FAILED_DEFINITE,
        EffectState.AMBIGUOUS,
        EffectState.PARKED,
        EffectState.CONFIRMED_ABSENT,
        EffectState.ABANDONED,
    }
)


def workflow_span(run: Run, *, autonomy_level: int | None = None) -> Span:
    """Return the root span of a run, closed if the run has ended."""
    request = run.request
    return Span(
        run_id=run.run_id,
        key=ROOT_KEY,
        parent_key=None,
        kind=SpanKind.WORKFLOW,
        name=f"{semconv.INVOKE_WORKFLOW} {request.workflow}",
        start_us=_first(run.started_us, run.created_us),
        end_us=run.ended_us,
        status=SpanStatus.ERROR if run.state is RunState.FAILED else SpanStatus.OK,
        error_code=run.error_code,
        attributes=_present(
            {
                semconv.OPERATION_NAME: semconv.INVOKE_WORKFLOW,
                semconv.WORKFLOW_NAME: request.workflow,
                semconv.WORKFLOW_VERSION: request.workflow_version,
                semconv.RELEASE: request.release,
                semconv.TENANT: request.tenant,
                semconv.ENVIRONMENT: request.environment,
                semconv.TRIGGER_KIND: request.trigger.kind,
                semconv.TRIGGER_SOURCE: request.trigger.source,
                semconv.TRIGGER_ID: request.trigger.key,
                semconv.AUTONOMY_LEVEL: autonomy_level,
                semconv.END_STATE: run.end_state,
            }
        ),
    )


def agent_span(
    run_id: RunId, step: str, *, seat: Seat, start_us: int, agent_version: int | None = None
) -> Span:
    """Return the open span of an agent at work in a step."""
    return Span(
        run_id=run_id,
        key=step,
        parent_key=ROOT_KEY,
        kind=SpanKind.AGENT,
        name=f"{semconv.INVOKE_AGENT} {seat.agent}",
        start_us=start_us,
        attributes=_present(
            {
                semconv.OPERATION_NAME: semconv.INVOKE_AGENT,
                semconv.AGENT_NAME: seat.agent,
                semconv.AGENT_ID: None
                if agent_version is None
                else f"{seat.agent}@{agent_version}",
                semconv.SEAT: str(seat),
                semconv.STEP: step,
            }
        ),
    )


def step_span(run_id: RunId, step: str, *, start_us: int) -> Span:
    """Return the open span of a step that is no agent, hand-off or wait: a plain tool call."""
    return Span(
        run_id=run_id,
        key=step,
        parent_key=ROOT_KEY,
        kind=SpanKind.STEP,
        name=f"{SpanKind.STEP} {step}",
        start_us=start_us,
        attributes={semconv.STEP: step},
    )


def model_span(
    run_id: RunId, key: StepName, *, parent_key: str, provider: str, model: str, start_us: int
) -> Span:
    """Return the open span of one model request; `key` is the name of its step."""
    return Span(
        run_id=run_id,
        key=key,
        parent_key=parent_key,
        kind=SpanKind.MODEL,
        name=f"{semconv.CHAT} {model}",
        start_us=start_us,
        attributes={
            semconv.OPERATION_NAME: semconv.CHAT,
            semconv.PROVIDER_NAME: provider,
            semconv.REQUEST_MODEL: model,
        },
    )


def model_outcome(use: ModelUse) -> JsonObject:
    """Return the attributes that close a model span."""
    return {
        semconv.PROVIDER_NAME: use.provider,
        semconv.RESPONSE_MODEL: use.model,
        semconv.INPUT_TOKENS: use.input_tokens,
        semconv.OUTPUT_TOKENS: use.output_tokens,
        semconv.COST: use.cost_micro_usd,
        semconv.COST_ESTIMATED: use.is_estimated,
        semconv.PRICE_VERSION: use.price_version,
    }


def tool_span(effect: Effect, *, parent_key: str, end_us: int | None = None) -> Span:
    """Return the span of one tool call as its effect stands now."""
    is_compensation = effect.compensates is not None
    return Span(
        run_id=effect.run_id,
        key=effect.step_name,
        parent_key=parent_key,
        kind=SpanKind.COMPENSATE if is_compensation else SpanKind.TOOL,
        name=f"{SpanKind.COMPENSATE if is_compensation else semconv.EXECUTE_TOOL} {effect.tool}",
        start_us=effect.created_us,
        end_us=end_us,
        status=effect_status(effect.state),
        error_code=effect.error_code,
        effect_id=effect.effect_id,
        cost_micro_usd=effect.cost_micro_usd,
        attributes=_present(
            {
                semconv.OPERATION_NAME: semconv.EXECUTE_TOOL,
                semconv.TOOL_NAME: effect.tool,
                semconv.TOOL_CALL_ID: effect.effect_id,
                semconv.TOOL_VERSION: effect.tool_version,
                semconv.CALL_DIGEST: effect.call_digest,
                semconv.SEAT: str(effect.seats[-1]) if effect.seats else None,
                semconv.EFFECT_CLASS: effect.effect_class.value,
                semconv.EFFECT_COMPENSATES: effect.compensates,
            }
        )
        | effect_outcome(effect),
    )


def effect_outcome(effect: Effect) -> JsonObject:
    """Return the attributes that say how an effect stands; they close its tool and send spans."""
    return {semconv.EFFECT_STATE: effect.state.value, semconv.EFFECT_ATTEMPT: effect.attempt}


def effect_status(state: EffectState) -> SpanStatus:
    """Return `error` if the call failed or its outcome is unknown; a refusal is no error."""
    return SpanStatus.ERROR if state in _FAILED_EFFECTS else SpanStatus.OK


def decide_span(
    effect: Effect,
    decision: Decision,
    *,
    n: int,
    decision_id: DecisionId,
    start_us: int,
    end_us: int,
) -> Span:
    """Return the closed span of the n-th decision about a call."""
    return Span(
        run_id=effect.run_id,
        key=f"{effect.step_name}#decide.{n}",
        parent_key=effect.step_name,
        kind=SpanKind.DECIDE,
        name=SpanKind.DECIDE.value,
        start_us=start_us,
        end_us=end_us,
        effect_id=effect.effect_id,
        attributes={
            semconv.DECISION_ID: decision_id,
            semconv.DECISION_OUTCOME: decision.outcome.value,
            semconv.DECISION_POLICIES: list(decision.policy_ids),
            semconv.DECISION_GROUPS: list(decision.groups),
            semconv.POLICY_VERSION: decision.policy_version,
        },
    )


def approval_span(approval: Approval, *, call_key: StepName) -> Span:
    """Return the span of one approval, open while it is pending; a rejection is no error."""
    is_open = approval.state is ApprovalState.PENDING
    return Span(
        run_id=approval.run_id,
        key=approval_key(approval, call_key=call_key),
        parent_key=call_key,
        kind=SpanKind.APPROVAL,
        name=SpanKind.APPROVAL.value,
        start_us=approval.asked_us,
        end_us=None if is_open else _first(approval.answered_us, approval.expires_us),
        effect_id=approval.effect_id,
        attributes=_present(
            {
                semconv.APPROVAL_ID: approval.approval_id,
                semconv.APPROVAL_GROUP: approval.group,
                semconv.APPROVAL_ANSWER: None if is_open else approval.state.value,
            }
        ),
    )


def approval_key(approval: Approval, *, call_key: StepName) -> str:
    """Return the key of an approval's span."""
    return f"{call_key}#approval.{approval.approval_id}"


def send_span(effect: Effect, binding: Binding, *, start_us: int) -> Span:
    """Return the open span of one attempt to send a call; named like the request on the wire."""
    request = binding.tool.request
    named: dict[str, Json] = {}
    if isinstance(request, HttpRequest):
        name = f"{request.method} {request.path}"
        named = {semconv.HTTP_METHOD: request.method, semconv.URL_TEMPLATE: request.path}
    elif isinstance(request, McpCall):
        name = f"{semconv.TOOLS_CALL} {effect.tool}"
        named = {semconv.MCP_METHOD: semconv.TOOLS_CALL}
    else:
        name = f"{SpanKind.SEND} {effect.tool}"
    return Span(
        run_id=effect.run_id,
        key=send_key(effect),
        parent_key=effect.step_name,
        kind=SpanKind.SEND,
        name=name,
        start_us=start_us,
        effect_id=effect.effect_id,
        attributes={
            semconv.SERVER: binding.server.name,
            semconv.EFFECT_ID: effect.effect_id,
            semconv.EFFECT_CLASS: effect.effect_class.value,
        }
        | named
        | effect_outcome(effect),
    )


def send_key(effect: Effect) -> str:
    """Return the key of the span of an effect's current attempt."""
    return f"{effect.step_name}#send.{effect.attempt}"


def probe_span(
    effect: Effect, *, n: int, start_us: int, end_us: int | None = None, found: int | None = None
) -> Span:
    """Return the span of the n-th probe; `found` is how many records it found, None if unknown."""
    return Span(
        run_id=effect.run_id,
        key=f"{effect.step_name}#probe.{n}",
        parent_key=effect.step_name,
        kind=SpanKind.PROBE,
        name=SpanKind.PROBE.value,
        start_us=start_us,
        end_us=end_us,
        effect_id=effect.effect_id,
        attributes=_present({semconv.EFFECT_ID: effect.effect_id, semconv.PROBE_FOUND: found})
        | effect_outcome(effect),
    )


def handoff_span(run_id: RunId, step: str, *, agent: AgentName, start_us: int) -> Span:
    """Return the open span of a hand-off; what closes it links to the child run."""
    return Span(
        run_id=run_id,
        key=step,
        parent_key=ROOT_KEY,
        kind=SpanKind.HANDOFF,
        name=f"{SpanKind.HANDOFF} {agent}",
        start_us=start_us,
        attributes={semconv.AGENT_NAME: agent, semconv.STEP: step},
    )


def fallback_span(run_id: RunId, step: str, mode: FailureMode, *, code: str, at_us: int) -> Span:
    """Return the closed span that says which failure mode took over after a step failed."""
    return Span(
        run_id=run_id,
        key=f"{step}#fallback",
        parent_key=ROOT_KEY,
        kind=SpanKind.STEP,
        name=f"fallback {mode.then}" + (f" {mode.target}" if mode.target else ""),
        start_us=at_us,
        end_us=at_us,
        attributes=_present(
            {
                semconv.STEP: step,
                semconv.FALLBACK_CODE: code,
                semconv.FALLBACK_MODE: mode.code,
                semconv.FALLBACK_THEN: mode.then,
                semconv.FALLBACK_TARGET: mode.target,
                semconv.END_STATE: mode.end,
            }
        ),
    )


def plan_span(run_id: RunId, key: str, checked: CheckedPlan, *, step: str, at_us: int) -> Span:
    """Return the span of a plan from its check on: closed if it was refused; a refusal is no error.

    Its reasons stand in it whole, one line each.
    """
    is_refused = bool(checked.reasons)
    return Span(
        run_id=run_id,
        key=key,
        parent_key=step,
        kind=SpanKind.PLAN,
        name=f"{SpanKind.PLAN} {checked.planner}",
        start_us=at_us,
        end_us=at_us if is_refused else None,
        attributes={
            semconv.STEP: step,
            semconv.AGENT_NAME: checked.planner,
            semconv.PLAN_DIGEST: checked.digest,
            semconv.PLAN_NUMBER: checked.number,
            semconv.PLAN_CALLS: len(checked.calls),
            semconv.PLAN_VERDICT: "refused" if is_refused else "accepted",
            semconv.PLAN_REASONS: [str(reason) for reason in checked.reasons],
        },
    )


def wait_span(run_id: RunId, key: str, *, topic: str, start_us: int, due_us: int | None) -> Span:
    """Return the open span of a wait for an event or a time."""
    return Span(
        run_id=run_id,
        key=key,
        parent_key=ROOT_KEY,
        kind=SpanKind.WAIT,
        name=f"{SpanKind.WAIT} {topic}",
        start_us=start_us,
        attributes=_present({semconv.EVENT_NAME: topic, semconv.DUE_US: due_us}),
    )


def _present(attributes: dict[str, Json]) -> JsonObject:
    return {key: value for key, value in attributes.items() if value is not None}


def _first(*moments: int | None) -> int:
    return next((moment for moment in moments if moment is not None), 0)
