"""The form of project files: one model per kind, from which editor schemas are made too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from interlock.domain.budget import BudgetPeriod, BudgetScope, BudgetUnit
from interlock.domain.canonical import MAX_RESULT_BYTES, MAX_SAFE_INTEGER
from interlock.domain.run import DEFAULT_PRIORITY
from interlock.domain.tool import Environment, ServerKind, SystemKind
from interlock.domain.workflow import MAX_QUEUED
from interlock.manifest.scalars import (
    Credentials,
    Day,
    Name,
    PersonName,
    Priority,
    Proof,
    QueueName,
    Schema,
    Seconds,
    SecretReference,
    ServerName,
    Status,
    TeamName,
    Template,
    Templates,
    Text,
    ToolName,
    ToolReference,
    Version,
)


class Part(BaseModel):
    """Any mapping in a project file: unknown keys are refused, nothing is converted."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class ProjectFile(Part):
    """The project: its vocabulary of labels and teams."""

    interlock: Literal["v1"]
    kind: Literal["Project"]
    name: Name
    title: Text
    include: list[Literal["defaults"]] = []
    """`defaults` adds the default policies of this version of Interlock."""
    labels: list[Name] = []
    """Sensitivity labels that data may carry; `undeclared` always exists."""
    teams: list[TeamName]
    """Groups of people: owners, and who answers approvals."""
    autonomy: BarsPart | None = None


class BarPart(Part):
    """What one step up takes; what is left out is as it comes."""

    count: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many drafts, approved writes or unattended writes there have to be."""
    agreement: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The 95 % Wilson lower bound of the share that people left as it was."""
    days: Annotated[int, Field(ge=0, le=3_650)] | None = None
    """Since when the first of them is, at least."""


class BarsPart(Part):
    """What it takes to let workflows do more by themselves, outside `dev`."""

    to_1: BarPart | None = None
    """From drafts to writes that people approve."""
    to_2: BarPart | None = None
    """To low-risk writes unattended."""
    to_3: BarPart | None = None
    """To all that policies allow."""


class RatePart(Part):
    """At most this many calls in a row, and in every `per_s` seconds; further ones wait."""

    calls: Annotated[int, Field(ge=1)]
    per_s: Annotated[float, Field(gt=0, le=86_400)]


class SystemFile(Part):
    """An outside system."""

    interlock: Literal["v1"]
    kind: Literal["System"]
    name: Name
    title: Text
    owner: TeamName
    tenant: Name | None = None
    """The tenant it belongs to; absent means shared."""
    system_kind: SystemKind = "other"
    """What it is for people: tools are listed by it."""


class ServerFile(Part):
    """One reachable instance of a system in one environment."""

    interlock: Literal["v1"]
    kind: Literal["Server"]
    name: ServerName
    system: Name
    environment: Environment
    protocol: ServerKind
    url: str | None = None
    """Base address (`http`), endpoint (`mcp-http`) or `postgres://HOST:PORT/DATABASE`."""
    argv: list[str] = []
    """Command of an `mcp-stdio` server, started without a shell."""
    program_pin: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """Digest of the program that `argv` begins with; no other is started."""
    variables: list[str] = []
    """Names of the environment variables that the command may see."""
    source: Annotated[str, Field(pattern=r"^functions/[a-z][a-z0-9_/-]*$")] | None = None
    """Folder of the project with the code of a `python-sandbox` server."""
    auth: Annotated[str, Field(pattern=r"^(none|basic|bearer|header:[A-Za-z0-9-]+)$")] = "none"
    """How the credential is sent; the secret of `basic` is `user:password`."""
    headers: dict[str, str] = {}
    """Fixed headers of every request."""
    rate: RatePart | None = None
    """How often all tools together call it."""
    breaker_open_s: Annotated[float, Field(ge=0.1, le=3600)] = 30.0
    """Seconds for which it is not called once it has failed; if it goes on, up to ten times."""


class HttpRequestPart(Part):
    """How a call becomes an HTTP request."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    path: Annotated[str, Field(pattern=r"^/[^?#\s]*$")]
    """Path below the server's address; `{name}` segments are filled from `path_args`."""
    path_args: dict[str, str] = {}
    query: Templates = {}
    headers: dict[str, str] = {}
    body: Template = None
    key_header: str | None = None
    """Header that takes the idempotency key of a `keyed` tool."""
    version_header: str | None = None
    """Header that takes the version of a `conditional` tool, as `If-Match`."""
    result: Template = None
    """The output that agents see, from `out:`, `status:` and `etag:`; absent is the whole body."""


class UpstreamPart(Part):
    """What of an MCP server is called: one of its tools, resources and prompts."""

    tool: Text | None = None
    resource: Text | None = None
    """A URI, with `{name}` where an argument goes. Like a prompt it is a tool that reads."""
    prompt: Text | None = None
    key_argument: str | None = None
    """The argument that takes our idempotency key, if the server documents one."""
    pin: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """Digest of the server's definition as it was reviewed; `interlock tool pin` writes it."""


class QueryPart(Part):
    """One statement of a database that reads, with `%(name)s` for each of its parameters."""

    statement: Text
    parameters: Templates = {}
    returns: Literal["rows", "row"] = "rows"
    """All rows, as `{"rows": [...]}`, or the only one as it is; null if there is none."""


class LimitsPart(Part):
    """Bounds of one call."""

    timeout_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    request_bytes: Annotated[int, Field(ge=1)] = 65_536
    response_bytes: Annotated[int, Field(ge=1, le=MAX_RESULT_BYTES)] = 262_144


class ContractPart(Part):
    """JSON Schemas 2020-12 of arguments and result."""

    input: Schema
    output: Schema
    limits: LimitsPart = LimitsPart()


class PolicyViewPart(Part):
    """What policies see beyond the mapped arguments."""

    hidden: list[str] = []
    """Arguments that policies may not name."""
    derived: dict[Name, str] = {}
    """Computed from arguments: `x: domain(/to)`, or `domains`, `host`, `length`, `hundredths`."""


class GuardPart(Part):
    """What makes the outside reject a second write."""

    kind: Literal["version", "one_time_link", "client_id"]
    refused: Annotated[list[Status], Field(min_length=1)]
    """Statuses that say: rejected by the guard."""
    version: str | None = None
    """Pointer to the version in the arguments (`version`)."""
    obtain: Annotated[str, Field(pattern=r"^(POST|GET) /")] | None = None
    """Request that fetches the link (`one_time_link`)."""
    link: str | None = None
    """Where the link stands in the answer (`one_time_link`)."""
    ttl_s: Annotated[int, Field(ge=1)] = 1500


class ProbePart(Part):
    """A read tool that finds the effect by our reference."""

    tool: ToolReference
    args: Templates
    found: str
    equals: Templates = {}
    result: Template = None
    lag_s: Annotated[float, Field(ge=0)]
    """How long the outside may take to show a write."""


class EffectPart(Part):
    """What a repeat of the call means."""

    class_: Annotated[
        Literal["read", "keyed", "conditional", "probed", "blind"], Field(alias="class")
    ] = "blind"
    key_ttl_s: Annotated[int, Field(ge=1)] | None = None
    guard: GuardPart | None = None
    probe: ProbePart | None = None
    no_effect: list[Proof] = []
    """What proves that nothing was stored: statuses; `error` means an error result (`isError`)."""
    in_progress: list[Status] = []
    key_reused: list[Status] = []


class KeyPart(Part):
    """One part of a business key."""

    at: Annotated[str, Field(pattern="^in:")]
    fold: Literal["exact", "lower", "words"] = "exact"


class BusinessKeyPart(Part):
    """What makes two calls the same thing to a person."""

    parts: Annotated[list[KeyPart], Field(min_length=1)]
    duplicate_window_h: Annotated[int, Field(ge=1)] = 24


class RecordPart(Part):
    """Where the call names an outside record."""

    mode: Literal["read", "create", "update", "delete"]
    type: Name
    id: Annotated[str, Field(pattern="^(in|out):")]
    item: str = ""
    """If `id` leads to a list: where the record's id stands in each item."""


class SourcePart(Part):
    """What the result adds to the run's labels."""

    labels: list[Name]
    trusted: bool


class SinkPart(Part):
    """What the arguments may carry, and whether they leave the trust boundary."""

    accepts: list[Name]
    external: bool


class CompensationPart(Part):
    """The call that undoes this one."""

    tool: ToolReference
    args: Templates
    within_h: Annotated[int, Field(ge=1)] = 72


class BindingPart(Part):
    """Where the tool goes in one environment."""

    server: ServerName
    credentials: Credentials | None = None
    """A reference, or one for each workflow that may use the tool here."""
    rate: RatePart | None = None
    """How often the tool is called here."""
    past: bool = False
    """Another version is live here; this one serves what was proposed before."""


class DeprecatedPart(Part):
    """That this version is to be replaced; calls go on until another one is released."""

    since: Day
    until: Day | None = None
    """The last day on which a project may be applied in which it is still called."""
    replace_with: ToolReference | None = None
    reason: Text


class ToolFile(Part):
    """One version of a tool."""

    interlock: Literal["v1"]
    kind: Literal["Tool"]
    name: ToolName
    version: Version
    owner: TeamName
    title: Text
    """What people read."""
    description: Text
    """What agents read: our words, never the upstream's."""
    system: Name
    group: Literal["read", "write", "destructive"] = "write"
    egress: bool = False
    """Whether arguments leave our trust boundary."""
    irreversible: bool = False
    risk: Annotated[int, Field(ge=1, le=3)] = 1
    connector: Literal["http", "mcp", "python", "sql"]
    request: HttpRequestPart | None = None
    upstream: UpstreamPart | None = None
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")] | None = None
    """Name under which a Python function was registered in code."""
    query: QueryPart | None = None
    contract: ContractPart
    policy_view: PolicyViewPart = PolicyViewPart()
    effect: EffectPart = EffectPart()
    business_key: BusinessKeyPart | None = None
    records: list[RecordPart] = []
    source: SourcePart | None = None
    """Absent: untrusted, and label `undeclared`."""
    sink: SinkPart | None = None
    """Absent: accepts nothing."""
    redact: dict[str, Literal["drop", "token", "last4", "keep"]] = {}
    compensation: CompensationPart | None = None
    price_micro_usd: Annotated[int, Field(ge=0)] = 0
    environments: dict[Environment, BindingPart]
    deprecated: DeprecatedPart | None = None
    pin: str | None = None


class AgentLimitsPart(Part):
    """When the agent is stopped."""

    requests: Annotated[int, Field(ge=1, le=200)] = 20
    refusals_in_a_row: Annotated[int, Field(ge=1)] = 5
    equal_calls: Annotated[int, Field(ge=1)] = 3


class ModelBudgetPart(Part):
    """What one session of an outside agent may ask of models."""

    requests: Annotated[int, Field(ge=1, le=10_000)] = 200
    cost_micro_usd: Annotated[int, Field(ge=1, le=MAX_SAFE_INTEGER)] | None = None
    """The cost of all its requests together; absent is any cost."""


class AgentFile(Part):
    """One version of an agent."""

    interlock: Literal["v1"]
    kind: Literal["Agent"]
    name: Name
    version: Version
    title: Text
    owner: TeamName
    sponsor: PersonName
    """The person who answers for it and cannot approve its calls: the name of that person's key."""
    outside: bool = False
    """Whether it runs elsewhere, in any framework, and calls tools through the gateway."""
    models: list[Annotated[str, Field(min_length=1, max_length=100)]] = []
    """The models of the settings that an outside agent may ask through the model proxy."""
    budget: ModelBudgetPart = ModelBudgetPart()
    """What one session of an outside agent may ask of them."""
    model: Annotated[str, Field(min_length=1)] = "default"
    instructions: Text | None = None
    """The instructions, or the path of a `.md` file that holds them; none for an outside agent."""
    output: Schema | None = None
    """JSON Schema of the final answer; absent means text."""
    limits: AgentLimitsPart = AgentLimitsPart()


class ConditionPart(Part):
    """Holds if the value at `at` equals `equals`, or is one of `one_of`."""

    at: Annotated[str, Field(pattern=r"^[a-z]+:")]
    equals: JsonValue = None
    one_of: list[JsonValue] = []


class QueuePart(Part):
    """Messages of a broker: NATS JetStream, Redis Streams or RabbitMQ."""

    url: Annotated[str, Field(max_length=200)]
    """`nats://`, `redis://` or `amqp://` with host and port; with TLS `tls`, `rediss`, `amqps`."""
    name: QueueName
    """The subject (NATS), stream (Redis) or queue (RabbitMQ)."""
    group: ServerName = "interlock"
    """Readers of one group share the messages; RabbitMQ has one group for each queue."""
    secret: SecretReference | None = None
    """Of the text `user:password`."""
    dedupe: Annotated[str, Field(pattern=r"^body:/")] | None = None
    """The member that makes two messages the same; absent is the broker's id of the message."""
    dead_letter: QueueName | None = None
    """Where messages go that can start no run, with the reason in their headers."""


class TriggerPart(Part):
    """What starts a run: exactly one of `webhook`, `queue`, `cron`, `manual` and `session`."""

    webhook: ServerName | None = None
    """Source of signed deliveries to `/webhooks/<source>`."""
    secret: SecretReference | None = None
    queue: QueuePart | None = None
    cron: str | None = None
    """Five fields: minute, hour, day of month, month, day of week."""
    timezone: str = "UTC"
    catch_up: Literal["none", "last", "all"] = "last"
    """Which ticks missed while nothing ran are made up for."""
    paused: bool = False
    """Whether a new schedule waits for `interlock trigger resume`."""
    manual: Literal[True] | None = None
    session: Name | None = None
    """The outside agent whose sessions are runs: its calls take the place of steps."""
    environment: Environment = "dev"
    when: list[ConditionPart] = []
    input: Template = None
    """The run's input: templates over `body:` (webhook, queue) or `tick:` (cron)."""
    priority: Priority | None = None
    """Of the runs that this trigger starts, instead of the workflow's."""


class SeatPart(Part):
    """The tools that an agent may propose in this workflow."""

    tools: list[ToolName] = []


class StepPart(Part):
    """One durable step: exactly one of `agent`, `handoff`, `tool`, `wait` and `plan`."""

    name: Name
    agent: Name | None = None
    handoff: Name | None = None
    handed_by: Name | None = None
    rights: Literal["chain", "own"] = "chain"
    tool: ToolName | None = None
    wait: Name | None = None
    timeout_s: Seconds | None = None
    plan: Name | None = None
    """The agent that proposes a plan: calls of `tools`, checked whole before the first is made."""
    tools: list[ToolName] = []
    """What the plan may use."""
    under: Name | None = None
    """The agent whose seat the calls of the plan take; absent is the workflow's own, `workflow`."""
    input: Template = None
    args: Template = None
    when: list[ConditionPart] = []
    share: Name | None = None


class ApprovalPart(Part):
    """Who approves what: becomes an approval policy for this workflow."""

    tool: ToolName
    by: TeamName
    people: Annotated[int, Field(ge=1, le=5)] = 1
    """How many different people of the team have to approve."""
    why: Text
    when: list[ConditionPart] = []
    """Conditions on arguments (`in:/share`), all of which must hold; none means every call."""


class FallbackPart(Part):
    """What follows when a step fails for good with a code that starts with `code`."""

    code: Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9_.]*)$")]
    then: Literal["compensate", "stop", "step", "end"]
    target: Name | None = None
    end: Name | None = None


class SuccessPart(Part):
    """Which end states count as success, in what share of runs and how soon."""

    end_state: Template
    counts: Annotated[list[str], Field(min_length=1)]
    objective: Annotated[float, Field(gt=0, le=1)]
    within_s: Seconds


class AutonomyPart(Part):
    """A level set by file."""

    level: Annotated[int, Field(ge=0, le=3)]
    by: Text
    reason: Text


class ConcurrencyPart(Part):
    """How many runs go on at once; further ones wait."""

    runs: Annotated[int, Field(ge=1)]
    per: Literal["environment", "tenant"] = "environment"
    """What they are counted in; `tenant` counts each tenant's in each environment."""


class LockPart(Part):
    """One run at a time for each value of a key."""

    key: Annotated[str, Field(pattern="^input:/")]
    """Where the value stands in the run's input: `input:/customer`."""
    name: Name | None = None
    """Workflows that give the same name share their locks."""
    hold_while_waiting: bool = False
    """Whether a run keeps it while it waits for a person."""


class WorkflowFile(Part):
    """One version of a workflow."""

    interlock: Literal["v1"]
    kind: Literal["Workflow"]
    name: Name
    version: Version
    title: Text
    owner: TeamName
    department: Name
    tenant: Name | None = None
    triggers: Annotated[dict[Name, TriggerPart], Field(min_length=1)]
    inputs: Schema
    """JSON Schema of the run's input."""
    agents: dict[Name, SeatPart] = {}
    tools: list[ToolName] = []
    """Tools of plain tool steps."""
    steps: list[StepPart] = []
    """What its runs do, in this order; none if all it has are sessions of outside agents."""
    approvals: list[ApprovalPart]
    """Who approves what; an empty list says that nobody has to."""
    fallbacks: Annotated[list[FallbackPart], Field(min_length=1)]
    success: SuccessPart
    autonomy: dict[Environment, AutonomyPart] = {}
    """How far it acts by itself, in `dev`; elsewhere that is earned."""
    ceiling: dict[Environment, Annotated[int, Field(ge=0, le=3)]] = {}
    """The highest level that it can earn there; 3 if nothing is said."""
    deadline_s: Seconds = 86_400.0
    priority: Priority = DEFAULT_PRIORITY
    """From 0 to 9; the highest goes first where runs wait for one another."""
    max_queued: Annotated[int, Field(ge=1)] = MAX_QUEUED
    """How many runs may wait to begin; beyond it new ones are refused for a while."""
    rate: RatePart | None = None
    """How often all its runs in an environment together call tools."""
    concurrency: ConcurrencyPart | None = None
    lock: LockPart | None = None


class BudgetFile(Part):
    """How much may be spent, of what, by whom and in which window; calls beyond it are refused."""

    interlock: Literal["v1"]
    kind: Literal["Budget"]
    name: Name
    title: Text
    scope: BudgetScope
    of: Name | None = None
    """The workflow, department or tenant; of a budget for each run the workflow, absent is any."""
    period: BudgetPeriod
    """Hours are those of UTC; `run` is for the scope `run`, and only for it."""
    timezone: str = "UTC"
    """Where days and months begin, for instance `Europe/Paris`."""
    unit: BudgetUnit
    """Millionths of a US dollar, tokens of models (input and output), or calls and requests."""
    limit: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    soft: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)] | None = None
    """From this amount on `interlock doctor` reports it; nothing is refused."""


AnyFile = BudgetFile | ProjectFile | SystemFile | ServerFile | ToolFile | AgentFile | WorkflowFile
KINDS: Mapping[str, type[AnyFile]] = {
    "Budget": BudgetFile,
    "Project": ProjectFile,
    "System": SystemFile,
    "Server": ServerFile,
    "Tool": ToolFile,
    "Agent": AgentFile,
    "Workflow": WorkflowFile,
}
