"""Workflows: versioned definitions of what runs, when, with which agents, tools and approvals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import AgentName, StepName, TenantId, ToolName, WorkflowName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.run import DEFAULT_PRIORITY
from interlock.domain.tool import Environment, Rate

MAX_QUEUED = 10_000
WORKFLOW_AGENT = AgentName("workflow")
"""The agent name of the seat under which plain tool steps run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Holds if the value at pointer `at` equals `equals`, or is one of `is_in`."""

    at: str
    equals: Json = None
    is_in: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Where messages are taken from: a subject of NATS JetStream, a Redis stream, a RabbitMQ queue.

    `url` is the broker's address, whose scheme says which of the three it is; `secret` refers to
    `user:password`. All readers of one `group` share the messages (RabbitMQ: all readers of the
    queue). `dedupe` (`body:/id`) is what makes two messages the same, else the broker's own id of
    the message. Messages that can start no run go to `dead_letter` at the same broker.
    """

    url: str
    name: str
    group: str = "interlock"
    secret: str | None = None
    dedupe: str | None = None
    dead_letter: str | None = None

    @property
    def source(self) -> str:
        """Return what names these messages: a key is unique in it."""
        return f"{self.url.rstrip('/')}/{self.name}#{self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What starts a run: a webhook source, a queue, a cron schedule, a person or an outside agent.

    `source` names a webhook door (`/webhooks/<source>`), its signing secret is `secret`
    (`secret://...`); or it names the messages of `queue`. `schedule` is five cron fields in
    `timezone`; with `is_paused` it waits to be resumed from the start. `when` picks events; `input`
    holds templates over `body:` (webhook, queue) or `tick:` (cron) and must fit the workflow's
    input contract. `agent` is who opens a `session`: such a run has no steps, only that agent's
    calls. `priority` counts instead of the workflow's.
    """

    name: str
    kind: Literal["webhook", "queue", "cron", "manual", "session"]
    environment: Environment = "dev"
    source: str | None = None
    secret: str | None = None
    queue: Queue | None = None
    schedule: str | None = None
    timezone: str = "UTC"
    catch_up: Literal["none", "last", "all"] = "last"
    is_paused: bool = False
    when: tuple[Condition, ...] = ()
    input: Json = None
    agent: AgentName | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatSpec:
    """One agent's place in the workflow and the tools it may propose there."""

    agent: AgentName
    tools: tuple[ToolName, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One durable step; exactly one of `agent`, `handoff`, `tool`, `wait` or `plan` is set.

    `agent` runs an agent in this run; `handoff` runs it in a child run with its own seat, reached
    from `handed_by` (an agent of this workflow). With `rights` `chain` (default) every seat of the
    chain must be allowed; `own` counts the child's seat alone. `tool` is a plain tool call with the
    seat `workflow`. `wait` waits for a signal of that topic for at most `timeout_s`. `plan` is an
    agent without writes that proposes calls of `tools`; they run under the seat `under`.
    `input` (agents) and `args` (tools) are templates over `input:` (the run's input), `step:NAME`
    (an earlier step's output, as `step:NAME/pointer`) and `shared:KEY/pointer` (the blackboard).
    `share` publishes the output on the run tree's blackboard under that key. A step whose `when`
    does not hold is skipped (output null).
    """

    name: str
    agent: AgentName | None = None
    handoff: AgentName | None = None
    handed_by: AgentName | None = None
    rights: Literal["chain", "own"] = "chain"
    tool: ToolName | None = None
    wait: str | None = None
    timeout_s: float | None = None
    plan: AgentName | None = None
    tools: tuple[ToolName, ...] = ()
    under: AgentName = WORKFLOW_AGENT
    input: Json = None
    args: Json = None
    when: tuple[Condition, ...] = ()
    share: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureMode:
    """What follows when a step fails for good with an error code that starts with `code`.

    `*` matches every code; the first match in order counts. `then` is `compensate` (undo in
    reverse, end `failed`), `stop` (end `failed`, effects listed), `step` (run the step `target`,
    which runs in no other case, then end with state `end`) or `end` (end in state `end`).
    """

    code: str
    then: Literal["compensate", "stop", "step", "end"]
    target: str | None = None
    end: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRule:
    """Who approves what: the group that answers for a tool in this workflow, and why.

    `people` is how many different ones of the group have to. `when` are conditions on the arguments
    (`in:/share`), all of which must hold; none means every call. Each rule is in force as an
    approval policy of the release.
    """

    tool: ToolName
    group: str
    why: str
    when: tuple[Condition, ...] = ()
    people: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """Success criteria: which end states count, the share of runs and the time aimed for.

    `end_state` is a template that yields the run's declared end state.
    """

    end_state: Json
    end_states: tuple[str, ...]
    objective: float
    within_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AutonomyDeclaration:
    """A level set by file, allowed only in `dev`; elsewhere levels are earned.

    0 drafts only, 1 each write approved, 2 low-risk writes unattended, 3 expanded.
    """

    level: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """How many runs of the workflow go on at once, in an environment or there for each tenant."""

    runs: int
    per: Literal["environment", "tenant"] = "environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """One run at a time for each value of `key`, a template over `input:` (the run's input).

    Workflows of one tenant and environment that give the same `name` share their locks; without
    one they are the workflow's own. `hold_while_waiting` keeps it while the run waits for a person.
    """

    key: str
    name: str | None = None
    hold_while_waiting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSpec:
    """One version of a workflow. Without a declaration its autonomy is 0: drafts only.

    `ceiling` is the highest level that can be earned, 3 if none is named.
    `priority` is from 0 to 9; the highest goes first where runs wait for one another. While
    `max_queued` runs have yet to begin, webhooks and starts by hand are told to come back. `rate`
    is that of the tool calls of all its runs in an environment.
    """

    name: WorkflowName
    version: int
    title: str
    owner: str
    department: str
    triggers: tuple[Trigger, ...]
    input_schema: JsonObject
    seats: tuple[SeatSpec, ...]
    steps: tuple[Step, ...]
    failure_modes: tuple[FailureMode, ...]
    success: Success
    tenant: TenantId = DEFAULT_TENANT
    approvals: tuple[ApprovalRule, ...] = ()
    tools: tuple[ToolName, ...] = ()
    autonomy: Mapping[Environment, AutonomyDeclaration] = field(default_factory=dict)
    ceiling: Mapping[Environment, int] = field(default_factory=dict)
    deadline_s: float = 86_400.0
    priority: int = DEFAULT_PRIORITY
    max_queued: int = MAX_QUEUED
    rate: Rate | None = None
    concurrency: Concurrency | None = None
    lock: Lock | None = None

    def step(self, name: str) -> Step:
        """Return the step of that name, which exists in an applied workflow."""
        return next(step for step in self.steps if step.name == name)

    def tools_of(self, agent: AgentName) -> frozenset[ToolName]:
        """Return the tools that an agent's seat (or the seat `workflow`) may propose."""
        if agent == WORKFLOW_AGENT:
            return frozenset(self.tools)
        return frozenset(t for seat in self.seats if seat.agent == agent for t in seat.tools)

    @property
    def every_tool(self) -> frozenset[ToolName]:
        """Return the tools that some seat may propose."""
        return frozenset({*self.tools, *(name for seat in self.seats for name in seat.tools)})


def begin_name(step: str) -> StepName:
    """Return the journal name of a step's begin; its output is recorded under its own name."""
    return StepName(f"{step}#begin")


def failed_name(step: str) -> StepName:
    """Return the journal name of a step's failure, with the failure mode that took over."""
    return StepName(f"{step}#failed")
