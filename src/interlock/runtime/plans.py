"""Plans at work: proposed, checked whole, answered by people, then made call by call, durably."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from interlock.agents.models import ModelCatalog
from interlock.agents.planner import propose_plan
from interlock.calls import approve
from interlock.calls.durable import Durable
from interlock.calls.pipeline import call_tool
from interlock.calls.road import Call, CallState, Road
from interlock.domain.agent import AgentSpec
from interlock.domain.approval import ApprovalState
from interlock.domain.canonical import Json, JsonObject, canonical
from interlock.domain.effect import EffectState
from interlock.domain.errors import InputError, StepFailedError
from interlock.domain.ids import ApprovalId, StepName, ToolName
from interlock.domain.plan import (
    MAX_CALLS,
    REFUSED,
    STOPPED,
    CheckedCall,
    CheckedPlan,
    Plan,
    PlanCall,
    PlanReason,
    answered_name,
    checked_name,
    ended_name,
    plan_name,
)
from interlock.domain.record import from_json, object_to_json, to_json
from interlock.domain.tool import ToolVersion
from interlock.domain.trace import SpanStatus
from interlock.domain.workflow import Step
from interlock.observe import semconv
from interlock.runtime.plan_check import PlanSeats, check_plan, planner_seats, proposal_of
from interlock.store import approvals, effects, spans
from interlock.store.tx import Tx

_MOST_OUTPUT_BYTES = 262_144
"""Up to this size the outputs of the calls are in the step's own output."""
_GOOD = frozenset({CallState.SUCCEEDED, CallState.DRAFTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """A step that plans: its planner, the tools that this may call and plan with, and its task."""

    road: Road
    durable: Durable
    catalog: ModelCatalog
    step: Step
    planner: AgentSpec
    offered: Mapping[ToolName, ToolVersion]
    plannable: Mapping[ToolName, ToolVersion]
    task: Json

    @property
    def seats(self) -> PlanSeats:
        """Return who proposes, and under which seat the calls run."""
        return planner_seats(self.durable.run, self.planner.name, self.step.under)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What people answered to a preview: the approvals given, or why the plan is refused."""

    heard: tuple[ApprovalId, ...] = ()
    reasons: tuple[PlanReason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """How a call of a plan ended: a state of `CallState`, or `skipped` because of another call."""

    state: str
    output: Json = None
    code: str | None = None
    message: str | None = None

    @property
    def is_good(self) -> bool:
        """Return whether the calls that need it may be made."""
        return self.state in _GOOD


async def run_plan(at: Planning) -> Json:
    """Let the planner propose until a plan holds, then make its calls; return how they ended.

    The output is `plan` (its digest), `number` and `calls`: by id the state and, unless all of
    them are larger than 256 KiB, the output. A refused plan goes back to the planner with all its
    reasons, as often as its limit of refusals in a row says.

    Raises:
        StepFailedError: `plan.refused` with the last reasons, the code of the call that failed the
            plan, or what the planner itself failed with.
    """
    refused: tuple[Plan, tuple[PlanReason, ...]] | None = None
    for number in range(1, at.planner.limits.refusals_in_a_row + 1):
        checked = await _checked(at, number, refused)
        reasons = checked.reasons
        if not reasons:
            answered = await _answered(at, checked)
            if not answered.reasons:
                return await _Interpreter(at=at, checked=checked, heard=answered.heard).run()
            reasons = answered.reasons
        refused = (checked.plan, reasons)
    # INVARIANT: a limit is at least 1, so a plan was refused.
    assert refused is not None
    why = "; ".join(str(reason) for reason in refused[1])
    raise StepFailedError(f"no plan holds: {why}", error_code=REFUSED, step_name=at.step.name)


async def _checked(
    at: Planning, number: int, refused: tuple[Plan, tuple[PlanReason, ...]] | None
) -> CheckedPlan:
    name = checked_name(plan_name(at.step.name, number))
    entry = at.durable.recorded(name)
    if entry is not None:
        return from_json(CheckedPlan, entry.value)
    plan = await propose_plan(
        at.road,
        at.durable,
        at.catalog,
        at.planner,
        seats=(at.seats.planner,),
        offered=at.offered,
        plannable=at.plannable,
        step=at.step.name,
        number=number,
        task=at.task,
        refused=refused,
        parent_span=at.step.name,
    )

    def check(tx: Tx) -> Json:
        return object_to_json(
            check_plan(tx, at.road, at.durable, at.step, plan, number=number, seats=at.seats)
        )

    return from_json(CheckedPlan, await at.durable.commit(name, check, kind="plan.check"))


async def _answered(at: Planning, checked: CheckedPlan) -> Answered:
    """Wait until all calls of the preview are answered, or one is refused: so is the plan then."""
    plan = plan_name(at.step.name, checked.number)
    entry = at.durable.recorded(answered_name(plan))
    if entry is not None:
        return from_json(Answered, entry.value)
    planned = {call.id: call for call in checked.plan.calls}
    asked = [call for call in checked.calls if call.decision == "needs_approval"]

    async def hear(call: CheckedCall) -> Json:
        effect = await at.durable.read(partial(effects.get, effect_id=call.effect_id))
        if effect.state is EffectState.PROPOSED:
            proposal = proposal_of(planned[call.id], plan=plan, seats=at.seats)
            waiting = Call(proposal=proposal, effect=effect, is_stored=True)
            effect = (await approve.hear(at.durable, waiting)).effect
        if effect.state is not EffectState.PROPOSED:
            # Who has not answered yet is not waited for.
            raise StepFailedError("refused", error_code=REFUSED, step_name=at.step.name)
        return None

    with suppress(StepFailedError):
        await at.durable.gather([partial(hear, call) for call in asked], limit=MAX_CALLS)
    value = await at.durable.commit(
        answered_name(plan),
        lambda tx: object_to_json(_answer(tx, at, plan, asked)),
        kind="plan.answer",
    )
    return from_json(Answered, value)


def _answer(tx: Tx, at: Planning, plan: StepName, asked: list[CheckedCall]) -> Answered:
    rows = {call.id: effects.get(tx, call.effect_id) for call in asked}
    reasons = tuple(
        PlanReason(call=call_id, code=row.error_code or REFUSED, message=row.error_message or "")
        for call_id, row in rows.items()
        if row.state is not EffectState.PROPOSED
    )
    if not reasons:
        given = [a for row in rows.values() for a in approvals.list_for_effect(tx, row.effect_id)]
        return Answered(
            heard=tuple(a.approval_id for a in given if a.state is ApprovalState.APPROVED)
        )
    for row in rows.values():
        if row.state is EffectState.PROPOSED:
            approve.withdraw(tx, row, code=REFUSED, message="another call of its plan was refused")
    _close_span(tx, at, plan, verdict="refused", reasons=reasons)
    return Answered(reasons=reasons)


def _close_span(
    tx: Tx,
    at: Planning,
    plan: StepName,
    *,
    verdict: str,
    reasons: tuple[PlanReason, ...] = (),
    error_code: str | None = None,
) -> None:
    spans.close(
        tx,
        at.durable.run.run_id,
        plan,
        end_us=tx.now_us,
        status=SpanStatus.ERROR if error_code else SpanStatus.OK,
        error_code=error_code,
        attributes={
            semconv.PLAN_VERDICT: verdict,
            semconv.PLAN_REASONS: [str(reason) for reason in reasons],
        },
    )


@dataclass(slots=True, kw_only=True)
class _Interpreter:
    """Makes the calls of a plan: each when those it needs have ended, others side by side.

    What it does follows from the plan and from recorded ends alone, so a replay does the same.
    """

    at: Planning
    checked: CheckedPlan
    heard: tuple[ApprovalId, ...]
    ends: dict[str, CallEnd] = field(default_factory=dict)
    events: dict[str, asyncio.Event] = field(default_factory=dict)

    @property
    def plan(self) -> StepName:
        return plan_name(self.at.step.name, self.checked.number)

    async def run(self) -> Json:
        entry = self.at.durable.recorded(ended_name(self.plan))
        ended = await self._run() if entry is None else entry.value
        # INVARIANT: only `_end` writes what is recorded under this name.
        assert isinstance(ended, dict)
        failure = ended.get("failure")
        if isinstance(failure, dict):
            raise StepFailedError(
                str(failure["message"]),
                error_code=str(failure["code"]),
                step_name=self.at.step.name,
            )
        return ended

    async def _run(self) -> Json:
        # Each comes after those it needs, so that none holds a slot that another waits for.
        calls = self.checked.plan.in_order()
        self.events = {call.id: asyncio.Event() for call in calls}
        try:
            await self.at.durable.gather([partial(self._branch, call) for call in calls])
        except StepFailedError as error:
            return await self._end(error)
        return await self._end(None)

    async def _branch(self, call: PlanCall) -> Json:
        try:
            for need in sorted(call.needs):
                await self.events[need].wait()
            if call.needs <= self.ends.keys():
                self.ends[call.id] = await self._made(call)
                self._stop_if_failed(call)
        finally:
            # Whoever waits for a call that was stopped finds no end of it, and stops too.
            self.events[call.id].set()
        return None

    async def _made(self, call: PlanCall) -> CallEnd:
        missing = [need for need in sorted(call.needs) if not self.ends[need].is_good]
        if missing:
            why = f"`{missing[0]}`, which it needs, was {self.ends[missing[0]].state}"
            return CallEnd(state="skipped", code="plan.skipped", message=why)
        drafted = [r.call for r in call.references if self.ends[r.call].state == CallState.DRAFTED]
        if drafted:
            why = f"`{drafted[0]}`, whose output it takes, was only drafted"
            return CallEnd(state="skipped", code="plan.skipped", message=why)
        try:
            arguments = call.filled({name: end.output for name, end in self.ends.items()})
        except InputError as error:
            return CallEnd(state=CallState.FAILED, code="plan.reference", message=error.message)
        version = next(each.tool_version for each in self.checked.calls if each.id == call.id)
        proposal = replace(
            proposal_of(call, plan=self.plan, seats=self.at.seats, tool_version=version),
            arguments=arguments,
            heard=frozenset(self.heard),
        )
        result = await call_tool(self.at.road, self.at.durable, proposal)
        return CallEnd(
            state=result.state, output=result.output, code=result.code, message=result.message
        )

    def _stop_if_failed(self, call: PlanCall) -> None:
        end = self.ends[call.id]
        if end.is_good or end.state == "skipped" or call.on_error == "continue":
            return
        raise StepFailedError(
            f"the call `{call.id}` of `{call.tool}` was {end.state}: {end.message}",
            error_code=end.code or f"call.{end.state}",
            step_name=self.at.step.name,
        )

    async def _end(self, error: StepFailedError | None) -> Json:
        """Record how the calls ended, and return it; nobody is asked any more for those left.

        What failed the plan is recorded with it: of two failures a replay may see the other first.
        """
        failure: JsonObject = (
            {}
            if error is None
            else {"failure": {"code": error.error_code, "message": error.message}}
        )

        def record(tx: Tx) -> Json:
            for call in self.checked.calls:
                row = None if call.id in self.ends else effects.find(tx, call.effect_id)
                if row is not None and row.state in approve.WAITING:
                    approve.withdraw(tx, row, code=STOPPED, message="its plan has stopped")
            _close_span(
                tx,
                self.at,
                self.plan,
                verdict="failed" if error else "done",
                error_code=error.error_code if error else None,
            )
            return self._output() | failure

        return await self.at.durable.commit(ended_name(self.plan), record, kind="plan.end")

    def _output(self) -> JsonObject:
        calls = [call for call in self.checked.plan.calls if call.id in self.ends]
        outputs: Json = [self.ends[call.id].output for call in calls]
        is_small = len(canonical(outputs)) <= _MOST_OUTPUT_BYTES
        ends = {
            call.id: self.ends[call.id] if is_small else replace(self.ends[call.id], output=None)
            for call in calls
        }
        return {
            "plan": self.checked.digest,
            "number": self.checked.number,
            "calls": to_json(ends),
        }
