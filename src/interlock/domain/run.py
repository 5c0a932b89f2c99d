"""Runs: one execution of one workflow version for one trigger, and the states it moves through."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import AgentName, ExecutorId, RunId, StepName, TenantId, WorkflowName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.tool import Environment


class RunState(StrEnum):
    """The states of docs/architecture.md; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPENSATING = "compensating"
    PAUSED = "paused"
    DEAD_LETTERED = "dead_lettered"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self in {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}


UNDO: Literal["undo"] = "undo"
"""Kind of the trigger of a run that undoes the ended run which its input names (`run_id`)."""
RECHECK: Literal["recheck"] = "recheck"
"""Kind of the trigger of a run that looks a second time for an effect (`effect_id`, `at_us`)."""
SESSION: Literal["session"] = "session"
"""Kind of the trigger of a run that is one session of an outside agent: its steps are its calls."""


DEFAULT_PRIORITY = 4
"""Of 0 to 9, as in Java's message service: the middle, with room on both sides."""

VERSION_MISSING = "version.missing"
"""Reason of a run that waits for a worker that can run it; what is missing follows after `/`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a worker can run, or a run needs: the format of its release, and Python functions."""

    release_format: int = 0
    functions: frozenset[str] = frozenset()

    def lacking(self, needed: Abilities) -> tuple[str, ...]:
        """Return what of `needed` is not here, in words; empty if nothing is.

        >>> Abilities(release_format=1).lacking(Abilities(functions=frozenset({"find"})))
        ('function find',)
        """
        formats = (f"release format {needed.release_format}",)
        functions = sorted(needed.functions - self.functions)
        return (
            *(formats if needed.release_format > self.release_format else ()),
            *(f"function {name}" for name in functions),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRef:
    """What started a run: kind, source and the key that deduplicates it."""

    kind: str
    source: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """Everything that is needed to accept a run.

    `agent` is set for a child run that only runs that agent (a hand-off); otherwise the run walks
    the workflow's steps. `seats` is the chain, outermost first, for the record; `deciding` are the
    seats that policy asks. `release` is the applied project release that fixes every definition.
    `priority` is from 0 to 9; the highest goes first where runs wait for one another.
    """

    workflow: WorkflowName
    workflow_version: int
    release: int
    environment: Environment
    tenant: TenantId
    department: str
    trigger: TriggerRef
    input: Json
    agent: AgentName | None = None
    seats: tuple[Seat, ...] = ()
    deciding: tuple[Seat, ...] = ()
    user: str | None = None
    parent_id: RunId | None = None
    root_id: RunId | None = None
    depth: int = 0
    labels: Labels = field(default_factory=Labels)
    deadline_us: int | None = None
    priority: int = DEFAULT_PRIORITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row of `run`. Times are microseconds since the epoch, None if not reached.

    `end_state` is the declared end state (`routed`); `error_code` why it failed; `epoch` rises with
    each owner, `segment` with each wait; `output` is the result. `lost_us` is when it was last
    taken from an owner that nobody saw end: on another host, past its lease.
    """

    run_id: RunId
    request: StartRequest
    state: RunState
    epoch: int
    segment: int
    recoveries: int
    created_us: int
    executor_id: ExecutorId | None = None
    lost_us: int | None = None
    started_us: int | None = None
    ended_us: int | None = None
    labels: Labels = field(default_factory=Labels)
    is_cancel_requested: bool = False
    is_pause_requested: bool = False
    reason: str | None = None
    end_state: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    output: Json = None


def follow_up(
    run: Run, *, kind: Literal["undo", "recheck"], key: str, value: Json, user: str | None
) -> StartRequest:
    """Return the request of a child run that tidies up after `run`, which need not wait for it."""
    return replace(
        run.request,
        trigger=TriggerRef(kind=kind, source=f"{kind}/{run.request.workflow}", key=key),
        input=value,
        agent=None,
        seats=(),
        deciding=(),
        user=user,
        parent_id=run.run_id,
        root_id=run.request.root_id or run.run_id,
        depth=run.request.depth + 1,
        labels=run.labels,
        deadline_us=None,
        priority=DEFAULT_PRIORITY,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """The recorded result of one named operation of a run: a value, or an error (code, message)."""

    name: StepName
    kind: str
    value: Json
    error: JsonObject | None
    input_digest: str | None
    epoch: int
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """The answer of a wait whose time ran out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How the code of a run ended: a final state, the result, and why if it failed."""

    state: RunState
    output: Json = None
    end_state: str | None = None
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildOutcome:
    """How a child run ended."""

    run_id: RunId
    state: RunState
    output: Json
    error_code: str | None = None
    error_message: str | None = None
