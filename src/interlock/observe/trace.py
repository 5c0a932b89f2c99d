"""The trace of a run and the runs below it as one tree, for terminal, REST and console alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Reason
from interlock.domain.ids import EffectId, RunId
from interlock.domain.run import Run
from interlock.domain.trace import Span, SpanKind, SpanStatus
from interlock.observe import bodies, emit, semconv
from interlock.store import decisions, runs, spans
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceNode:
    """One span with what is below it, in order of start.

    `state` is one word (a run's or effect's state, a decision's outcome, an approval's answer, else
    `open`, `ok` or `error`), `detail` one line. `duration_us` is None while it is open.
    `cost_micro_usd` is its own, `total_micro_usd` with everything below. `reasons` are those of a
    decision; `content` is what was stored of arguments and result, redacted.
    """

    run_id: RunId
    key: str
    parent_key: str | None
    kind: SpanKind
    name: str
    state: str
    detail: str
    status: SpanStatus
    start_us: int
    end_us: int | None
    duration_us: int | None
    error_code: str | None
    effect_id: EffectId | None
    cost_micro_usd: int
    total_micro_usd: int
    attributes: JsonObject
    reasons: tuple[Reason, ...] = ()
    content: Mapping[str, Json] = field(default_factory=dict)
    children: tuple[TraceNode, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What belongs to the spans of one run."""

    run: Run
    reasons: Mapping[str, tuple[Reason, ...]]
    content: Mapping[str, Mapping[str, Json]]


def build(tx: Tx, run_id: RunId) -> TraceNode:
    """Return the tree of a run; raises `NotFoundError`.

    A child run hangs below the span that links to it, or below the root while that link is not
    written yet. A run that was not started has a root of its own making.
    """
    return _build(tx, runs.get(tx, run_id))


def walk(node: TraceNode) -> tuple[TraceNode, ...]:
    """Return a node and all below it, each before its children."""
    return (node, *(inner for child in node.children for inner in walk(child)))


def _build(tx: Tx, run: Run) -> TraceNode:
    written = spans.list_for_run(tx, run.run_id) or [emit.workflow_span(run)]
    known = _Known(
        run=run,
        reasons={
            decision.decision_id: decision.decision.reasons
            for decision in decisions.list_for_run(tx, run.run_id)
        },
        content=bodies.list_for_run(tx, run.run_id),
    )
    keys = {span.key for span in written}
    root = next((span for span in written if span.key == emit.ROOT_KEY), None)
    if root is None:
        root = emit.workflow_span(run)
        written = [root, *written]
    below: dict[str, list[Span]] = {}
    for span in written:
        if span.key != emit.ROOT_KEY:
            parent = span.parent_key if span.parent_key in keys else None
            below.setdefault(parent or emit.ROOT_KEY, []).append(span)
    children = {child.run_id: _build(tx, child) for child in runs.children(tx, run.run_id)}
    return _joined(root, below, children, known)


def _joined(
    root: Span,
    below: Mapping[str, list[Span]],
    children: dict[RunId, TraceNode],
    known: _Known,
) -> TraceNode:
    def nested(span: Span) -> TraceNode:
        nodes = [nested(inner) for inner in below.get(span.key, [])]
        linked = span.attributes.get(semconv.CHILD_RUN)
        if isinstance(linked, str) and (child := children.pop(RunId(linked), None)):
            nodes.append(child)
        return _node(span, known, nodes)

    node = nested(root)
    return _with_children(node, [*node.children, *children.values()])


def _node(span: Span, known: _Known, nodes: list[TraceNode]) -> TraceNode:
    decision_id = span.attributes.get(semconv.DECISION_ID)
    reasons = known.reasons.get(str(decision_id), ())
    node = TraceNode(
        run_id=span.run_id,
        key=span.key,
        parent_key=span.parent_key,
        kind=span.kind,
        name=span.name,
        state=_state(span, known.run),
        detail=_detail(span, known.run, reasons),
        status=span.status,
        start_us=span.start_us,
        end_us=span.end_us,
        duration_us=None if span.end_us is None else span.end_us - span.start_us,
        error_code=span.error_code,
        effect_id=span.effect_id,
        cost_micro_usd=span.cost_micro_usd,
        total_micro_usd=span.cost_micro_usd,
        attributes=span.attributes,
        reasons=reasons,
        content=known.content.get(span.key, {}),
    )
    return _with_children(node, nodes)


def _with_children(node: TraceNode, nodes: list[TraceNode]) -> TraceNode:
    ordered = sorted(nodes, key=lambda child: child.start_us)
    total = node.cost_micro_usd + sum(child.total_micro_usd for child in ordered)
    return replace(node, children=tuple(ordered), total_micro_usd=total)


_STATE_OF_KIND: Mapping[SpanKind, str] = {
    SpanKind.TOOL: semconv.EFFECT_STATE,
    SpanKind.COMPENSATE: semconv.EFFECT_STATE,
    SpanKind.SEND: semconv.EFFECT_STATE,
    SpanKind.PROBE: semconv.EFFECT_STATE,
    SpanKind.DECIDE: semconv.DECISION_OUTCOME,
    SpanKind.APPROVAL: semconv.APPROVAL_ANSWER,
    SpanKind.HANDOFF: semconv.CHILD_STATE,
    SpanKind.PLAN: semconv.PLAN_VERDICT,
}


def _state(span: Span, run: Run) -> str:
    if span.key == emit.ROOT_KEY:
        return run.state
    own = span.attributes.get(_STATE_OF_KIND.get(span.kind, ""))
    if isinstance(own, str):
        return own
    if span.end_us is not None:
        return span.status
    return "pending" if span.kind is SpanKind.APPROVAL else "open"


def _detail(span: Span, run: Run, reasons: tuple[Reason, ...]) -> str:
    attributes = span.attributes
    if span.key == emit.ROOT_KEY:
        return run.error_message or run.reason or run.end_state or ""
    match span.kind:
        case SpanKind.DECIDE:
            return "; ".join(_reason(reason) for reason in reasons)
        case SpanKind.APPROVAL:
            return f"by {attributes.get(semconv.APPROVAL_GROUP)}"
        case SpanKind.MODEL if semconv.INPUT_TOKENS in attributes:
            tokens_in, tokens_out = (
                attributes[semconv.INPUT_TOKENS],
                attributes.get(semconv.OUTPUT_TOKENS),
            )
            return f"{tokens_in} tokens in, {tokens_out} out"
        case SpanKind.PROBE if semconv.PROBE_FOUND in attributes:
            return f"found {attributes[semconv.PROBE_FOUND]}"
        case SpanKind.SEND if span.error_code == "owner.lost":
            return "its worker was lost"
        case SpanKind.SEND:
            return f"to {attributes.get(semconv.SERVER)}"
        case SpanKind.HANDOFF:
            child = attributes.get(semconv.CHILD_RUN)
            return f"run {child}" if child else ""
        case SpanKind.PLAN if attributes.get(semconv.PLAN_REASONS):
            reasons_of_plan = attributes[semconv.PLAN_REASONS]
            return "; ".join(map(str, reasons_of_plan if isinstance(reasons_of_plan, list) else []))
        case _:
            return span.error_code or ""


def _reason(reason: Reason) -> str:
    if not reason.policy_id:
        return reason.message
    return f"{reason.message} ({reason.policy_id})" if reason.message else reason.policy_id
