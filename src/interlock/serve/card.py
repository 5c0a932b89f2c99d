"""The approval card: what a person must see before answering, from the bound call alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from interlock.domain.approval import Approval
from interlock.domain.release import Release
from interlock.domain.run import Run
from interlock.domain.text import visible
from interlock.domain.tool import ToolVersion
from interlock.observe.plans import PlannedCall, plans_of
from interlock.store import approvals, decisions, effects, runs
from interlock.store.tx import Tx

_HIGHEST_RISK = 3
_GUARANTEES = {
    "read": "changes nothing",
    "keyed": "happens once, also after a crash (the system honours our key)",
    "conditional": "happens once, also after a crash (the system refuses a second write)",
    "probed": "is looked up before any second try",
    "blind": "is sent at most once; an unknown outcome needs a person",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument of the call as text with invisible and direction characters made visible."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """One call of the plan that an approval belongs to; `is_asked` if the answer is for it too.

    `arguments` are as proposed: what comes from another call's output is `call:ID/pointer`.
    `groups` are those who have to agree, as far as that is known.
    """

    id: str
    heading: str
    tool: str
    risk: int
    flags: tuple[str, ...]
    groups: tuple[str, ...]
    arguments: tuple[Argument, ...]
    needs: tuple[str, ...]
    on_error: str
    decision: str
    is_asked: bool
    is_write: bool
    undo: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An approval as it is shown.

    `heading` comes from the registry, never from the agent. `rules` are the policies that ask,
    with their reasons. `undo` names the compensation, None if there is none. `plan` is the whole
    plan of a call that is asked for in one, in the order proposed: then heading, risk, flags and
    rules are those of all calls that the answer is for. `planner` is who proposed it.
    """

    heading: str
    tool: str
    tool_version: int
    system: str
    environment: str
    risk: int
    flags: tuple[str, ...]
    arguments: tuple[Argument, ...]
    rules: tuple[str, ...]
    guarantee: str
    undo: str | None
    seats: tuple[str, ...]
    workflow: str
    labels: tuple[str, ...]
    trigger: str
    plan: tuple[PlannedRow, ...] | None = None
    planner: str | None = None


def card_of(tx: Tx, release: Release, approval: Approval) -> Card:
    """Compute the card of an approval from its effect row, the registry and the decision."""
    effect = effects.get(tx, approval.effect_id)
    run = runs.get(tx, approval.run_id)
    # A hand-off is started by its parent; people know what started the whole.
    trigger = runs.get(tx, run.request.root_id or run.run_id).request.trigger
    tool = release.tool_version(effect.tool, effect.tool_version)
    labels = sorted(run.labels.names) + (["untrusted"] if run.labels.is_untrusted else [])
    card = Card(
        heading=effect.tool if tool is None else tool.title,
        tool=effect.tool,
        tool_version=effect.tool_version,
        system="" if tool is None else tool.system,
        environment=effect.environment,
        risk=_risk(tool),
        flags=_flags(tool),
        arguments=tuple(
            Argument(name=name, value=visible(value)) for name, value in effect.arguments.items()
        ),
        rules=_rules(tx, approval),
        guarantee=_GUARANTEES[effect.effect_class.value],
        undo=None if tool is None or tool.compensation is None else tool.compensation.tool,
        seats=tuple(str(seat) for seat in effect.seats),
        workflow=effect.workflow,
        labels=tuple(labels),
        trigger=f"{trigger.source} {trigger.key}",
    )
    return card if approval.plan is None else _with_plan(tx, release, approval, run, card)


def _with_plan(tx: Tx, release: Release, approval: Approval, run: Run, card: Card) -> Card:
    view = next(view for view in plans_of(tx, run) if view.name == approval.plan)
    together = approvals.list_together(tx, approval)
    effect_ids = {each.effect_id for each in together}
    here = release.at(run.request.environment)
    rows = tuple(_row(here, call, is_asked=call.effect_id in effect_ids) for call in view.calls)
    asked = [row for row in rows if row.is_asked]
    return replace(
        card,
        heading=f"Plan of {len(rows)} calls" if len(rows) > 1 else "Plan of one call",
        risk=max(row.risk for row in asked),
        flags=tuple(dict.fromkeys(flag for row in asked for flag in row.flags)),
        rules=tuple(dict.fromkeys(rule for each in together for rule in _rules(tx, each))),
        plan=rows,
        planner=view.planner,
    )


def _row(release: Release, call: PlannedCall, *, is_asked: bool) -> PlannedRow:
    tool = release.tools.get(call.tool)
    return PlannedRow(
        id=call.id,
        heading=call.tool if tool is None else tool.title,
        tool=call.tool,
        risk=_risk(tool),
        flags=_flags(tool),
        groups=call.groups,
        arguments=tuple(
            Argument(name=name, value=visible(value)) for name, value in call.args.items()
        ),
        needs=call.needs,
        on_error=call.on_error,
        decision=call.decision,
        is_asked=is_asked,
        is_write=call.is_write,
        undo=call.undo,
    )


def _rules(tx: Tx, approval: Approval) -> tuple[str, ...]:
    decided = [
        row.decision.reasons
        for row in decisions.list_for_effect(tx, approval.effect_id)
        if row.decision_id == approval.decision_id
    ]
    reasons = decided[0] if decided else ()
    return tuple(f"{reason.policy_id or reason.code}: {reason.message}" for reason in reasons)


def _risk(tool: ToolVersion | None) -> int:
    return _HIGHEST_RISK if tool is None else tool.risk


def _flags(tool: ToolVersion | None) -> tuple[str, ...]:
    if tool is None:
        return ()
    flags = [tool.group.value]
    flags += ["irreversible"] if tool.is_irreversible else []
    flags += ["leaves our boundary"] if tool.is_egress or tool.sink.is_external else []
    return tuple(flags)
