"""What applying a project would change, first of all which rights it would widen, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar

from interlock.domain.autonomy import BARS, EARNED_IN, Bar, rung_key
from interlock.domain.canonical import Json, JsonObject, canonical_text, digest
from interlock.domain.record import object_to_json
from interlock.domain.release import Release
from interlock.domain.tool import ENVIRONMENTS, Environment, EnvironmentBinding, ToolVersion
from interlock.domain.workflow import WORKFLOW_AGENT, WorkflowSpec
from interlock.policy.load import load as load_policies

Action = Literal["added", "changed", "removed"]
N = TypeVar("N", bound=str)

_SIGNS: Mapping[Action, str] = {"added": "+", "changed": "~", "removed": "-"}
_POLICY_KINDS = {"grants": "grant", "approvals": "approval policy", "guardrails": "guardrail"}
_SEAT_TOOLS, _AUTONOMY = "tools of seat", "autonomy"
JUDGED = frozenset({*_POLICY_KINDS.values(), _SEAT_TOOLS, _AUTONOMY})
"""Kinds of changes of which nothing counts but what seats may do by them."""
_LENGTH = 60
GRAVE = ("group", "risk", "is_egress", "is_irreversible", "effect", "source", "sink")
"""Members of a tool that decide who may do what with it, and what a repeat of it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference: what it is about, what happens to it, and the members that differ.

    `in_prod` if it widens something of `prod` that no comparison of what seats may do can judge.
    """

    kind: str
    name: str
    action: Action
    is_widening: bool = False
    details: tuple[str, ...] = ()
    in_prod: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """All differences, widening ones first, then by kind and name.

    `digest` fixes both sides: an apply that names it does exactly what was shown. `notices` are of
    the new side: versions that are deprecated and still called.
    """

    base: int
    digest: str
    changes: tuple[Change, ...]
    notices: tuple[str, ...] = ()

    @property
    def is_wider(self) -> bool:
        """Whether something is wider that no comparison of what seats may do can judge."""
        return any(change.is_widening and change.kind not in JUDGED for change in self.changes)

    @property
    def is_wider_in_prod(self) -> bool:
        """Whether that is something of `prod`."""
        return any(change.in_prod for change in self.changes)

    def to_json(self) -> JsonObject:
        """Render for REST and programs."""
        return object_to_json(self)

    def to_text(self) -> str:
        """Render for people, one change a line."""
        notices = ["", "Deprecated and still called", *(f"  {line}" for line in self.notices)]
        after = notices if self.notices else []
        if not self.changes:
            return "\n".join([f"No changes to release {self.base}.", *after])
        lines = [f"Changes to release {self.base}:" if self.base else "A first release:"]
        for title, is_widening in (("Rights and risks", True), ("Definitions", False)):
            chosen = [change for change in self.changes if change.is_widening == is_widening]
            lines += ["", title] if chosen else []
            for change in chosen:
                lines.append(f"  {_SIGNS[change.action]} {change.kind} {change.name}")
                lines += [f"      {detail}" for detail in change.details]
        return "\n".join([*lines, *after])


def diff(old: Release, new: Release) -> Diff:
    """Compare a live release with a candidate."""
    changes = [
        *_definitions("system", old.systems, new.systems),
        *_definitions("server", old.servers, new.servers),
        *_definitions("tool", old.tools, new.tools),
        *_definitions("tool", *_older(old, new)),
        *_definitions("agent", old.agents, new.agents),
        *_definitions("workflow", old.workflows, new.workflows),
        *_words("label", old.labels, new.labels),
        *_words("team", old.teams, new.teams),
        *_tool_risks(old, new),
        *_versions(old, new),
        *_lifted(old.quarantine, new.quarantine),
        *_rights(old, new),
        *_doors(old.workflows, new.workflows),
        *_autonomy(old, new),
        *_bars(old, new),
        *_budgets(old, new),
        *_policies(old, new),
    ]
    changes.sort(key=lambda change: (not change.is_widening, change.kind, change.name))
    sides = [{**object_to_json(side), "number": 0} for side in (old, new)]
    return Diff(
        base=old.number,
        digest=digest([*sides]),
        changes=tuple(changes),
        notices=tuple(_notices(new)),
    )


def _notices(release: Release) -> Iterator[str]:
    for name in sorted(release.tools):
        callers = release.callers(name)
        for place, tool in release.every_live(name).items():
            declared = tool.deprecation
            if declared is not None and callers:
                by = ", ".join(f"`{flow.name}` of `{flow.owner}`" for flow in callers)
                end = "" if declared.until is None else f" until {declared.until}"
                use = "" if declared.tool is None else f"; use {declared.successor}"
                yield f"{name}@{tool.version} in {place}{end}, by {by}: {declared.reason}{use}"


def _definitions(kind: str, old: Mapping[N, object], new: Mapping[N, object]) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if before is None or after is None:
            yield Change(kind=kind, name=name, action="added" if before is None else "removed")
            continue
        details = tuple(_members(object_to_json(before), object_to_json(after)))
        yield Change(kind=kind, name=name, action="changed", details=details)


def _older(
    old: Release, new: Release
) -> tuple[Mapping[str, ToolVersion], Mapping[str, ToolVersion]]:
    """Return the versions that are not the newest, as they were and as they are to be."""
    were = {key: old.tool_version(tool.name, tool.version) for key, tool in new.old_tools.items()}
    return {key: tool for key, tool in were.items() if tool is not None}, new.old_tools


def _members(before: JsonObject, after: JsonObject) -> Iterator[str]:
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            yield f"{key}: {_short(before.get(key))} -> {_short(after.get(key))}"


def _short(value: Json) -> str:
    text = canonical_text(value)
    return text if len(text) <= _LENGTH else text[: _LENGTH - 3] + "..."


def _words(kind: str, old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[Change]:
    for word in sorted(set(old) ^ set(new)):
        yield Change(kind=kind, name=word, action="added" if word in new else "removed")


def _tool_risks(old: Release, new: Release) -> Iterator[Change]:
    for name in sorted({*old.tools} & {*new.tools}):
        before, after = old.every_live(name), new.every_live(name)
        moves = [(old.tools[name], new.tools[name])]
        moves += [(before[place], after[place]) for place in after if place in before]
        details = dict.fromkeys(line for move in moves for line in _graver(*move))
        details |= dict.fromkeys(_targets(before, after))
        if details:
            yield Change(
                kind="risk of tool",
                name=name,
                action="changed",
                is_widening=True,
                details=tuple(details),
                in_prod="prod" in after,
            )


def _graver(old: ToolVersion, new: ToolVersion) -> Iterator[str]:
    before, after = object_to_json(old), object_to_json(new)
    for key in GRAVE:
        if before[key] != after[key]:
            yield f"{key}: {_short(before[key])} -> {_short(after[key])}"


def _versions(old: Release, new: Release) -> Iterator[Change]:
    """Tell whose workflows call a tool that gets another version, in each environment."""
    for name in sorted({*old.tools} & {*new.tools}):
        before = old.every_live(name)
        for place, tool in new.every_live(name).items():
            if place in before and before[place].version != tool.version:
                users = (
                    f"called by `{flow.name}` of `{flow.owner}`"
                    for flow in new.callers(name)
                    if flow.name in old.workflows
                )
                yield Change(
                    kind="version of tool",
                    name=f"{name} in {place}",
                    action="changed",
                    is_widening=True,
                    details=(f"version {before[place].version} -> {tool.version}", *users),
                    in_prod=place == "prod",
                )


def _lifted(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    for binding in sorted(old.keys() - new.keys()):
        yield Change(
            kind="quarantine",
            name=binding,
            action="removed",
            is_widening=True,
            details=(old[binding],),
            in_prod=binding.endswith("@prod"),
        )


def _targets(
    old: Mapping[Environment, ToolVersion], new: Mapping[Environment, ToolVersion]
) -> Iterator[str]:
    for environment, tool in new.items():
        before = old[environment].environments[environment] if environment in old else None
        target = tool.environments[environment]
        if before != target:
            yield f"{environment}: {_target(before)} -> {_target(target)}"


def _target(binding: EnvironmentBinding | None) -> str:
    if binding is None:
        return "not bound"
    given = binding.credentials
    if isinstance(given, Mapping):
        given = ", ".join(f"{given[name]} for {name}" for name in sorted(given))
    return f"{binding.server} with {given or 'no credentials'}"


def _rights(old: Release, new: Release) -> Iterator[Change]:
    yield from _granted(_SEAT_TOOLS, _seats(old.workflows), _seats(new.workflows))
    outside = frozenset(
        str(trigger.agent)
        for flow in new.workflows.values()
        for trigger in flow.triggers
        if trigger.environment == "prod"
    )
    yield from _granted("models of outside agent", _models(old), _models(new), in_prod=outside)


def _granted(
    kind: str,
    before: Mapping[str, set[str]],
    after: Mapping[str, set[str]],
    *,
    in_prod: frozenset[str] = frozenset(),
) -> Iterator[Change]:
    for name in sorted({*before, *after}):
        had, has = before.get(name, set()), after.get(name, set())
        if has - had:
            yield Change(
                kind=kind,
                name=name,
                action="added",
                is_widening=True,
                details=tuple(sorted(has - had)),
                in_prod=name in in_prod,
            )
        if had - has:
            details = tuple(sorted(had - has))
            yield Change(kind=kind, name=name, action="removed", details=details)


def _models(release: Release) -> dict[str, set[str]]:
    return {str(name): set(agent.models) for name, agent in release.agents.items()}


def _seats(workflows: Mapping[N, WorkflowSpec]) -> dict[str, set[str]]:
    return {
        f"{name}/{agent}": set(spec.tools_of(agent))
        for name, spec in workflows.items()
        for agent in [*(seat.agent for seat in spec.seats), WORKFLOW_AGENT]
    }


def _doors(old: Mapping[N, WorkflowSpec], new: Mapping[N, WorkflowSpec]) -> Iterator[Change]:
    """Compare where outside agents may open sessions."""
    before, after = (
        {
            f"{name}/{trigger.agent} in {trigger.environment}"
            for name, spec in side.items()
            for trigger in spec.triggers
            if trigger.agent is not None
        }
        for side in (old, new)
    )
    for name in sorted(before ^ after):
        is_new = name in after
        action: Action = "added" if is_new else "removed"
        yield Change(
            kind="sessions of",
            name=name,
            action=action,
            is_widening=is_new,
            in_prod=is_new and name.endswith(" in prod"),
        )


def _autonomy(old: Release, new: Release) -> Iterator[Change]:
    """Compare how far workflows act by themselves; what is earned only gets less by an apply."""
    for name, spec in new.workflows.items():
        for environment in ENVIRONMENTS:
            before, after = old.level(name, environment), new.level(name, environment)
            if before == after:
                continue
            declared = spec.autonomy.get(environment)
            rung = new.ladder.get(rung_key(name, environment))
            by, reason = (
                (declared.by, declared.reason)
                if declared is not None and environment not in EARNED_IN
                else ("nobody", "")
                if rung is None
                else (rung.by, rung.reason)
            )
            yield Change(
                kind=_AUTONOMY,
                name=f"{name} in {environment}",
                action="changed",
                is_widening=after > before,
                details=(f"level {before} -> {after}", f"by {by}: {reason}"),
            )


def _bars(old: Release, new: Release) -> Iterator[Change]:
    """Compare what steps up take: one that takes less of anything is widening."""
    for step in BARS:
        before, after = old.bar(step), new.bar(step)
        if before != after:
            is_lower = (
                after.count < before.count
                or after.agreement < before.agreement
                or after.days < before.days
            )
            yield Change(
                kind="bar",
                name=f"autonomy level {step}",
                action="changed",
                is_widening=is_lower,
                in_prod=is_lower,
                details=tuple(
                    f"{each.name}: {getattr(before, each.name)} -> {getattr(after, each.name)}"
                    for each in fields(Bar)
                    if getattr(before, each.name) != getattr(after, each.name)
                ),
            )


def _budgets(old: Release, new: Release) -> Iterator[Change]:
    """Compare budgets: one that is gone, or that no longer holds all that it held, is widening."""
    has_prod = any("prod" in new.every_live(name) for name in new.tools)
    for change in _definitions("budget", old.budgets, new.budgets):
        before, after = old.budgets.get(change.name), new.budgets.get(change.name)
        is_tighter = before is None or (
            after is not None
            and after.limit <= before.limit
            and replace(after, limit=0, soft=None, title="")
            == replace(before, limit=0, soft=None, title="")
        )
        # A budget counts in all environments.
        yield replace(change, is_widening=not is_tighter, in_prod=has_prod and not is_tighter)


def _policies(old: Release, new: Release) -> Iterator[Change]:
    """Compare policies one by one: more grants, or less of what forbids, is widening."""
    before = {policy.policy_id: policy for policy in load_policies(old.policies)[0]}
    after = {policy.policy_id: policy for policy in load_policies(new.policies)[0]}
    for policy_id in sorted({*before, *after}):
        was, now = before.get(policy_id), after.get(policy_id)
        if was is not None and now is not None and was.text == now.text and was.kind == now.kind:
            continue
        # A grant widens by what it says now, anything that forbids by what it no longer says.
        gains = now is not None and now.kind == "grants"
        loses = was is not None and was.kind != "grants"
        subject = now or was
        # INVARIANT: an id comes from one of the two.
        assert subject is not None
        yield Change(
            kind=_POLICY_KINDS[subject.kind],
            name=policy_id,
            action="added" if was is None else "removed" if now is None else "changed",
            is_widening=gains or loses,
            details=(subject.why,) if subject.why else (),
        )
