"""A project of some size: 200 policies, 50 tools, 30 agents, 20 workflows.

Nothing of it is applied: it is put straight into worlds, whose decisions are what is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from interlock.domain.agent import AgentSpec
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Facts, PolicyRequest
from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.release import PolicyFile, Release
from interlock.domain.tool import (
    ConnectorKind,
    EnvironmentBinding,
    Group,
    PolicyView,
    PythonCall,
    Server,
    Sink,
    System,
    ToolVersion,
)
from interlock.domain.workflow import AutonomyDeclaration, SeatSpec, Success, WorkflowSpec
from interlock.policy.defaults import DEFAULT_POLICIES
from interlock.policy.engine import World, build_world
from interlock.policy.load import load

SYSTEMS, WORKFLOWS, AGENTS, POLICIES = 10, 20, 30, 200
THRESHOLD = 50_000
MOVED_THRESHOLD = 40_000
CROWDED = ToolName("s9.record.delete")
"""The tool that `elsewhere` is about."""
_TEAMS = ("finance", "security", "platform", "legal")
_TEXT: JsonObject = {"type": "string"}
_REGIONS: tuple[Json, ...] = ("eu", "us", "apac")


def world(*, threshold: int = THRESHOLD, more: str = "") -> World:
    """Return what decides in `prod`.

    `threshold` is from where system 0 asks for approval, `more` is one more guardrail.
    """
    made = release(threshold=threshold)
    extra = (PolicyFile(path="guardrails/more.cedar", text=more),) if more else ()
    return build_world(replace(made, policies=(*made.policies, *extra)), "prod", models={})


def release(*, threshold: int = THRESHOLD) -> Release:
    """Return the project; it has exactly `POLICIES` policies."""
    made = {each.name: each for system in range(SYSTEMS) for each in _tools(system)}
    flows = [_workflow(number) for number in range(WORKFLOWS)]
    return Release(
        number=1,
        systems={f"s{n}": System(name=f"s{n}", title=f"s{n}", owner="platform") for n in _all()},
        servers={
            f"s{n}-prod": Server(
                name=f"s{n}-prod", system=f"s{n}", environment="prod", kind="python"
            )
            for n in _all()
        },
        tools=made,
        agents={AgentName(f"a{number}"): _agent(number) for number in range(AGENTS)},
        workflows={flow.name: flow for flow in flows},
        policies=_policies(threshold),
        labels=("pii", "finance"),
        teams=_TEAMS,
    )


def requests(count: int, *, seed: int) -> Iterator[PolicyRequest]:
    """Yield calls as they come, most of them near to where policies change their mind."""
    random = Random(seed)  # noqa: S311  # samples, no secrets
    project = release()
    flows = list(project.workflows.values())
    names = sorted(project.tools)
    for _ in range(count):
        flow = random.choice(flows)
        seat = random.choice(flow.seats)
        listed = random.random() < 0.9  # noqa: PLR2004  # the rest are calls beyond the list
        name = ToolName(random.choice(seat.tools if listed else names))
        caller = Seat(workflow=flow.name, agent=seat.agent)
        yield request(caller, name, _arguments(random, name), _facts(random, name))


def request(seat: Seat, tool: ToolName, arguments: JsonObject, facts: Facts) -> PolicyRequest:
    """Return a call of a seat in `prod`."""
    return PolicyRequest(
        seats=(seat,), environment="prod", tool=tool, arguments=arguments, facts=facts
    )


def plain_arguments(tool: ToolName) -> JsonObject:
    """Return arguments that the contract of a tool accepts."""
    return _arguments(Random(0), tool)  # noqa: S311  # as above


def elsewhere(count: int) -> str:
    """Return guardrails for one tool, which no call of another has to do with."""
    return "\n".join(
        f'@id("elsewhere-{number}") @why("x") forbid (principal,'
        f' action == Action::"{CROWDED}", resource) when {{ context.depth > {number} }};'
        for number in range(count)
    )


def _all() -> range:
    return range(SYSTEMS)


def _arguments(random: Random, tool: ToolName) -> JsonObject:
    record: JsonObject = {"id": f"r{random.randrange(100)}"}
    match tool.rpartition(".")[2]:
        case "create" | "update":
            step = random.choice((-1, 0, 1))
            return {
                "amount": random.choice((10, MOVED_THRESHOLD, THRESHOLD, 10 * THRESHOLD)) + step,
                "customer": random.choice(("c1", "c2", "blocked")),
                "region": random.choice(_REGIONS),
            }
        case "send":
            domain = random.choice(("desk.example", "partner.example"))
            return {"to": f"someone@{domain}", "text": "hello"}
        case _:
            return record


def _facts(random: Random, name: ToolName) -> Facts:
    shown = f"{name.partition('.')[0]}.record.show"
    return Facts(
        labels=Labels(
            names=frozenset(label for label in ("pii", "finance") if random.random() < 0.2),  # noqa: PLR2004
            is_untrusted=random.random() < 0.2,  # noqa: PLR2004
        ),
        calls_this_tool=random.choice((0, 1, 19, 20)),
        calls_this_tool_1h=random.choice((0, 99, 100)),
        same_key_count=random.choice((0, 0, 0, 1)),
        done=frozenset({shown} if random.random() < 0.7 else ()),  # noqa: PLR2004
        depth=random.choice((0, 1, 6)),
        now_us=1_767_225_600_000_000,
    )


def _tools(system: int) -> Iterator[ToolVersion]:
    record = _schema("id", id=_TEXT)
    change = _schema(
        "amount",
        "customer",
        "region",
        amount={"type": "integer", "minimum": 0},
        customer=_TEXT,
        region={"type": "string", "enum": [*_REGIONS]},
    )
    yield _tool(system, "record.show", Group.READ, record)
    yield _tool(system, "record.create", Group.WRITE, change)
    yield _tool(system, "record.update", Group.WRITE, change, risk=2)
    yield _tool(system, "record.delete", Group.DESTRUCTIVE, record, risk=3)
    yield _tool(
        system,
        "report.send",
        Group.WRITE,
        _schema("to", to=_TEXT, text=_TEXT),
        view=PolicyView(hidden=("text",), derived={"domain": "domain(/to)"}),
    )


def _tool(
    system: int,
    name: str,
    group: Group,
    schema: JsonObject,
    *,
    risk: int = 1,
    view: PolicyView | None = None,
) -> ToolVersion:
    return ToolVersion(
        name=ToolName(f"s{system}.{name}"),
        version=1,
        owner="platform",
        title=name,
        description=name,
        system=f"s{system}",
        connector=ConnectorKind.PYTHON,
        request=PythonCall(function=name),
        input_schema=schema,
        output_schema={"type": "object"},
        group=group,
        risk=risk,
        is_egress=view is not None,
        sink=Sink(accepts=frozenset({"pii"})),
        environments={"prod": EnvironmentBinding(server=f"s{system}-prod")},
        policy_view=view or PolicyView(),
    )


def _schema(*required: str, **properties: Json) -> JsonObject:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {**properties},
        "required": [*required],
    }


def _agent(number: int) -> AgentSpec:
    name = AgentName(f"a{number}")
    return AgentSpec(
        name=name, version=1, title=name, owner="platform", sponsor="ann", instructions=""
    )


def _workflow(number: int) -> WorkflowSpec:
    """Return a workflow with two agents, who share the tools of two systems."""
    tools = tuple(
        each.name
        for system in (number % SYSTEMS, (number + 3) % SYSTEMS)
        for each in _tools(system)
    )
    seats = (number % AGENTS, (number + SYSTEMS) % AGENTS)
    return WorkflowSpec(
        name=WorkflowName(f"w{number}"),
        version=1,
        title=f"w{number}",
        owner=_TEAMS[number % len(_TEAMS)],
        department="support",
        triggers=(),
        input_schema={"type": "object"},
        seats=tuple(SeatSpec(agent=AgentName(f"a{seat}"), tools=tools) for seat in seats),
        steps=(),
        failure_modes=(),
        success=Success(end_state="done", end_states=("done",), objective=0.9, within_s=60),
        autonomy={
            "prod": AutonomyDeclaration(level=number % 4, by="ann", reason="as it was earned")
        },
    )


def _policies(threshold: int) -> tuple[PolicyFile, ...]:
    texts = {folder: [*_written(folder, threshold)] for folder in ("grants", "approvals")}
    count = len(load(DEFAULT_POLICIES)[0]) + sum(map(len, texts.values()))
    texts["guardrails"] = [_guardrail(number) for number in range(POLICIES - count)]
    own = (
        PolicyFile(path=f"{folder}/own.cedar", text="\n".join(each))
        for folder, each in texts.items()
    )
    return (*DEFAULT_POLICIES, *own)


def _written(folder: str, threshold: int) -> Iterator[str]:
    if folder == "grants":
        for flow in range(WORKFLOWS):
            for system in (flow % SYSTEMS, (flow + 3) % SYSTEMS):
                yield (
                    f'@id("w{flow}-writes-s{system}") @owner("platform") permit (principal in'
                    f' Workflow::"w{flow}", action in Action::"write",'
                    f' resource in System::"s{system}");'
                )
        return
    for system in _all():
        most = threshold if system == 0 else THRESHOLD
        for name, tool, team, when in (
            ("large", "record.create", "finance", f"context.args.amount > {most}"),
            ("often", "record.update", "platform", "context.calls_this_tool_1h >= 100"),
            ("away", "report.send", "security", 'context.derived.domain != "desk.example"'),
            (
                "unseen",
                "record.delete",
                "legal",
                f'!context.done.contains("s{system}.record.show")',
            ),
        ):
            yield (
                f'@id("{name}-s{system}") @approval("{team}") @why("{name}") forbid (principal,'
                f' action == Action::"s{system}.{tool}", resource) when {{ {when} }};'
            )


def _guardrail(number: int) -> str:
    system, flow = number % SYSTEMS, number % WORKFLOWS
    who, tool, when = (
        ("principal", "record.create", 'context.args.customer == "blocked"'),
        (f'principal in Workflow::"w{flow}"', "record.update", 'context.args.region == "apac"'),
        ("principal", "record.update", f"context.args.amount > {(number + 5) * 10_000}"),
        (
            f'principal in Workflow::"w{flow}"',
            "record.create",
            'context.labels.contains(Label::"pii") && context.args.region == "us"',
        ),
    )[number % 4]
    return (
        f'@id("guard-{number}") @why("guard {number}") forbid ({who},'
        f' action == Action::"s{system}.{tool}", resource) when {{ {when} }};'
    )
