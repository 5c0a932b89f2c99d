"""Spans: the narrow rows of a run's trace; content is never in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import EffectId, RunId


class SpanKind(StrEnum):
    """What a span stands for; names and attributes are in `observe.semconv`."""

    WORKFLOW = "invoke_workflow"
    AGENT = "invoke_agent"
    MODEL = "chat"
    TOOL = "execute_tool"
    DECIDE = "interlock.decide"
    APPROVAL = "interlock.approval.wait"
    SEND = "interlock.send"
    PROBE = "interlock.probe"
    HANDOFF = "interlock.handoff"
    WAIT = "interlock.wait"
    STEP = "interlock.step"
    COMPENSATE = "interlock.compensate"
    PLAN = "interlock.plan"


class SpanStatus(StrEnum):
    """Waiting and refused calls are `ok`: nothing failed."""

    OK = "ok"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One row of `span`; `end_us` None is still open.

    `key` names it uniquely in its run (for instance `resolve/2/1/servicedesk.issue.create` or
    `<step>#decide.1`), so that replay updates the same row; `parent_key` None is the root.
    `attributes` use names of `observe.semconv` only, and hold ids and numbers, no content.
    """

    run_id: RunId
    key: str
    parent_key: str | None
    kind: SpanKind
    name: str
    start_us: int
    end_us: int | None = None
    status: SpanStatus = SpanStatus.OK
    error_code: str | None = None
    effect_id: EffectId | None = None
    cost_micro_usd: int = 0
    attributes: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """Tokens and money of one model request, with the version of the price that was used."""

    run_id: RunId
    span_key: str
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_micro_usd: int
    price_version: str
    is_estimated: bool
    at_us: int
