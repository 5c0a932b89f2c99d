"""Who acts: people and services that sign in, and seats (one agent in one workflow)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from interlock.domain.ids import AgentName, TenantId, WorkflowName

DEFAULT_TENANT = TenantId("default")
PERSON_NAME = r"^[a-z0-9][a-z0-9._@-]*$"
"""The form of names of people and services: keys are made for them, manifests name them."""
MAX_PERSON_NAME = 80


class Role(StrEnum):
    """What a person or service may do; an admin cannot approve."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    OWNER = "owner"
    ADMIN = "admin"
    AUDITOR = "auditor"


class PrincipalKind(StrEnum):
    """People answer approvals; services start runs and send events; agents only call tools."""

    USER = "user"
    SERVICE = "service"
    AGENT = "agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Someone who signed in: name (unique), kind, roles and the groups it may answer for."""

    name: str
    kind: PrincipalKind
    tenant: TenantId = DEFAULT_TENANT
    roles: frozenset[Role] = frozenset()
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One agent in one workflow: the principal of every decision."""

    workflow: WorkflowName
    agent: AgentName

    def __str__(self) -> str:
        return f"{self.workflow}/{self.agent}"

    @classmethod
    def parse(cls, text: str) -> Seat:
        """Read `<workflow>/<agent>` back; raises ValueError if it has another form.

        >>> str(Seat.parse("triage/resolver"))
        'triage/resolver'
        """
        workflow, slash, agent = text.partition("/")
        if not (workflow and slash and agent) or "/" in agent:
            msg = f"a seat is `<workflow>/<agent>`, got `{text}`"
            raise ValueError(msg)
        return cls(workflow=WorkflowName(workflow), agent=AgentName(agent))
