"""What people see of plans: each call with what policy said of it and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import EffectId, StepName, ToolName
from interlock.domain.plan import (
    REFUSED,
    STOPPED,
    CheckedCall,
    CheckedPlan,
    PlanCall,
    PlannedDecision,
    answered_name,
    checked_name,
    ended_name,
)
from interlock.domain.record import from_json
from interlock.domain.run import JournalEntry, Run
from interlock.store import effects, journal
from interlock.store.tx import Tx

PlanState = Literal["refused", "asked", "running", "ended"]
Stage = Literal[
    "to_come", "running", "waiting", "done", "undone", "failed", "skipped", "not_reached"
]
_CHECKED = "#checked"
_KINDS = ("plan.check", "plan.answer", "plan.end")
_STAGES: Mapping[str, Stage] = {
    "planned": "to_come",
    "not_made": "not_reached",
    "skipped": "skipped",
    EffectState.PROPOSED: "waiting",
    EffectState.PARKED: "waiting",
    EffectState.AUTHORIZED: "running",
    EffectState.INTENT: "running",
    EffectState.AMBIGUOUS: "running",
    EffectState.PROBING: "running",
    EffectState.SUCCEEDED: "done",
    EffectState.DRAFTED: "done",
    EffectState.CONFIRMED_DONE: "done",
    EffectState.COMPENSATED: "undone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """One call of a plan: as it was proposed, what policy said, and how it stands.

    `state` is that of its effect, `planned` before there is one, `skipped` or `not_made` if it will
    never have one; `stage` says the same in a word: what is done and what remains. `args` are as
    proposed, with references, which `takes` lists. `undo` is the tool that undoes it.
    """

    id: str
    tool: ToolName
    args: JsonObject
    takes: tuple[str, ...]
    needs: tuple[str, ...]
    on_error: str
    decision: PlannedDecision
    groups: tuple[str, ...]
    is_write: bool
    undo: str | None
    state: str
    stage: Stage
    effect_id: EffectId
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """One plan of a run; `name` is its span's key, `reasons` say why it was refused.

    `cost_micro_usd` is the sum of the declared prices of its calls.
    """

    name: StepName
    number: int
    planner: str
    digest: str
    state: PlanState
    cost_micro_usd: int
    reasons: tuple[str, ...]
    calls: tuple[PlannedCall, ...]


def plans_of(tx: Tx, run: Run) -> tuple[PlanView, ...]:
    """Return the plans of a run in the order proposed, refused ones too."""
    entries = journal.load(tx, run.run_id, kinds=_KINDS)
    if not entries:
        return ()
    rows = {effect.step_name: effect for effect in effects.list_for_run(tx, run.run_id)}
    return tuple(
        _view(run, StepName(name.removesuffix(_CHECKED)), entries, rows)
        for name, entry in entries.items()
        if entry.kind == "plan.check"
    )


def _view(
    run: Run,
    name: StepName,
    entries: Mapping[StepName, JournalEntry],
    rows: Mapping[StepName, Effect],
) -> PlanView:
    checked = from_json(CheckedPlan, entries[checked_name(name)].value)
    answered = _member(entries, answered_name(name), "reasons")
    ended = _member(entries, ended_name(name), "calls")
    reasons = [str(reason) for reason in checked.reasons]
    if isinstance(answered, list):
        reasons += [_sentence(reason) for reason in answered]
    state: PlanState = "asked" if answered is None else "running"
    if reasons:
        state = "refused"
    elif ended is not None or run.state.is_final:
        state = "ended"
    ends = ended if isinstance(ended, dict) else {}
    planned = {call.id: call for call in checked.plan.calls}
    return PlanView(
        name=name,
        number=checked.number,
        planner=checked.planner,
        digest=checked.digest,
        state=state,
        cost_micro_usd=checked.cost_micro_usd,
        reasons=tuple(reasons),
        calls=tuple(
            _call(planned[call.id], call, row=rows.get(call.step_name), ends=ends, state=state)
            for call in checked.calls
        ),
    )


def _call(
    planned: PlanCall,
    checked: CheckedCall,
    *,
    row: Effect | None,
    ends: JsonObject,
    state: PlanState,
) -> PlannedCall:
    end = ends.get(planned.id)
    ended = end if isinstance(end, dict) else {}
    without_row = "planned" if state in {"asked", "running"} else "not_made"
    code = ended.get("code") if row is None else row.error_code
    stands = str(ended.get("state", without_row)) if row is None else row.state.value
    stage = "not_reached" if code in {REFUSED, STOPPED} else _STAGES.get(stands, "failed")
    return PlannedCall(
        id=planned.id,
        tool=planned.tool,
        args=planned.args,
        takes=tuple(f"{each.at} from {each.call}{each.pointer}" for each in planned.references),
        needs=tuple(sorted(planned.needs)),
        on_error=planned.on_error,
        decision=checked.decision,
        groups=checked.groups,
        is_write=checked.is_write,
        undo=checked.undo,
        state=stands,
        stage=stage,
        effect_id=checked.effect_id,
        code=None if code is None else str(code),
    )


def _member(entries: Mapping[StepName, JournalEntry], name: StepName, key: str) -> Json:
    entry = entries.get(name)
    return entry.value[key] if entry is not None and isinstance(entry.value, dict) else None


def _sentence(reason: Json) -> str:
    # INVARIANT: reasons are recorded as objects of three members.
    assert isinstance(reason, dict)
    return f"`{reason['call']}`: {reason['message']} ({reason['code']})"
