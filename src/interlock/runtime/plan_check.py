"""The check of a whole plan before its first effect: form, contracts, policy, repeated calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from interlock.calls.durable import Durable
from interlock.calls.execute import Foresight, foresee, write_foresight
from interlock.calls.propose import new_call
from interlock.calls.road import Live, Proposal, Road, labels_of
from interlock.calls.validate import Foreseen
from interlock.domain.decision import Outcome
from interlock.domain.ids import AgentName, StepName, ToolName, effect_id_of
from interlock.domain.label import Labels
from interlock.domain.plan import (
    CheckedCall,
    CheckedPlan,
    Plan,
    PlanCall,
    PlannedDecision,
    PlanReason,
    flaws,
    plan_name,
)
from interlock.domain.pointer import fill
from interlock.domain.principal import Seat
from interlock.domain.run import Run
from interlock.domain.tool import ToolVersion
from interlock.domain.workflow import Step
from interlock.observe import emit
from interlock.store import runs, spans
from interlock.store.tx import Tx
from interlock.tools.places import has_place, types_at


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSeats:
    """Who is behind a plan: the seat that proposes it, and the one under which its calls run."""

    planner: Seat
    caller: Seat


def proposal_of(
    call: PlanCall, *, plan: StepName, seats: PlanSeats, tool_version: int | None = None
) -> Proposal:
    """Return the proposal of a planned call without references; others are filled when made."""
    return Proposal(
        step_name=StepName(f"{plan}/{call.id}/{call.tool}"),
        tool=call.tool,
        arguments=fill(call.args, {}),
        seats=(seats.caller,),
        parent_span=plan,
        version=tool_version,
        planner=seats.planner,
    )


def check_plan(
    tx: Tx,
    road: Road,
    durable: Durable,
    step: Step,
    plan: Plan,
    *,
    number: int,
    seats: PlanSeats,
) -> CheckedPlan:
    """Check a plan as a whole; write its span, what was denied, or who is asked for which calls.

    One reason refuses the whole plan: then nobody is asked and nothing of it is made.
    """
    run = runs.get(tx, durable.run.run_id)
    check = _Check(
        tx=tx,
        road=road,
        live=road.live.at(tx),
        run=run,
        step=step,
        plan=plan,
        name=plan_name(step.name, number),
        seats=seats,
    )
    foresights = check.foresights()
    reasons = (*flaws(plan), *check.contracts(), *_repeated(foresights), *_denied(foresights))
    checked = CheckedPlan(
        plan=plan,
        digest=plan.digest,
        number=number,
        planner=seats.planner.agent,
        reasons=reasons,
        calls=tuple(check.checked(call, foresights.get(call.id)) for call in plan.calls),
        cost_micro_usd=sum(
            tool.price_micro_usd for call in plan.calls if (tool := check.tool(call.tool))
        ),
    )
    spans.put(tx, emit.plan_span(run.run_id, check.name, checked, step=step.name, at_us=tx.now_us))
    wanted = Outcome.DENY if reasons else Outcome.NEEDS_APPROVAL
    for foresight in foresights.values():
        if foresight.is_known and foresight.decision.outcome is wanted:
            write_foresight(tx, road, check.live, run, foresight, plan=check.name)
    return checked


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """A plan in the transaction that checks it."""

    tx: Tx
    road: Road
    live: Live
    run: Run
    step: Step
    plan: Plan
    name: StepName
    seats: PlanSeats

    def tool(self, name: ToolName) -> ToolVersion | None:
        """Return the tool as the plan may use it: of this step, and bound where the run is."""
        binding = self.live.release.binding(name, self.run.request.environment)
        return None if binding is None or name not in self.step.tools else binding.tool

    def foresights(self) -> dict[str, Foresight]:
        """Return by id what policy says of the calls, also of those not known whole yet."""
        found: dict[str, Foresight] = {}
        for call in self.plan.calls:
            if call.id in found or self.tool(call.tool) is None:
                continue
            proposal = proposal_of(call, plan=self.name, seats=self.seats)
            unknown = frozenset(reference.at for reference in call.references)
            new = new_call(
                self.road, self.live, self.run, proposal, now_us=self.tx.now_us, unknown=unknown
            )
            found[call.id] = foresee(
                self.tx, self.live, self.run, new, before=self.before(call), unknown=unknown
            )
        return found

    def before(self, call: PlanCall) -> Foreseen:
        """Return what will have happened before a call.

        Calls are counted in the order of the plan. Calls that neither need each other may come in
        any order: so only what it needs is sure to be done, and all that does not need it may have
        been read.
        """
        ordered = self.plan.in_order()
        earlier = ordered[: ordered.index(call)] if call in ordered else ()
        needed = self.plan.needed_by(call)
        labels = Labels()
        for other in self.plan.calls:
            tool = self.tool(other.tool)
            if (
                tool is not None
                and other.id != call.id
                and call.id not in self.plan.needed_by(other)
            ):
                labels = labels.join(labels_of(tool))
        tools = {each.id: self.tool(each.tool) for each in earlier}
        return Foreseen(
            tools=tuple(each.tool for each in earlier),
            writes=sum(tool is None or tool.is_write for tool in tools.values()),
            done=frozenset(each.tool for each in earlier if each.id in needed),
            labels=labels,
        )

    def contracts(self) -> Iterator[PlanReason]:
        """Yield what no run of the plan could mend: unknown tools, arguments that cannot fit."""
        tools = {call.id: self.tool(call.tool) for call in self.plan.calls}
        for call in self.plan.calls:
            tool = tools[call.id]
            if tool is None:
                message = f"there is no tool `{call.tool}` for this plan"
                yield PlanReason(call=call.id, code="tool.unknown", message=message)
            elif call.references:
                yield from _misfits(call, tool, tools)

    def checked(self, call: PlanCall, foresight: Foresight | None) -> CheckedCall:
        """Return what is recorded of one call."""
        tool = self.tool(call.tool)
        name = proposal_of(call, plan=self.name, seats=self.seats).step_name
        found = CheckedCall(
            id=call.id,
            step_name=name,
            effect_id=effect_id_of(self.run.run_id, name),
            decision="deny",
            tool_version=0 if tool is None else tool.version,
            is_write=tool is None or tool.is_write,
            undo=_undo(tool),
        )
        if foresight is None:
            return found
        return replace(found, decision=_planned(foresight), groups=foresight.decision.groups)


def planner_seats(run: Run, planner: AgentName, caller: AgentName) -> PlanSeats:
    """Return the seats of a plan in a run's workflow."""
    workflow = run.request.workflow
    return PlanSeats(
        planner=Seat(workflow=workflow, agent=planner), caller=Seat(workflow=workflow, agent=caller)
    )


def _planned(foresight: Foresight) -> PlannedDecision:
    """Return what is certain of a call, whatever other calls will give it."""
    lenient, strict = foresight.decision.outcome, foresight.strictest.outcome
    is_certain = lenient is strict and lenient is not Outcome.NEEDS_APPROVAL
    if foresight.is_known or is_certain or lenient is Outcome.DENY:
        return lenient.value
    # People are asked for exactly one call, and this one is not known.
    return "when_known"


def _undo(tool: ToolVersion | None) -> str | None:
    if tool is None or tool.compensation is None or tool.is_irreversible:
        return None
    return tool.compensation.tool


def _misfits(
    call: PlanCall, tool: ToolVersion, tools: Mapping[str, ToolVersion | None]
) -> Iterator[PlanReason]:
    """Yield what is wrong with arguments that come from outputs, as far as the schemas say."""
    for reference in call.references:
        source = tools.get(reference.call)
        if source is None:
            continue
        where = f"call:{reference.call}{reference.pointer}"
        if not has_place(source.output_schema, reference.pointer):
            message = f"the output of `{source.name}` has nothing at `{where}`"
            yield PlanReason(call=call.id, code="plan.reference", message=message)
        given = types_at(source.output_schema, reference.pointer)
        wanted = types_at(tool.input_schema, reference.at)
        if given and wanted and given.isdisjoint(wanted):
            message = f"`{reference.at}` takes {_or(wanted)}, and `{where}` is {_or(given)}"
            yield PlanReason(call=call.id, code="plan.type", message=message)


def _or(types: frozenset[str]) -> str:
    return " or ".join(sorted(types))


def _repeated(foresights: Mapping[str, Foresight]) -> Iterator[PlanReason]:
    """Yield the writes that mean the same as an earlier one of the plan, by their business key."""
    first: dict[tuple[ToolName, str], str] = {}
    for call_id, foresight in foresights.items():
        effect = foresight.call.effect
        if effect.key_hash is None or not effect.is_write:
            continue
        earlier = first.setdefault((effect.tool, effect.key_hash), call_id)
        if earlier != call_id:
            message = f"it does the same as `{earlier}` again: both are `{effect.key_text}`"
            yield PlanReason(call=call_id, code="plan.repeated", message=message)


def _denied(foresights: Mapping[str, Foresight]) -> Iterator[PlanReason]:
    for call_id, foresight in foresights.items():
        if foresight.decision.outcome is Outcome.DENY:
            for reason in foresight.decision.reasons:
                yield PlanReason(call=call_id, code=reason.code, message=reason.message)
