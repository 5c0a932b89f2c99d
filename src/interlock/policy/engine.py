"""Decides: arguments and facts in, `Decision` with reasons out; pure, and any doubt is a deny.

Cedar knows allow and deny; our four outcomes come from two evaluations. The first asks with the
groups whose approval is valid. If it denies and every policy that determined this can be lifted,
the second asks with exactly those groups added: an approval is never offered for a call that it
would not unlock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import cedarpy
from cedarpy import pst

from interlock.domain.approval import MOST_PEOPLE, groups_of, team_of
from interlock.domain.canonical import Json, JsonObject, digest
from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest, Reason
from interlock.domain.errors import InputError, PolicyError
from interlock.domain.ids import ToolName
from interlock.domain.label import UNDECLARED
from interlock.domain.principal import Seat
from interlock.domain.release import Release
from interlock.domain.tool import Environment
from interlock.policy.context import facts_context
from interlock.policy.lint import Checked, read_policies
from interlock.policy.load import (
    DRAFT,
    RESERVED_GROUPS,
    SYSTEM_OWNER,
    WORKFLOW_OWNER,
    Policy,
    policy_set,
)
from interlock.policy.partial import blank, extremes, filled_in, paths_of
from interlock.policy.schema import (
    MODEL_ACTION,
    Entity,
    ModelResource,
    ToolAction,
    ancestors_of,
    build_entities,
    is_judged_alike,
    seats_of,
)
from interlock.policy.shape import cedar_value, find_reserved_key
from interlock.policy.slices import Target, Uid, slice_of

__all__ = ["ModelResource", "Slice", "World", "build_world"]

_FAILED = re.compile(r"while evaluating policy `([^`]+)`")
OBSERVED = "policy.observed"
"""Code of what a policy in observe mode would have said."""
_NO_GRANT = Reason(code="policy.no_grant", message="no grant permits this call")
_STRICTNESS = (Outcome.ALLOW, Outcome.NEEDS_APPROVAL, Outcome.DRAFT, Outcome.DENY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The policies that can match one action on one resource, as a handle, with their digest.

    `observed` are those that decide nothing, `watch` a handle that allows where one of them holds.
    """

    target: Target
    policies: Mapping[str, Policy]
    handle: cedarpy.PolicySet
    observed: Mapping[str, Policy]
    watch: cedarpy.PolicySet
    action: ToolAction | None
    owner: str
    version: str


class World:
    """One environment's policies, schema and entities; immutable, replaced whole."""

    def __init__(
        self,
        release: Release,
        environment: Environment,
        *,
        checked: Checked,
        models: Mapping[str, ModelResource],
    ) -> None:
        self.environment = environment
        self.policy_version = _policy_version(release, checked)
        self._release = release
        self._schema = cedarpy.Schema.from_json_str(json.dumps(checked.schema))
        self._entities_by_uid = build_entities(release, environment, models=models)
        rendered = [entity.to_json() for entity in self._entities_by_uid.values()]
        self._entities = cedarpy.Entities.from_json_str(json.dumps(rendered), self._schema)
        self._labels = frozenset({*release.labels, UNDECLARED})
        self._slices = {
            target.resource: _sliced(release, checked, target, self._entities_by_uid)
            for target in _targets(checked.actions, self._entities_by_uid.values())
        }
        self._versions: dict[tuple[str, Uid], str] = {}
        self._seat_versions = {
            str(seat): _seat_version(seat, self._entities_by_uid)
            for workflow in release.workflows.values()
            for seat in seats_of(workflow)
        }

    def decide(self, request: PolicyRequest) -> Decision:
        """Decide one call for every seat of its chain; the strictest outcome wins.

        Never raises for input: what cannot be judged is denied, with the reason.
        """
        return self._decide(request, self._slices.get(_resource(request)), unknown=frozenset())

    def bounds(self, request: PolicyRequest, *, unknown: Collection[str]) -> tuple[Decision, ...]:
        """Return the most lenient and the strictest way in which a call can still be decided.

        `unknown` are pointers into the arguments; what stands there is not read. Whatever it will
        be, the decision is no more lenient than the first and, unless its evaluation fails, no
        stricter than the second. Never an answer by which to send.
        """
        places = frozenset(unknown)
        part = self._slices.get(_resource(request))
        if part is None or not places:
            decision = self._decide(request, part, unknown=places)
            return decision, decision
        paths = paths_of(places, {} if part.action is None else part.action.derived)
        return tuple(
            self._decide(request, _with_policies(part, policies), unknown=places)
            for policies in extremes(part.policies.values(), paths)
        )

    def _decide(
        self, request: PolicyRequest, part: Slice | None, *, unknown: frozenset[str]
    ) -> Decision:
        refusal = self._refusal(request, part)
        if refusal is not None or part is None:
            return self._answer(Outcome.DENY, reasons=[refusal] if refusal else [])
        try:
            own = _own_context(part, request, unknown)
        except InputError as error:
            return self._answer(Outcome.DENY, reasons=[_reason("policy.unmappable", error.message)])
        decisions = [self._decide_seat(seat, request, part, own) for seat in request.seats]
        decision = self._strictest(decisions)
        if part.observed:
            decision = replace(decision, observed=self._observed(request, part, own))
        return decision

    def fingerprint(self, request: PolicyRequest) -> tuple[object, ...]:
        """Return all that decides requests of this kind beside their arguments and facts.

        Two worlds with equal ones decide such requests alike.
        """
        part = self._slices.get(_resource(request))
        if part is None:
            return (None,)
        tool = request.tool
        known = [seat for seat in request.seats if str(seat) in self._seat_versions]
        return (
            part.version,
            None if tool is None else self._tool_refusal(tool, request.tool_version),
            tuple(self._seat_versions.get(str(seat)) for seat in request.seats),
            tuple(tuple(sorted(self.teams(seat, part).items())) for seat in known),
            self._labels,
        )

    def slice_version(self, seat: Seat, tool: ToolName) -> str:
        """Return the digest of everything in this world that can decide this seat on this tool.

        Policies in scope, the action's schema, and seat and tool with what they are in; "" if
        there is no such seat or tool here. An approval is void once it moves.
        """
        part = self._slices.get(("Tool", tool))
        if part is None or str(seat) not in self._seat_versions:
            return ""
        return self._slice_version(seat, part)

    @property
    def release(self) -> Release:
        """Return the release as this environment has it."""
        return self._release

    def is_quarantined(self, tool: ToolName) -> bool:
        """Return whether no call of a tool is made here until somebody has looked at it."""
        return f"{tool}@{self.environment}" in self._release.quarantine

    @property
    def entities(self) -> Mapping[Uid, Entity]:
        """Return who is who here, by type and id."""
        return self._entities_by_uid

    @property
    def labels(self) -> frozenset[str]:
        """Return the labels that a run can carry."""
        return self._labels

    def slice_of(self, tool: ToolName) -> Slice | None:
        """Return the policies that can match a tool; None if it is not bound here."""
        return self._slices.get(("Tool", tool))

    @property
    def slices_of_models(self) -> dict[str, Slice]:
        """Return the policies that can match requests to models, by the model's name."""
        return {name: part for (kind, name), part in self._slices.items() if kind == "Model"}

    def matches(self, seat: Seat, part: Slice, rule: pst.Template) -> bool:
        """Return whether a rule that reads nothing of facts and arguments matches a seat's call."""
        action = part.action
        own: JsonObject = {}
        if action is not None:
            derived = {name: blank(action.derived[name].shape) for name in action.always_derived}
            own = {"args": blank(action.arguments), "derived": derived}
        alone = replace(rule, effect="permit")
        handle = cedarpy.PolicySet.from_pst(
            pst.PolicySet(templates={}, static_policies={rule.id: alone}, template_links=())
        )
        asked = PolicyRequest(
            seats=(seat,), environment=self.environment, tool=None, arguments={}, facts=Facts()
        )
        return self._evaluate(seat, asked, replace(part, handle=handle), own, frozenset()).allowed

    def _refusal(self, request: PolicyRequest, part: Slice | None) -> Reason | None:
        if request.environment != self.environment:
            return _reason("policy.environment", f"this world is `{self.environment}`'s")
        if part is None and request.tool is None:
            return _reason("model.unknown", f"there is no model `{request.model}` here")
        if part is None:
            return _reason("tool.unknown", f"there is no tool `{request.tool}` here")
        if request.tool is not None:
            refusal = self._tool_refusal(request.tool, request.tool_version)
            if refusal is not None:
                return refusal
        if not request.seats:
            return _reason("seat.unknown", "the call has no seat")
        for seat in request.seats:
            if str(seat) not in self._seat_versions:
                return _reason("seat.unknown", f"there is no seat `{seat}`")
        reserved = find_reserved_key(request.arguments)
        if reserved is not None:
            return _reason(
                "policy.reserved_key", f"the key `{reserved}` is not allowed in arguments"
            )
        unknown = sorted(request.facts.labels.names - self._labels)
        if unknown:
            return _reason("label.unknown", f"the run carries the unknown label `{unknown[0]}`")
        return None

    def _tool_refusal(self, name: ToolName, version: int | None) -> Reason | None:
        quarantine = self._release.quarantine.get(f"{name}@{self.environment}")
        if quarantine is not None:
            return _reason("tool.quarantined", quarantine)
        live = self._release.tools[name]
        if version in {None, live.version}:
            return None
        old = self._release.old_tools.get(f"{name}@{version}")
        if old is not None and is_judged_alike(self._release, old, live, self.environment):
            return None
        return _reason(
            "tool.version",
            f"version {version} of `{name}` cannot be judged by policies for version"
            f" {live.version}, which differs in what they go by",
        )

    def _decide_seat(
        self, seat: Seat, request: PolicyRequest, part: Slice, own: JsonObject
    ) -> Decision:
        teams = self.teams(seat, part)
        lifted = _lifted(request, teams)
        first = self._evaluate(seat, request, part, own, lifted)
        version = self._slice_version(seat, part)
        if first.diagnostics.errors or first.decision is cedarpy.Decision.NoDecision:
            return self._answer(Outcome.DENY, reasons=_errors(first), version=version)
        determining = sorted(
            (part.policies[policy_id] for policy_id in first.diagnostics.reasons),
            # What nobody can lift comes first: callers are told the first reason.
            key=lambda policy: (bool(policy.groups), policy.policy_id),
        )
        if first.decision is cedarpy.Decision.Allow:
            reasons = [_because("policy.allowed", policy) for policy in determining]
            return self._answer(Outcome.ALLOW, reasons=reasons, version=version)
        if not determining:
            return self._answer(Outcome.DENY, reasons=[_NO_GRANT], version=version)
        groups = {group for policy in determining for group in policy.groups}
        is_absolute = not all(policy.is_liftable(teams) for policy in determining)
        second = None if is_absolute else self._evaluate(seat, request, part, own, lifted | groups)
        if second is None or not second.allowed or second.diagnostics.errors:
            reasons = [_because("policy.denied", policy) for policy in determining]
            # All forbids that hold are lifted in the second answer: what is left is no permit.
            reasons.extend([_NO_GRANT] if second is not None else [])
            return self._answer(Outcome.DENY, reasons=reasons, version=version)
        outcome = Outcome.DRAFT if DRAFT in groups else Outcome.NEEDS_APPROVAL
        return self._answer(
            outcome,
            reasons=[_because(f"policy.{outcome}", policy) for policy in determining],
            groups=frozenset(teams.get(group, group) for group in groups - {DRAFT}),
            version=version,
        )

    def _observed(self, request: PolicyRequest, part: Slice, own: JsonObject) -> tuple[Reason, ...]:
        """Return what the policies that are only observed would have said, for any seat."""
        watched, found = replace(part, handle=part.watch), list[Reason]()
        for seat in request.seats:
            lifted = _lifted(request, self.teams(seat, part))
            answer = self._evaluate(seat, request, watched, own, lifted)
            held = sorted(answer.diagnostics.reasons) if answer.allowed else []
            found += [_because(OBSERVED, part.observed[policy_id]) for policy_id in held]
            found += _errors(answer) if answer.diagnostics.errors else []
        return tuple(dict.fromkeys(found))

    def _evaluate(
        self,
        seat: Seat,
        request: PolicyRequest,
        part: Slice,
        own: JsonObject,
        lifted: frozenset[str],
    ) -> cedarpy.AuthzResult:
        kind, name = part.target.resource
        return cedarpy.is_authorized(
            {
                "principal": {"type": "Agent", "id": str(seat)},
                "action": {"type": "Action", "id": part.target.action},
                "resource": {"type": kind, "id": name},
                "context": facts_context(request.facts, lifted=lifted) | own,
            },
            part.handle,
            self._entities,
            self._schema,
        )

    def teams(self, seat: Seat, part: Slice) -> dict[str, str]:
        """Return the team behind each group that depends on the call, for each of its people."""
        owners = {WORKFLOW_OWNER: self._release.workflows[seat.workflow].owner}
        if part.owner:
            owners[SYSTEM_OWNER] = part.owner
        return {
            group: team
            for role, owner in owners.items()
            for group, team in zip(
                groups_of(role, MOST_PEOPLE), groups_of(owner, MOST_PEOPLE), strict=True
            )
        }

    def _slice_version(self, seat: Seat, part: Slice) -> str:
        key = str(seat), part.target.resource
        if key not in self._versions:
            self._versions[key] = digest([part.version, self._seat_versions[key[0]]])
        return self._versions[key]

    def _strictest(self, decisions: list[Decision]) -> Decision:
        outcome = max((decision.outcome for decision in decisions), key=_STRICTNESS.index)
        deciding = [decision for decision in decisions if decision.outcome is outcome]
        versions = [decision.slice_version for decision in decisions]
        return self._answer(
            outcome,
            reasons=[reason for decision in deciding for reason in decision.reasons],
            groups=frozenset(group for decision in deciding for group in decision.groups),
            version=versions[0] if len(versions) == 1 else digest([*versions]),
        )

    def _answer(
        self,
        outcome: Outcome,
        *,
        reasons: Iterable[Reason],
        groups: frozenset[str] = frozenset(),
        version: str = "",
    ) -> Decision:
        return Decision(
            outcome=outcome,
            reasons=tuple(dict.fromkeys(reasons)),
            groups=tuple(sorted(groups)) if outcome is Outcome.NEEDS_APPROVAL else (),
            policy_version=self.policy_version,
            slice_version=version,
        )


def build_world(
    release: Release, environment: Environment, *, models: Mapping[str, ModelResource]
) -> World:
    """Build the world of one environment; raises `PolicyError` with all problems found."""
    release = release.at(environment)
    checked = read_policies(release, models=models)
    if checked.problems:
        raise PolicyError(checked.problems)
    return World(release, environment, checked=checked, models=models)


def _targets(
    actions: Mapping[ToolName, ToolAction], entities: Iterable[Entity]
) -> Iterable[Target]:
    for entity in entities:
        if entity.kind == "Tool":
            name = ToolName(entity.name)
            groups = ancestors_of(actions[name].groups)
        elif entity.kind == "Model":
            name, groups = ToolName(MODEL_ACTION), frozenset({"model"})
        else:
            continue
        yield Target(
            action=name,
            action_groups=groups,
            resource=(entity.kind, entity.name),
            resource_parents=frozenset(entity.parents),
        )


def _sliced(
    release: Release, checked: Checked, target: Target, entities: Mapping[Uid, Entity]
) -> Slice:
    matching = slice_of(checked.policies, target)
    policies = [policy for policy in matching if not policy.is_observed]
    observed = {policy.policy_id: policy for policy in matching if policy.is_observed}
    tool = release.tools.get(ToolName(target.action))
    system = None if tool is None else release.systems.get(tool.system)
    return Slice(
        target=target,
        policies={policy.policy_id: policy for policy in policies},
        handle=policy_set(policies),
        observed=observed,
        watch=policy_set(
            replace(policy, rule=replace(policy.rule, effect="permit"))
            for policy in observed.values()
        ),
        action=checked.actions.get(ToolName(target.action)),
        owner="" if system is None else system.owner,
        version=digest(
            {
                "policies": {policy.policy_id: policy.text for policy in policies},
                "action": _action_json(checked.schema, target.action),
                "resource": entities[target.resource].to_json(),
            }
        ),
    )


def _seat_version(seat: Seat, entities: Mapping[Uid, Entity]) -> str:
    involved = (("Agent", str(seat)), ("Workflow", str(seat.workflow)))
    return digest([entities[uid].to_json() for uid in involved])


def _lifted(request: PolicyRequest, teams: Mapping[str, str]) -> frozenset[str]:
    """Return the groups that agreed, by all of their names."""
    valid = {group for group in request.lifted if team_of(group) not in RESERVED_GROUPS}
    return frozenset(valid | {group for group, team in teams.items() if team in valid})


def _with_policies(part: Slice, policies: tuple[Policy, ...]) -> Slice:
    return replace(
        part,
        policies={policy.policy_id: policy for policy in policies},
        handle=policy_set(policies),
    )


def _own_context(part: Slice, request: PolicyRequest, unknown: frozenset[str]) -> JsonObject:
    action = part.action
    if action is None:
        return {}
    hidden = paths_of(unknown, action.derived) if unknown else frozenset()
    derived = {
        name: blank(value.shape) if ("derived", name) in hidden else value.of(request.arguments)
        for name, value in action.derived.items()
    }
    arguments: Json = request.arguments
    if unknown:
        arguments = filled_in(action.arguments, arguments, unknown)
    return {
        "args": cedar_value(action.arguments, arguments),
        "derived": {name: value for name, value in derived.items() if value is not None},
    }


def _resource(request: PolicyRequest) -> tuple[str, str]:
    if request.tool is not None:
        return "Tool", request.tool
    return "Model", request.model or ""


def _policy_version(release: Release, checked: Checked) -> str:
    authored = {file.path: file.text for file in release.policies}
    return digest({"policies": {**authored}, "schema": checked.schema})


def _action_json(schema: JsonObject, action: str) -> JsonObject:
    namespace = schema[""]
    # INVARIANT: `schema_json` writes the empty namespace with its actions.
    assert isinstance(namespace, dict)
    actions = namespace["actions"]
    assert isinstance(actions, dict)  # INVARIANT: as above
    found = actions[action]
    assert isinstance(found, dict)  # INVARIANT: as above
    return found


def _because(code: str, policy: Policy) -> Reason:
    return Reason(code=code, message=policy.why, policy_id=policy.policy_id)


def _reason(code: str, message: str) -> Reason:
    return Reason(code=code, message=message)


def _errors(result: cedarpy.AuthzResult) -> list[Reason]:
    """Say that evaluation failed, and in which policy; Cedar's own words may hold arguments."""
    found = {match[1] for text in result.diagnostics.errors if (match := _FAILED.search(text))}
    if not found:
        return [_reason("policy.error", "the call could not be evaluated against the schema")]
    return [
        Reason(
            code="policy.error", message="the policy could not be evaluated", policy_id=policy_id
        )
        for policy_id in sorted(found)
    ]
