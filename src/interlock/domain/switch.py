"""Kill switches: which calls and model requests are not made any more, why, and who says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from interlock.domain.ids import AgentName, TenantId, ToolName, WorkflowName
from interlock.domain.principal import Seat
from interlock.domain.tool import Environment

PROD: Environment = "prod"
TOPIC = "kill/"
"""Begins what a run waits for that waits until a switch is lifted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A call, or a model request, as kill switches see it; a call has a tool and a system."""

    tenant: TenantId
    environment: Environment
    department: str
    workflow: WorkflowName
    seats: tuple[Seat, ...]
    tool: ToolName | None = None
    system: str | None = None
    model: str | None = None
    is_write: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a kill switch stops: what fits every part that is given, so all if none is.

    `workflow` and `agent` together are one seat. With `tool` or `system`, or if it is of writes
    only, it stops no model requests; with `model` nothing but those.
    """

    environment: Environment | None = None
    department: str | None = None
    workflow: WorkflowName | None = None
    agent: AgentName | None = None
    tool: ToolName | None = None
    system: str | None = None
    model: str | None = None
    writes_only: bool = False

    def covers(self, target: Target) -> bool:
        """Return whether the switch stops a call or model request of its tenant.

        >>> desk = Scope(system="servicedesk", writes_only=True)
        >>> call = Target(
        ...     tenant=TenantId("acme"),
        ...     environment="prod",
        ...     department="it",
        ...     workflow=WorkflowName("triage"),
        ...     seats=(Seat.parse("triage/resolver"),),
        ...     tool=ToolName("servicedesk.issue.create"),
        ...     system="servicedesk",
        ...     is_write=True,
        ... )
        >>> desk.covers(call), Scope(model="small").covers(call), Scope().covers(call)
        (True, False, True)
        """
        return (
            self.environment in {None, target.environment}
            and self.department in {None, target.department}
            and self.tool in {None, target.tool}
            and self.system in {None, target.system}
            and self.model in {None, target.model}
            and (target.is_write or not self.writes_only)
            and self._covers_one_of(target)
        )

    def _covers_one_of(self, target: Target) -> bool:
        if self.agent is None:
            workflows = {target.workflow, *(seat.workflow for seat in target.seats)}
            return self.workflow is None or self.workflow in workflows
        return any(
            seat.agent == self.agent and self.workflow in {None, seat.workflow}
            for seat in target.seats
        )

    def is_within(self, other: Scope) -> bool:
        """Return whether it stops nothing that `other` does not stop as well.

        >>> Scope(tool=ToolName("a.b"), writes_only=True).is_within(Scope(tool=ToolName("a.b")))
        True
        """
        return all(
            getattr(other, part.name) in {None, False, getattr(self, part.name)}
            for part in fields(self)
        )

    @property
    def touches_prod(self) -> bool:
        """Whether it may stop calls in `prod`."""
        return self.environment in {None, PROD}

    def __str__(self) -> str:
        """Render for people.

        >>> str(Scope(environment="prod", system="crm", writes_only=True))
        'writes of environment `prod`, system `crm`'
        >>> str(Scope())
        'everything'
        """
        named = [
            f"{part.name} `{value}`"
            for part in fields(self)
            if isinstance(value := getattr(self, part.name), str)
        ]
        what = ", ".join(named)
        if self.writes_only:
            return f"writes of {what}" if what else "all writes"
        return what or "everything"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftAsked:
    """One person's word that a switch may go, which in `prod` a second person has to confirm.

    `leaving` is what is stopped from then on instead, None for nothing.
    """

    by: str
    at_us: int
    reason: str
    leaving: Scope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KillSwitch:
    """A switch that is set until it is lifted, or until `expires_us`; times are database time.

    `lift_asked` is what a first person said of lifting it. `lifted_by` names all who lifted it.
    """

    switch_id: str
    tenant: TenantId
    scope: Scope
    reason: str
    set_by: str
    set_us: int
    expires_us: int | None = None
    lift_asked: LiftAsked | None = None
    lifted_us: int | None = None
    lifted_by: tuple[str, ...] = field(default=())

    def is_in_force_at(self, now_us: int) -> bool:
        """Return whether it stops calls at a moment."""
        return self.lifted_us is None and (self.expires_us is None or now_us < self.expires_us)

    def stops(self, target: Target, now_us: int) -> bool:
        """Return whether it stops a call or model request at a moment."""
        return (
            self.tenant == target.tenant
            and self.is_in_force_at(now_us)
            and self.scope.covers(target)
        )


def first_stopping(
    switches: Iterable[KillSwitch], target: Target, *, now_us: int
) -> KillSwitch | None:
    """Return the switch that stops a call or model request, None if it may be made."""
    return next((each for each in switches if each.stops(target, now_us)), None)


def topic_of(switch_id: str) -> str:
    """Return what a run waits for that waits until a switch is lifted."""
    return f"{TOPIC}{switch_id}"
