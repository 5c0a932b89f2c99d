"""Effects: the ledger's row of one tool call, its states, and what was seen of its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import DecisionId, EffectId, RunId, StepName, TenantId, ToolName
from interlock.domain.principal import Seat
from interlock.domain.tool import EffectClass, Environment


class EffectState(StrEnum):
    """The states of the effect protocol."""

    PROPOSED = "proposed"
    AUTHORIZED = "authorized"
    DENIED = "denied"
    DRAFTED = "drafted"
    INTENT = "intent"
    SUCCEEDED = "succeeded"
    FAILED_DEFINITE = "failed_definite"
    AMBIGUOUS = "ambiguous"
    PROBING = "probing"
    PARKED = "parked"
    CONFIRMED_DONE = "confirmed_done"
    CONFIRMED_ABSENT = "confirmed_absent"
    ABANDONED = "abandoned"
    COMPENSATED = "compensated"


class Transport(StrEnum):
    """What a connector may say about a call; only `calls` decides what it means."""

    NOT_SENT = "not_sent"
    REPLY = "reply"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back from one attempt.

    `transport` REPLY carries `status` (HTTP status; an MCP result is 200, an MCP error its JSON-RPC
    code) and `body` (parsed strict JSON; None with `problem` set if it could not be read).
    `is_error` is MCP's `isError` or a raised exception of a Python tool. `problem` says in one
    sentence what went wrong; only that of a REPLY may hold words of the outside. `retry_after_s`
    is an upstream's hint. `is_unreachable` says of NOT_SENT that it was the server's fault,
    `is_final` that the arguments make no request, so that no later attempt can do better.
    """

    transport: Transport
    status: int | None = None
    body: Json = None
    etag: str | None = None
    is_error: bool = False
    problem: str | None = None
    retry_after_s: float | None = None
    is_unreachable: bool = False
    is_final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One row of the ledger; reads and denied calls have one too.

    `arguments` are canonical and used on every attempt, probe and undo. `args_digest` is over
    them, `call_digest` over everything an approval binds to. `key_hash` and `key_text` are the
    business key's. `result` is the output that satisfied the contract. `is_in_doubt` if an attempt
    may have been done without our knowing: that a later one did nothing then proves nothing.
    `is_held` while budgets hold what it may cost. Times are microseconds.
    """

    effect_id: EffectId
    run_id: RunId
    step_name: StepName
    tenant: TenantId
    environment: Environment
    workflow: str
    seats: tuple[Seat, ...]
    tool: ToolName
    tool_version: int
    pin: str
    effect_class: EffectClass
    is_write: bool
    arguments: JsonObject
    args_digest: str
    state: EffectState
    epoch: int
    attempt: int
    created_us: int
    idem_key: str
    call_digest: str | None = None
    key_hash: str | None = None
    key_text: str | None = None
    guard: JsonObject | None = None
    is_in_doubt: bool = False
    is_held: bool = False
    decision_id: DecisionId | None = None
    policy_version: str | None = None
    first_sent_us: int | None = None
    send_deadline_us: int | None = None
    intent_us: int | None = None
    outcome_us: int | None = None
    external_id: str | None = None
    result: Json = None
    error_code: str | None = None
    error_message: str | None = None
    cost_micro_usd: int = 0
    compensates: EffectId | None = None
    compensated_by: EffectId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Something seen about an effect: append-only, never changed by later knowledge."""

    effect_id: EffectId
    attempt: int
    epoch: int
    kind: str
    detail: JsonObject = field(default_factory=dict)
    by: str = "interlock"
    at_us: int = 0
