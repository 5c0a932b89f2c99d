"""The approval card: what a person must see before answering, from the bound call alone."""

from __future__ import annotations

from dataclasses import dataclass

from interlock.domain.approval import Approval
from interlock.domain.release import Release
from interlock.domain.text import visible
from interlock.store import decisions, effects, runs
from interlock.store.engine import Tx

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
class Card:
    """An approval as it is shown.

    `heading` comes from the registry, never from the agent. `rules` are the policies that ask,
    with their reasons. `undo` names the compensation, None if there is none.
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


def card_of(tx: Tx, release: Release, approval: Approval) -> Card:
    """Compute the card of an approval from its effect row, the registry and the decision."""
    effect = effects.get(tx, approval.effect_id)
    run = runs.get(tx, approval.run_id)
    # A hand-off is started by its parent; people know what started the whole.
    trigger = runs.get(tx, run.request.root_id or run.run_id).request.trigger
    tool = release.tool_version(effect.tool, effect.tool_version)
    decided = [
        d
        for d in decisions.list_for_effect(tx, effect.effect_id)
        if d.decision_id == approval.decision_id
    ]
    reasons = decided[0].decision.reasons if decided else ()
    flags = []
    if tool is not None:
        flags = [tool.group.value]
        flags += ["irreversible"] if tool.is_irreversible else []
        flags += ["leaves our boundary"] if tool.is_egress or tool.sink.is_external else []
    labels = sorted(run.labels.names) + (["untrusted"] if run.labels.is_untrusted else [])
    return Card(
        heading=effect.tool if tool is None else tool.title,
        tool=effect.tool,
        tool_version=effect.tool_version,
        system="" if tool is None else tool.system,
        environment=effect.environment,
        risk=3 if tool is None else tool.risk,
        flags=tuple(flags),
        arguments=tuple(
            Argument(name=name, value=visible(value)) for name, value in effect.arguments.items()
        ),
        rules=tuple(f"{r.policy_id or r.code}: {r.message}" for r in reasons),
        guarantee=_GUARANTEES[effect.effect_class.value],
        undo=None if tool is None or tool.compensation is None else tool.compensation.tool,
        seats=tuple(str(seat) for seat in effect.seats),
        workflow=effect.workflow,
        labels=tuple(labels),
        trigger=f"{trigger.source} {trigger.key}",
    )
