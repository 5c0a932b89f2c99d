"""A small project for policy tests: two workflows that share an agent, and tools of each kind."""

from __future__ import annotations

from dataclasses import replace

from interlock.domain.agent import AgentSpec
from interlock.domain.autonomy import EARNED_IN, Rung, rung_key
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Facts, PolicyRequest
from interlock.domain.ids import AgentName, TenantId, ToolName, WorkflowName
from interlock.domain.principal import Seat
from interlock.domain.release import PolicyFile, Release
from interlock.domain.tool import (
    ENVIRONMENTS,
    Binding,
    ConnectorKind,
    Environment,
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
from interlock.policy.engine import ModelResource, World, build_world

MODELS = {
    "default": ModelResource(name="default", external=False, accepts=frozenset({"pii"})),
    "outside": ModelResource(name="outside", external=True, accepts=frozenset()),
}
EXECUTOR = Seat(workflow=WorkflowName("refunds"), agent=AgentName("executor"))
READER = Seat(workflow=WorkflowName("triage"), agent=AgentName("reader"))
TRIAGE_EXECUTOR = Seat(workflow=WorkflowName("triage"), agent=AgentName("executor"))

REFUND = ToolName("billing.refund.create")
ALL_TOOLS = (
    ToolName("billing.invoice.show"),
    REFUND,
    ToolName("billing.refund.delete"),
    ToolName("crm.note.add"),
    ToolName("mail.message.send"),
    ToolName("web.page.fetch"),
)


def schema(*, required: tuple[str, ...] = (), **properties: Json) -> JsonObject:
    """Return a closed object schema."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {**properties},
        "required": [*required],
    }


TEXT: JsonObject = {"type": "string"}


def tool(name: str, *, group: Group = Group.READ, **changes: object) -> ToolVersion:
    """Return a tool bound in every environment."""
    system = name.partition(".")[0]
    plain = ToolVersion(
        name=ToolName(name),
        version=1,
        owner=f"{system}-team",
        title=name,
        description=name,
        system=system,
        connector=ConnectorKind.PYTHON,
        request=PythonCall(function=name),
        input_schema=schema(required=("id",), id=TEXT),
        output_schema={"type": "object"},
        group=group,
        sink=Sink(accepts=frozenset({"pii"})),
        environments={
            environment: EnvironmentBinding(server=f"{system}-{environment}")
            for environment in ENVIRONMENTS
        },
    )
    # A dataclass checks nothing at run time; the keys are typed by their use in these tests.
    return replace(plain, **changes)  # type: ignore[arg-type]


def tools() -> dict[ToolName, ToolVersion]:
    """Return one tool of each kind."""
    refund = schema(
        required=("amount_cents", "customer"),
        amount_cents={"type": "integer"},
        customer=TEXT,
        note=TEXT,
        ratio={"type": "number"},
    )
    listed = (
        tool("billing.invoice.show"),
        tool(REFUND, group=Group.WRITE, input_schema=refund),
        tool("billing.refund.delete", group=Group.DESTRUCTIVE, risk=2),
        tool("crm.note.add", group=Group.WRITE),
        tool(
            "mail.message.send",
            group=Group.WRITE,
            is_egress=True,
            input_schema=schema(required=("to",), to=TEXT, text=TEXT),
            policy_view=PolicyView(hidden=("text",), derived={"to_domain": "domain(/to)"}),
        ),
        tool("web.page.fetch", is_egress=True, input_schema=schema(required=("url",), url=TEXT)),
    )
    return {each.name: each for each in listed}


def workflow(
    name: str, agents: tuple[str, ...], *, autonomy: int | None, tenant: str = "acme"
) -> WorkflowSpec:
    """Return a workflow whose seats list every tool."""
    declared = AutonomyDeclaration(level=autonomy or 0, by="ann", reason="test")
    return WorkflowSpec(
        name=WorkflowName(name),
        version=1,
        title=name,
        owner=f"{name}-owners",
        department="support",
        triggers=(),
        input_schema={"type": "object"},
        seats=tuple(SeatSpec(agent=AgentName(agent), tools=ALL_TOOLS) for agent in agents),
        steps=(),
        failure_modes=(),
        success=Success(end_state="done", end_states=("done",), objective=0.9, within_s=60),
        tenant=TenantId(tenant),
        autonomy={} if autonomy is None else {"dev": declared},
    )


def release(
    *files: PolicyFile, defaults: bool = True, autonomy: int | None = 3, **changes: object
) -> Release:
    """Return the project with these policy files."""
    systems = ("billing", "crm", "mail", "web")
    plain = Release(
        number=1,
        systems={
            name: System(
                name=name,
                title=name,
                owner=f"{name}-owners",
                tenant=TenantId("globex") if name == "crm" else None,
            )
            for name in systems
        },
        servers={
            f"{name}-{environment}": Server(
                name=f"{name}-{environment}", system=name, environment=environment, kind="python"
            )
            for name in systems
            for environment in ENVIRONMENTS
        },
        tools=tools(),
        agents={
            AgentName(name): AgentSpec(
                name=AgentName(name),
                version=1,
                title=name,
                owner="it",
                sponsor="ann",
                instructions="",
            )
            for name in ("executor", "reader")
        },
        workflows={
            WorkflowName("refunds"): workflow("refunds", ("executor",), autonomy=autonomy),
            WorkflowName("triage"): workflow("triage", ("reader", "executor"), autonomy=autonomy),
        },
        ladder={
            rung_key(name, environment): Rung(
                level=autonomy or 0, since=1, versions="", counted_from=1, by="ann", reason="test"
            )
            for name in ("refunds", "triage")
            for environment in EARNED_IN
        },
        policies=(*(DEFAULT_POLICIES if defaults else ()), *files),
        labels=("pii", "finance"),
        teams=("security", "finance-managers", "platform"),
    )
    # As above: typed by their use.
    return replace(plain, **changes)  # type: ignore[arg-type]


def world(
    *texts: str,
    defaults: bool = True,
    autonomy: int | None = 3,
    environment: Environment = "dev",
    **changes: object,
) -> World:
    """Build a world from policy statements, each put into the folder where it belongs."""
    files = policy_files(*texts)
    project = release(*files, defaults=defaults, autonomy=autonomy, **changes)
    return build_world(project, environment, models=MODELS)


def policy_files(*texts: str) -> tuple[PolicyFile, ...]:
    """Return one file per statement: permits are grants, forbids with a lifter approvals."""
    files: list[PolicyFile] = []
    for number, text in enumerate(texts):
        is_liftable = "@approval" in text or "@draft" in text
        folder = "approvals" if is_liftable else "guardrails" if "forbid" in text else "grants"
        files.append(PolicyFile(path=f"{folder}/test{number}.cedar", text=text))
    return tuple(files)


def request(
    name: str | None = REFUND,
    arguments: JsonObject | None = None,
    *,
    seats: tuple[Seat, ...] = (EXECUTOR,),
    facts: Facts | None = None,
    lifted: tuple[str, ...] = (),
    environment: Environment = "dev",
    model: str | None = None,
    version: int | None = None,
) -> PolicyRequest:
    """Return a request; without arguments, a refund of 10.00."""
    plain: JsonObject = {"amount_cents": 1000, "customer": "c1"} if name == REFUND else {"id": "1"}
    return PolicyRequest(
        seats=seats,
        environment=environment,
        tool=None if name is None else ToolName(name),
        arguments=plain if arguments is None else arguments,
        facts=facts or Facts(),
        model=model,
        tool_version=version,
        lifted=frozenset(lifted),
    )


GRANT_WRITES = """@id("writes") @owner("platform")
permit (principal in Workflow::"refunds", action in Action::"write", resource);"""
OVER_500 = """@id("refund-over-500") @approval("finance-managers") @why("Above $500: finance")
forbid (principal, action == Action::"billing.refund.create", resource)
when { context.args.amount_cents > 50000 };"""


def binding_of(version: ToolVersion) -> Binding:
    """Return a tool bound to the server of its system in `dev`."""
    name = f"{version.system}-dev"
    server = Server(name=name, system=version.system, environment="dev", kind="python")
    return Binding(tool=version, environment="dev", server=server, pin="sha256:pin")
