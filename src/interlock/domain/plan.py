"""Plans: calls with dependencies that an agent proposes as a whole, before the first is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from interlock.domain.canonical import Json, JsonObject, digest
from interlock.domain.ids import AgentName, EffectId, StepName, ToolName
from interlock.domain.pointer import escaped, fill
from interlock.domain.record import to_json

MAX_CALLS = 50
CALL_ID = "^[a-z][a-z0-9_]{0,63}$"
REFUSED = "plan.refused"
"""The code of a plan that broke a rule, or that a policy or a person refused."""
STOPPED = "plan.stopped"
"""The code of a call that people were asked for when another call failed its plan."""

PlannedDecision = Literal["allow", "needs_approval", "draft", "deny", "when_known"]
"""What policy said of a planned call before the first was made.

`when_known`: that depends on what other calls will give it. The others hold whatever that will be.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A place in the arguments (`at`, RFC 6901) that is taken from an earlier call's output."""

    at: str
    call: str
    pointer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCall:
    """One call of a plan.

    `args` is a template over `call:ID/pointer`, the output of another call. It is made after those
    that it names there or in `depends_on`. If it fails, `stop` fails the plan; `continue` goes on
    without the calls that need it.
    """

    id: str
    tool: ToolName
    args: JsonObject
    depends_on: tuple[str, ...] = ()
    on_error: Literal["stop", "continue"] = "stop"

    @property
    def references(self) -> tuple[Reference, ...]:
        """Return the places that take a value from another call, in the order written."""
        return tuple(_references(self.args, ""))

    @property
    def needs(self) -> frozenset[str]:
        """Return the ids of the calls that must have ended before this one is made."""
        return frozenset(self.depends_on) | {each.call for each in self.references}

    def filled(self, outputs: Mapping[str, Json]) -> Json:
        """Return the arguments; raises `InputError` if an output has nothing at a reference."""
        return fill(self.args, {"call": dict(outputs)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a planner proposes: at most 50 calls."""

    calls: tuple[PlanCall, ...]

    @property
    def digest(self) -> str:
        """Return SHA-256 over the canonical form: another plan has another digest."""
        return digest(to_json(self))

    def in_order(self) -> tuple[PlanCall, ...]:
        """Return the calls so that each comes after those it needs; those in a circle are left out.

        Else in the order proposed, so the same plan always has the same order.
        """
        left, done = list(self.calls), set[str]()
        ordered: list[PlanCall] = []
        while ready := next((call for call in left if call.needs <= done), None):
            left.remove(ready)
            done.add(ready.id)
            ordered.append(ready)
        return tuple(ordered)

    def needed_by(self, call: PlanCall) -> frozenset[str]:
        """Return the ids of all calls that must have ended before this one is made."""
        known = {each.id: each for each in self.calls}
        found: set[str] = set()
        left = [*call.needs]
        while left:
            need = left.pop()
            if need not in found and need in known:
                found.add(need)
                left.extend(known[need].needs)
        return frozenset(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReason:
    """Why a plan is refused: which call (None: all of it), a stable code and one sentence."""

    call: str | None
    code: str
    message: str

    def __str__(self) -> str:
        where = "" if self.call is None else f"`{self.call}`: "
        return f"{where}{self.message} ({self.code})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCall:
    """One call of a plan as it was found before the first was made.

    `groups` are those whose approval it needs, at once or at least `when_known`; `undo` is the tool
    that undoes it. `effect_id` is its row in the ledger, which is there once it was asked for,
    refused or made.
    """

    id: str
    step_name: StepName
    effect_id: EffectId
    decision: PlannedDecision
    tool_version: int = 0
    is_write: bool = True
    undo: str | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPlan:
    """A plan with what came of its check: refused if there are reasons. `calls` are as proposed.

    `cost_micro_usd` is the sum of the declared prices of its calls.
    """

    plan: Plan
    digest: str
    number: int
    planner: AgentName
    reasons: tuple[PlanReason, ...]
    calls: tuple[CheckedCall, ...]
    cost_micro_usd: int = 0


def flaws(plan: Plan) -> tuple[PlanReason, ...]:
    """Return what is wrong with a plan by itself: size, ids, unknown calls, circles."""
    found: list[PlanReason] = []
    if not 1 <= len(plan.calls) <= MAX_CALLS:
        message = f"a plan has 1 to {MAX_CALLS} calls, this one has {len(plan.calls)}"
        found.append(PlanReason(call=None, code="plan.size", message=message))
    known = Counter(call.id for call in plan.calls)
    for call_id, count in known.items():
        if count > 1:
            message = f"{count} calls have the id `{call_id}`"
            found.append(PlanReason(call=call_id, code="plan.id", message=message))
    for call in plan.calls:
        for need in sorted(call.needs - known.keys()):
            message = f"it needs `{need}`, and the plan has no such call"
            found.append(PlanReason(call=call.id, code="plan.reference", message=message))
    if not found and len(ordered := plan.in_order()) < len(plan.calls):
        circle = [f"`{call.id}`" for call in plan.calls if call not in ordered]
        message = f"these calls wait for each other: {', '.join(circle)}"
        found.append(PlanReason(call=None, code="plan.cycle", message=message))
    return tuple(found)


def plan_schema(tools: Iterable[ToolName]) -> JsonObject:
    """Return the contract of a planner's answer: a plan of calls of these tools."""
    call_id: JsonObject = {"type": "string", "pattern": CALL_ID}
    call: JsonObject = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "id": call_id,
            "tool": {"type": "string", "enum": [*sorted(tools)]},
            "args": {"type": "object"},
            "depends_on": {"type": "array", "items": call_id, "maxItems": MAX_CALLS},
            "on_error": {"type": "string", "enum": ["stop", "continue"]},
        },
        "required": ["id", "tool", "args"],
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "calls": {"type": "array", "items": call, "minItems": 1, "maxItems": MAX_CALLS}
        },
        "required": ["calls"],
    }


def plan_name(step: str, number: int) -> StepName:
    """Return the name of the n-th plan of a step: the key of its span, and the start of others."""
    return StepName(f"{step}/plan.{number}")


def checked_name(plan: StepName) -> StepName:
    """Return the journal name of a plan's check, a `CheckedPlan`."""
    return StepName(f"{plan}#checked")


def answered_name(plan: StepName) -> StepName:
    """Return the journal name of what people answered to a plan's preview."""
    return StepName(f"{plan}#answered")


def ended_name(plan: StepName) -> StepName:
    """Return the journal name of how the calls of a plan ended."""
    return StepName(f"{plan}#end")


def _references(template: Json, at: str) -> Iterator[Reference]:
    if isinstance(template, str) and template.startswith("call:"):
        call_id, slash, rest = template.removeprefix("call:").removeprefix("/").partition("/")
        yield Reference(at=at, call=call_id, pointer=slash + rest)
    elif isinstance(template, list):
        for index, item in enumerate(template):
            yield from _references(item, f"{at}/{index}")
    elif isinstance(template, dict):
        for key, item in template.items():
            yield from _references(item, f"{at}/{escaped(key)}")
