"""What a workflow file must keep beyond its form: rights that hold, steps that can run, ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.clock import from_us
from interlock.domain.errors import Problem
from interlock.domain.ids import AgentName, ToolName
from interlock.domain.release import Release
from interlock.domain.tool import Environment, Group, ToolVersion
from interlock.domain.workflow import (
    WORKFLOW_AGENT,
    Condition,
    Queue,
    Step,
    Trigger,
    WorkflowSpec,
)
from interlock.manifest.checks.tools import Finding, misplaced_arguments
from interlock.manifest.files import Document, Place
from interlock.manifest.names import Names
from interlock.manifest.places import Schemas, misplaced, pointers
from interlock.policy.load import SYSTEM_OWNER, WORKFLOW_OWNER
from interlock.tools.contract import check_schema
from interlock.tools.places import has_place

_FAILURE: JsonObject = {
    "properties": {"step": {"type": "string"}, "code": {"type": "string"}, "message": {}},
    "additionalProperties": False,
}
_PLAN: JsonObject = {
    "properties": {
        "plan": {"type": "string"},
        "number": {"type": "integer"},
        "calls": {
            "type": "object",
            "additionalProperties": {
                "properties": {
                    "state": {"type": "string"},
                    "code": {"type": ["string", "null"]},
                    "message": {"type": ["string", "null"]},
                    "output": {},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
_BROKERS = {"nats": "tls", "redis": "rediss", "amqp": "amqps"}
"""The schemes of brokers, each with the one that is the same with TLS."""
_ROLES = frozenset({WORKFLOW_OWNER, SYSTEM_OWNER})


def check_workflow(
    spec: WorkflowSpec, document: Document, *, names: Names, release: Release
) -> Iterator[Problem]:
    """Yield what is wrong with a workflow; `release` is the candidate that holds it."""
    yield from names.missing(document, ("owner",), "team", spec.owner)
    yield from _unknown(spec, document, names)
    found = chain(
        _inputs(spec),
        _triggers(spec, release),
        _sessions(spec, release),
        _steps(spec, release),
        _rights(spec, release),
        _approvals(spec, release),
        _fallbacks(spec),
        _end(spec, release),
        _autonomy(spec),
        _lock(spec),
    )
    for place, message, fix in found:
        yield document.problem(place, message, fix)


def _unknown(spec: WorkflowSpec, document: Document, names: Names) -> Iterator[Problem]:
    for seat in spec.seats:
        yield from names.missing(document, ("agents", seat.agent), "Agent", seat.agent)
        for index, tool in enumerate(seat.tools):
            place: Place = ("agents", seat.agent, "tools", index)
            yield from names.missing(document, place, "Tool", tool)
    for index, tool in enumerate(spec.tools):
        yield from names.missing(document, ("tools", index), "Tool", tool)
    for index, rule in enumerate(spec.approvals):
        if rule.group not in _ROLES:
            yield from names.missing(document, ("approvals", index, "by"), "team", rule.group)


def _inputs(spec: WorkflowSpec) -> Iterator[Finding]:
    for message in check_schema(spec.input_schema):
        yield ("inputs",), message, None
    if spec.input_schema.get("type") != "object":
        yield ("inputs",), "the input of a workflow is an object", "add `type: object`"


def _lock(spec: WorkflowSpec) -> Iterator[Finding]:
    if spec.lock is not None:
        for inner, message in misplaced(spec.lock.key, {"input": spec.input_schema}):
            yield ("lock", "key", *inner), message, None


def _triggers(spec: WorkflowSpec, release: Release) -> Iterator[Finding]:
    doors = {
        trigger.source: (trigger.secret, trigger.queue)
        for other in release.workflows.values()
        for trigger in other.triggers
        if trigger.source is not None
    }
    for trigger in spec.triggers:
        place: Place = ("triggers", trigger.name)
        yield from ((place, message, fix) for message, fix in _trigger(trigger))
        if trigger.source is not None and doors[trigger.source] != (trigger.secret, trigger.queue):
            message, fix = f"the webhook `{trigger.source}` has another secret", "secret"
            if trigger.queue is not None:
                message, fix = f"`{trigger.source}` is declared in another way", "declaration"
            key = "secret" if trigger.queue is None else "queue"
            yield (*place, key), f"{message} in another trigger", f"one source has one {fix}"
        source = "tick" if trigger.kind == "cron" else "body"
        schemas: Schemas = {source: None}
        for inner, message in misplaced(trigger.input, schemas):
            yield (*place, "input", *inner), message, None
        yield from _conditions(trigger.when, schemas, (*place, "when"))
        if trigger.input is not None:
            yield from _fits(trigger.input, spec.input_schema, (*place, "input"))


def _trigger(trigger: Trigger) -> Iterator[tuple[str, str | None]]:
    if (trigger.kind == "webhook") != (trigger.secret is not None):
        verb = "needs" if trigger.kind == "webhook" else "takes no"
        yield f"a {trigger.kind} trigger {verb} `secret`", None
    secret = trigger.secret if trigger.queue is None else trigger.queue.secret
    if secret is not None and secret.split("/")[3] != trigger.environment:
        yield f"the secret is not one of `{trigger.environment}`", None
    if trigger.queue is not None:
        yield from _queue(trigger.queue, trigger.environment)
    if trigger.kind == "manual" and trigger.input is not None:
        yield "a manual trigger takes no `input`: the person gives it", None
    if trigger.kind == "session" and (trigger.input is not None or trigger.when):
        yield "a session takes neither `input` nor `when`: it begins empty", None
    if trigger.kind != "cron":
        return
    try:
        zone = ZoneInfo(trigger.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield f"there is no time zone `{trigger.timezone}`", "write it like Europe/Paris"
        return
    try:
        next(CronSim(trigger.schedule or "", from_us(0).astimezone(zone)))
    except (CronSimError, StopIteration):
        message = f"`{trigger.schedule}` is not a schedule"
        yield message, "write minute, hour, day of month, month, day of week"


def _queue(queue: Queue, environment: Environment) -> Iterator[tuple[str, str | None]]:
    try:
        url = urlsplit(queue.url)
        is_address = bool(url.hostname) and url.port != 0
    except ValueError:
        url, is_address = urlsplit(""), False
    if not is_address or url.scheme not in {*_BROKERS, *_BROKERS.values()}:
        yield "the address of the broker is not usable", "write it like nats://host:4222"
        return
    if "@" in url.netloc or url.query or url.fragment:
        fix = "give `secret`, a reference to `user:password`"
        yield "the address of the broker holds more than host, port and path", fix
    if url.scheme in _BROKERS and environment != "dev":
        fix = f"write {_BROKERS[url.scheme]}://"
        yield f"messages of `{environment}` come without TLS, which only `dev` allows", fix
    taken = re.escape(queue.name).replace(r"\*", "[^.]+").replace(">", ".+")
    if queue.dead_letter is not None and re.fullmatch(taken, queue.dead_letter):
        yield "the dead letters would be taken as messages again", "name another `dead_letter`"


def _sessions(spec: WorkflowSpec, release: Release) -> Iterator[Finding]:
    """Yield what is wrong with the sessions of outside agents, or with an outside agent's place."""
    outside = {seat.agent for seat in spec.seats if _is_outside(seat.agent, release)}
    sessions = [trigger for trigger in spec.triggers if trigger.kind == "session"]
    for trigger in sessions:
        place: Place = ("triggers", trigger.name)
        agent = trigger.agent or AgentName("")
        if agent not in {seat.agent for seat in spec.seats}:
            message = f"the agent `{agent}` has no seat in this workflow"
            yield (*place, "session"), message, "list it under `agents`"
        elif agent not in outside:
            message = f"the agent `{agent}` runs here, so nobody opens sessions for it"
            yield (*place, "session"), message, "write `outside: true` in its file"
        yield from _fits({}, spec.input_schema, (*place, "session"))
    for index, step in enumerate(spec.steps):
        for key in ("agent", "handoff", "plan"):
            if getattr(step, key) in outside:
                message = f"the agent `{getattr(step, key)}` runs outside and takes no step"
                yield ("steps", index, key), message, "give it a trigger `session`"
    if spec.steps and len(sessions) == len(spec.triggers):
        yield ("steps",), "no trigger starts these steps: a session has none", None
    if not spec.steps and len(sessions) < len(spec.triggers):
        yield (), "a workflow has `steps`, unless all its triggers are sessions", None


def _is_outside(name: AgentName, release: Release) -> bool:
    agent = release.agents.get(name)
    return agent is not None and agent.is_outside


def _fits(template: Json, schema: JsonObject, place: Place) -> Iterator[Finding]:
    """Compare the members that a template yields with those that a schema wants."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(template, dict) or not isinstance(properties, dict):
        return
    for given in template:
        if not has_place(schema, f"/{given}"):
            yield (*place, given), f"the input contract has no `{given}`", None
    for name in required if isinstance(required, list) else ():
        if name not in template:
            yield place, f"the input contract needs `{name}`", None


def _steps(spec: WorkflowSpec, release: Release) -> Iterator[Finding]:
    agents = {seat.agent for seat in spec.seats}
    targets = {mode.target for mode in spec.failure_modes}
    steps: dict[str, Json] = {}
    shared: dict[str, Json] = {}
    for index, step in enumerate(spec.steps):
        place: Place = ("steps", index)
        if step.name in steps:
            yield (*place, "name"), f"there are two steps `{step.name}`", None
        yield from ((place, message, fix) for message, fix in _step(step, agents))
        yield from _planned(step, place, spec, release)
        schemas: Schemas = {
            "input": spec.input_schema,
            "step": _closed(steps),
            "shared": _closed(shared),
            **({"failure": _FAILURE} if step.name in targets else {}),
        }
        for key, template in (("input", step.input), ("args", step.args)):
            for inner, message in misplaced(template, schemas):
                yield (*place, key, *inner), message, None
        yield from _conditions(step.when, schemas, (*place, "when"))
        tool = None if step.tool is None else release.tools.get(step.tool)
        if step.tool is not None and step.tool not in spec.tools:
            message = f"`{step.tool}` is not among the `tools` of this workflow"
            yield (*place, "tool"), message, "list it under `tools`"
        if tool is not None:
            args = {} if step.args is None else step.args
            for inner, message in misplaced_arguments(args, tool):
                yield (*place, "args", *inner), message, None
        output = _output(step, tool, release)
        steps[step.name] = output
        if step.share is not None:
            shared[step.share] = output
    used = {
        agent for step in spec.steps for agent in (step.agent, step.handoff, step.plan, step.under)
    } | {trigger.agent for trigger in spec.triggers}
    for agent in sorted(agents - used):
        yield ("agents", agent), f"no step uses the agent `{agent}`", "drop it, or add its step"


def _step(step: Step, agents: set[AgentName]) -> Iterator[tuple[str, str | None]]:
    kinds = ("agent", "handoff", "tool", "wait", "plan")
    actions = {kind: getattr(step, kind) for kind in kinds}
    given = [key for key, value in actions.items() if value is not None]
    if len(given) != 1:
        message = "a step has exactly one of `agent`, `handoff`, `tool`, `wait` and `plan`"
        yield message, f"this one has {' and '.join(given) or 'none'}"
        return
    for key in ("agent", "handoff", "handed_by", "plan"):
        name = getattr(step, key)
        if name is not None and name not in agents:
            yield f"the agent `{name}` has no seat in this workflow", "list it under `agents`"
    if (step.handoff is None) != (step.handed_by is None):
        yield "`handoff` and `handed_by` go together", None
    if step.rights == "own" and step.handoff is None:
        yield "`rights` belongs to `handoff`", None
    if (step.wait is None) != (step.timeout_s is None):
        yield "`wait` and `timeout_s` go together", "say how long to wait at most"
    if step.args is not None and step.tool is None:
        yield "`args` belongs to `tool`", "write `input` for agents"
    if step.input is not None and not (step.agent or step.handoff or step.plan):
        yield "`input` belongs to agents", "write `args` for a tool"


def _planned(step: Step, place: Place, spec: WorkflowSpec, release: Release) -> Iterator[Finding]:
    """Yield what is wrong with a step that plans, or with its keys in one that does not."""
    if step.plan is None:
        if step.tools or step.under != WORKFLOW_AGENT:
            yield place, "`tools` and `under` belong to `plan`", None
        return
    if not step.tools:
        yield place, "a plan needs `tools` that it may use", "list them under `tools` of the step"
    if step.under not in {WORKFLOW_AGENT, *(seat.agent for seat in spec.seats)}:
        message = f"the agent `{step.under}` has no seat in this workflow"
        yield (*place, "under"), message, "list it under `agents`"
    elif step.under == step.plan:
        message = "calls cannot run under the seat of their planner, which may write nothing"
        yield (*place, "under"), message, "leave `under` out, or name another agent"
    for index, name in enumerate(step.tools):
        if name not in spec.tools_of(step.under):
            message = f"the seat `{step.under}` lacks `{name}`, which the plan may use"
            yield (*place, "tools", index), message, "list it there too"
    for _, tool in _live(sorted(spec.tools_of(step.plan)), release):
        if tool.is_write:
            message = f"the planner `{step.plan}` has `{tool.name}`, which writes"
            fix = "a planner reads only; list the tool under `tools` of its step"
            yield ("agents", step.plan, "tools"), message, fix
    planner = release.agents.get(step.plan)
    if planner is not None and planner.output_schema is not None:
        message = f"the answer of the planner `{step.plan}` is a plan, but it declares `output`"
        yield (*place, "plan"), message, "drop `output` of the agent"


def _output(step: Step, tool: ToolVersion | None, release: Release) -> Json:
    """Return the schema of what a step yields; an open one where that is not known."""
    if tool is not None:
        return tool.output_schema
    if step.plan is not None:
        return _PLAN
    agent = release.agents.get(step.agent or step.handoff or AgentName(""))
    return {} if agent is None or agent.output_schema is None else agent.output_schema


def _closed(properties: Mapping[str, Json]) -> JsonObject:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _conditions(
    conditions: Sequence[Condition], schemas: Schemas, place: Place
) -> Iterator[Finding]:
    for index, condition in enumerate(conditions):
        if not list(pointers(condition.at)):
            yield (*place, index, "at"), f"`{condition.at}` is no pointer", None
        for _, message in misplaced(condition.at, schemas):
            yield (*place, index, "at"), message, None
        if condition.is_in and condition.equals is not None:
            yield (*place, index), "a condition has `equals` or `one_of`, not both", None


def _rights(spec: WorkflowSpec, release: Release) -> Iterator[Finding]:
    environments = {trigger.environment for trigger in spec.triggers}
    seats = [(seat.agent, ("agents", seat.agent, "tools"), seat.tools) for seat in spec.seats]
    for agent, place, names in [*seats, (WORKFLOW_AGENT, ("tools",), spec.tools)]:
        for index, tool in _live(names, release):
            for environment in sorted(environments - release.every_live(tool.name).keys()):
                message = f"`{tool.name}` is not bound in `{environment}`, where this runs"
                yield (*place, index), message, "bind it there, or drop it"
            probe = tool.effect.probe
            if probe is not None and probe.tool not in spec.tools_of(agent):
                message = f"the seat `{agent}` lacks `{probe.tool}`, which finds `{tool.name}`"
                yield (*place, index), message, f"list `{probe.tool}` too"
    if any(mode.then == "compensate" for mode in spec.failure_modes):
        yield from _undo(spec, release)
    for index, step in enumerate(spec.steps):
        if step.handoff is not None and step.handed_by is not None and step.rights == "chain":
            lacking = spec.tools_of(step.handoff) - spec.tools_of(step.handed_by)
            for name in sorted(lacking):
                message = f"`{step.handed_by}` may not use `{name}`, so neither may who it hands to"
                fix = "give both the tool, or declare `rights: own`"
                yield ("steps", index, "handoff"), message, fix


def _undo(spec: WorkflowSpec, release: Release) -> Iterator[Finding]:
    for _, tool in _live(sorted(spec.every_tool), release):
        undo = tool.compensation
        if undo is not None and undo.tool not in spec.tools:
            message = f"`{undo.tool}` undoes `{tool.name}` and is not among the `tools`"
            yield ("tools",), message, f"list `{undo.tool}` under `tools`"


def _live(names: Sequence[ToolName], release: Release) -> Iterator[tuple[int, ToolVersion]]:
    for index, name in enumerate(names):
        tool = release.tools.get(name)
        if tool is not None:
            yield index, tool


def _approvals(spec: WorkflowSpec, release: Release) -> Iterator[Finding]:
    every = spec.every_tool
    for index, rule in enumerate(spec.approvals):
        place: Place = ("approvals", index)
        tool = release.tools.get(rule.tool)
        if rule.tool not in every:
            message = f"no seat of this workflow has the tool `{rule.tool}`"
            yield (*place, "tool"), message, "list it, or drop the rule"
        schemas: Schemas = {"in": None if tool is None else tool.input_schema}
        yield from _conditions(rule.when, schemas, (*place, "when"))
        for number, condition in enumerate(rule.when):
            for value in condition.is_in or (condition.equals,):
                if not isinstance(value, str | bool | int):
                    message = "a rule compares texts, integers and Booleans"
                    yield (*place, "when", number), message, None
    for _, tool in _live(sorted(every), release):
        is_grave = tool.group is Group.DESTRUCTIVE or tool.risk > 1 or tool.is_irreversible
        if is_grave and tool.name not in {rule.tool for rule in spec.approvals}:
            message = f"nobody is declared to approve `{tool.name}`, whose risk is {tool.risk}"
            yield ("approvals",), message, f"add a rule for `{tool.name}`, by whom and why"


def _fallbacks(spec: WorkflowSpec) -> Iterator[Finding]:
    codes = [mode.code for mode in spec.failure_modes]
    if codes[-1] != "*":
        message = "the last fallback must be for `*`, so that every failure has one"
        yield ("fallbacks",), message, 'add {code: "*", then: stop}'
    for index, mode in enumerate(spec.failure_modes):
        place: Place = ("fallbacks", index)
        earlier = codes[:index]
        if any(code == "*" or mode.code.startswith(code) for code in earlier):
            yield place, f"an earlier fallback always comes before `{mode.code}`", "reorder them"
        if (mode.then == "step") != (mode.target is not None):
            yield place, "`target` names the step of `then: step`, and only of that", None
        if (mode.then in {"step", "end"}) != (mode.end is not None):
            yield place, "`end` is the end state of `then: step` and `then: end`", None
        if mode.target is not None and mode.target not in {step.name for step in spec.steps}:
            yield (*place, "target"), f"there is no step `{mode.target}`", None


def _end(spec: WorkflowSpec, release: Release) -> Iterator[Finding]:
    steps: dict[str, Json] = {}
    for step in spec.steps:
        tool = None if step.tool is None else release.tools.get(step.tool)
        steps[step.name] = _output(step, tool, release)
    schemas: Schemas = {"input": spec.input_schema, "step": _closed(steps)}
    for inner, message in misplaced(spec.success.end_state, schemas):
        yield ("success", "end_state", *inner), message, None
    if not isinstance(spec.success.end_state, str):
        yield ("success", "end_state"), "the end state is a text or a pointer to one", None


def _autonomy(spec: WorkflowSpec) -> Iterator[Finding]:
    for environment, declared in spec.autonomy.items():
        if declared.level > 0 and environment != "dev":
            message = f"level {declared.level} cannot be declared for `{environment}`"
            yield ("autonomy", environment), message, "elsewhere than in dev it is earned"
