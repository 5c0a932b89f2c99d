"""The Cedar schema and entities of a release: what policies can name, and who is who.

The schema is the same in every environment; entities are those of one environment. Per-run state
is never in entities: it is context, computed per call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import ToolName
from interlock.domain.label import UNDECLARED
from interlock.domain.principal import Seat
from interlock.domain.release import Release
from interlock.domain.tool import Environment, Group, ToolVersion
from interlock.domain.workflow import WORKFLOW_AGENT, WorkflowSpec
from interlock.policy.context import FACT_TYPES, Derived, parse_derived
from interlock.policy.shape import (
    Record,
    arguments_shape,
    cedar_type,
    is_always_present,
    is_closed,
)

MODEL_ACTION = "model.request"
GROUP_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "read": (),
    "write": (),
    "destructive": ("write",),
    "egress": (),
    "model": (),
}
"""The action groups, each with the groups it is in."""

_HIGHEST_RISK = 3
# Cedar refuses a policy whose scope matches no action at all. This one, which no call can have,
# keeps `action in Action::"destructive"` valid in a project that has no destructive tool.
_NO_CALL = "interlock.no_call"
RESERVED_ACTIONS = frozenset({*GROUP_ACTIONS, MODEL_ACTION, _NO_CALL})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResource:
    """A model as policy sees it: its name, whether it is outside, and the labels it may be sent."""

    name: str
    external: bool
    accepts: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One Cedar entity: `parents` and `attributes` as in Cedar's JSON format."""

    kind: str
    name: str
    attributes: JsonObject
    parents: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> JsonObject:
        """Render in Cedar's JSON entity format."""
        return {
            "uid": {"type": self.kind, "id": self.name},
            "attrs": self.attributes,
            "parents": [{"type": kind, "id": name} for kind, name in self.parents],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAction:
    """One tool as an action: the groups it is in, its arguments' shape and derived values.

    `always_derived` are the derived values that every call has.
    """

    groups: frozenset[str]
    arguments: Record
    derived: Mapping[str, Derived]
    always_derived: frozenset[str]

    @classmethod
    def of(cls, tool: ToolVersion) -> ToolAction:
        """Build it from a tool version; raises `InputError` for a malformed derived value."""
        view = tool.policy_view
        derived = {name: parse_derived(text) for name, text in view.derived.items()}
        return cls(
            groups=groups_of(tool),
            arguments=arguments_shape(tool.input_schema, hidden=view.hidden),
            derived=derived,
            always_derived=frozenset(
                name
                for name, value in derived.items()
                if is_always_present(tool.input_schema, value.pointer)
            ),
        )

    def to_json(self) -> JsonObject:
        """Render as an action of Cedar's JSON schema format."""
        own: JsonObject = {
            "args": cedar_type(self.arguments),
            "derived": cedar_type(
                Record(
                    fields={name: value.shape for name, value in self.derived.items()},
                    required=self.always_derived,
                )
            ),
        }
        return _action(sorted(self.groups), "Tool", own)


def is_outbound(tool: ToolVersion) -> bool:
    """Whether arguments of this tool leave our trust boundary."""
    return tool.is_egress or tool.sink.is_external


def groups_of(tool: ToolVersion) -> frozenset[str]:
    """Return the action groups that a tool is directly in."""
    groups = {tool.group.value}
    if is_outbound(tool):
        groups.add("egress")
    return frozenset(groups)


def is_judged_alike(
    release: Release, old: ToolVersion, live: ToolVersion, environment: Environment
) -> bool:
    """Whether a call of an old version may be judged as one of the live version.

    That is, if all that policies go by is the same: groups, the entity's attributes (risk, labels
    accepted, whether it is external, ...), the labels of a result and the form of the arguments.
    """
    return (
        groups_of(old) == groups_of(live)
        and _tool(release, old, environment) == _tool(release, live, environment)
        and (old.source, old.input_schema) == (live.source, live.input_schema)
    )


def ancestors_of(groups: frozenset[str]) -> frozenset[str]:
    """Return groups with all groups above them."""
    return groups | {above for group in groups for above in GROUP_ACTIONS[group]}


def schema_json(release: Release, actions: Mapping[ToolName, ToolAction]) -> JsonObject:
    """Return the schema in Cedar's JSON format."""
    every_group = sorted(GROUP_ACTIONS)
    empty: JsonObject = {"args": cedar_type(Record()), "derived": cedar_type(Record())}
    cedar_actions: JsonObject = {
        **{name: {"memberOf": _ids(above)} for name, above in GROUP_ACTIONS.items()},
        MODEL_ACTION: _action(["model"], "Model", {}),
        _NO_CALL: _action([g for g in every_group if g != "model"], "Tool", empty),
        **{name: action.to_json() for name, action in sorted(actions.items())},
    }
    return {"": {"entityTypes": _entity_types(release), "actions": cedar_actions}}


def build_entities(
    release: Release, environment: Environment, *, models: Mapping[str, ModelResource]
) -> dict[tuple[str, str], Entity]:
    """Return the entities of one environment by (kind, name); only bound tools are there."""
    bound = {
        name: tool
        for name, tool in release.tools.items()
        if release.binding(name, environment) is not None
    }
    entities = [
        *(Entity(kind="System", name=name, attributes={}) for name in release.systems),
        *(_tool(release, tool, environment) for tool in bound.values()),
        *(_model(model, environment) for model in models.values()),
    ]
    for workflow in release.workflows.values():
        entities.append(
            Entity(
                kind="Workflow",
                name=workflow.name,
                attributes={},
                parents=(("Department", workflow.department), ("Tenant", workflow.tenant)),
            )
        )
        level = release.level(workflow.name, environment)
        entities.extend(
            _agent(workflow, seat, environment, bound, level=level) for seat in seats_of(workflow)
        )
    return {(entity.kind, entity.name): entity for entity in entities}


def seats_of(workflow: WorkflowSpec) -> tuple[Seat, ...]:
    """Return the seats of a workflow: its agents', and its own for plain tool steps."""
    agents = dict.fromkeys(seat.agent for seat in workflow.seats) | {WORKFLOW_AGENT: None}
    return tuple(Seat(workflow=workflow.name, agent=agent) for agent in agents)


def known_names(release: Release, *, models: Mapping[str, ModelResource]) -> dict[str, set[str]]:
    """Return the ids, by entity type, that a policy of this release may name."""
    workflows = release.workflows.values()
    return {
        "Tenant": {w.tenant for w in workflows}
        | {s.tenant for s in release.systems.values() if s.tenant is not None},
        "Department": {w.department for w in workflows},
        "System": set(release.systems),
        "Workflow": set(release.workflows),
        "Agent": {str(seat) for w in workflows for seat in seats_of(w)},
        "Tool": set(release.tools),
        "Model": set(models),
    }


def _entity_types(release: Release) -> JsonObject:
    accepts: JsonObject = {"type": "Set", "element": {"type": "Entity", "name": "Label"}}
    text: JsonObject = {"type": "String"}
    number: JsonObject = {"type": "Long"}
    tenant: JsonObject = {"type": "Entity", "name": "Tenant"}
    tools: JsonObject = {"type": "Set", "element": {"type": "Entity", "name": "Tool"}}
    labels: list[Json] = [*sorted({*release.labels, UNDECLARED})]
    return {
        "Tenant": {},
        "Department": {},
        "System": {},
        "Workflow": {"memberOfTypes": ["Department", "Tenant"]},
        "Label": {"enum": labels},
        "Agent": {
            "memberOfTypes": ["Workflow"],
            "shape": _record_type(tenant=tenant, env=text, autonomy=number, tools=tools),
        },
        "Tool": {
            "memberOfTypes": ["System"],
            "shape": _record_type(
                tenant=tenant | {"required": False},
                env=text,
                risk=number,
                owner=text,
                accepts=accepts,
                external={"type": "Boolean"},
            ),
        },
        "Model": {
            "shape": _record_type(env=text, accepts=accepts, external={"type": "Boolean"}),
        },
    }


def _record_type(**attributes: JsonObject) -> JsonObject:
    return {"type": "Record", "attributes": {**attributes}}


def _action(groups: list[str], resource: str, own: JsonObject) -> JsonObject:
    return {
        "memberOf": _ids(groups),
        "appliesTo": {
            "principalTypes": ["Agent"],
            "resourceTypes": [resource],
            "context": {"type": "Record", "attributes": {**FACT_TYPES, **own}},
        },
    }


def _ids(names: tuple[str, ...] | list[str]) -> list[Json]:
    return [{"id": name} for name in names]


def _tool(release: Release, tool: ToolVersion, environment: Environment) -> Entity:
    system = release.systems.get(tool.system)
    # An open object lets arguments pass that no policy can see.
    is_opaque = tool.group is not Group.READ and not is_closed(tool.input_schema)
    attributes: JsonObject = {
        "env": environment,
        "risk": _HIGHEST_RISK if is_opaque else tool.risk,
        "owner": tool.owner,
        "accepts": _labels(tool.sink.accepts),
        "external": is_outbound(tool),
    }
    if system is not None and system.tenant is not None:
        attributes["tenant"] = _reference("Tenant", system.tenant)
    return Entity(
        kind="Tool", name=tool.name, attributes=attributes, parents=(("System", tool.system),)
    )


def _model(model: ModelResource, environment: Environment) -> Entity:
    return Entity(
        kind="Model",
        name=model.name,
        attributes={
            "env": environment,
            "accepts": _labels(model.accepts),
            "external": model.external,
        },
    )


def _agent(
    workflow: WorkflowSpec,
    seat: Seat,
    environment: Environment,
    bound: Mapping[ToolName, ToolVersion],
    *,
    level: int,
) -> Entity:
    tools = sorted(workflow.tools_of(seat.agent) & set(bound))
    return Entity(
        kind="Agent",
        name=str(seat),
        attributes={
            "tenant": _reference("Tenant", workflow.tenant),
            "env": environment,
            "autonomy": level,
            "tools": [_reference("Tool", tool) for tool in tools],
        },
        parents=(("Workflow", workflow.name),),
    )


def _labels(names: frozenset[str]) -> list[Json]:
    return [_reference("Label", name) for name in sorted(names)]


def _reference(kind: str, name: str) -> JsonObject:
    return {"__entity": {"type": kind, "id": name}}
