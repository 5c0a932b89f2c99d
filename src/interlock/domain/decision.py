"""Decisions: what policy answers to one call, with the reasons, and the facts it was asked with."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from interlock.domain.budget import UNLIMITED_MICROS
from interlock.domain.canonical import JsonObject
from interlock.domain.ids import ToolName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.tool import Environment


class Outcome(StrEnum):
    """In order of strictness: the strictest of several wins."""

    ALLOW = "allow"
    NEEDS_APPROVAL = "needs_approval"
    DRAFT = "draft"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why: a stable code (`policy.denied`), the policy's id if one decided, and its `@why`."""

    code: str
    message: str
    policy_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer for one call. `groups` (sorted) are those whose approval would unlock it.

    `observed` is what policies in observe mode would have said; it changes nothing.
    """

    outcome: Outcome
    reasons: tuple[Reason, ...]
    groups: tuple[str, ...] = ()
    policy_version: str = ""
    slice_version: str = ""
    observed: tuple[Reason, ...] = ()

    @property
    def policy_ids(self) -> tuple[str, ...]:
        """Return the sorted ids of the policies that determined it."""
        return tuple(sorted({r.policy_id for r in self.reasons if r.policy_id}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the server knows about the run and its history; a caller can send none of it.

    `now_us` is database time. `same_key_count` counts other effects with the same tenant, tool and
    business key inside the tool's window. `budget_left_micros` is the least that is left of the
    budgets of money.
    """

    labels: Labels = field(default_factory=Labels)
    user: str | None = None
    calls_this_tool: int = 0
    calls_this_tool_1h: int = 0
    writes_this_run: int = 0
    same_key_count: int = 0
    failures_this_tool: int = 0
    done: frozenset[str] = frozenset()
    depth: int = 0
    budget_left_micros: int = UNLIMITED_MICROS
    now_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRequest:
    """One question to policy: may these seats call this tool with these arguments, given facts?

    `seats` all have to be allowed; the strictest outcome wins. `lifted` are the groups whose
    approval is valid for exactly this call. `tool` is None for a model request, which then names
    its `model`. `tool_version` None is the live one.
    """

    seats: tuple[Seat, ...]
    environment: Environment
    tool: ToolName | None
    arguments: JsonObject
    facts: Facts
    model: str | None = None
    tool_version: int | None = None
    lifted: frozenset[str] = frozenset()
