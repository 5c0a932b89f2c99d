"""Incident questions, answered from rows and by rule; no model and no search in text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from interlock.domain.clock import iso
from interlock.domain.decision import Outcome
from interlock.domain.effect import EffectState
from interlock.domain.ids import TenantId, ToolName
from interlock.domain.run import RunState
from interlock.store import activity, approvals, questions
from interlock.store.questions import DuplicateKey, KeyedEffect
from interlock.store.tx import Tx

Cause: TypeAlias = Literal[
    "retry", "repeated_in_run", "handoff", "redelivery", "two_triggers", "several_events", "unknown"
]
_MEANING: Mapping[Cause, str] = {
    "retry": "One run sent the call again after an attempt whose outcome was unknown",
    "repeated_in_run": "One run proposed the same thing more than once",
    "handoff": "Runs of one tree repeated it: a parent and a child run, or two child runs",
    "redelivery": "The source delivered the same event more than once under different ids",
    "two_triggers": "Different triggers started runs for the same thing",
    "several_events": "One trigger received several different events about the same thing",
    "unknown": "The rows do not say why",
}
_DID_NOT_HAPPEN = frozenset({EffectState.FAILED_DEFINITE, EffectState.CONFIRMED_ABSENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateGroup:
    """The effects of one tool that share a business key, oldest first, and why there are several.

    `n` is how many had an intent; `key_text` is the key as people read it; `cause` follows from
    the rows, `why` says it in sentences with the figures it rests on.
    """

    tool: ToolName
    key_text: str
    n: int
    first_us: int
    last_us: int
    cause: Cause
    why: str
    rows: tuple[KeyedEffect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesAnswer:
    """Groups, latest first, and one paragraph about all of them."""

    since_us: int
    groups: tuple[DuplicateGroup, ...]
    paragraph: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What happened since a moment; states and outcomes without any are absent.

    `approvals_open` counts those that wait now, whenever they were asked.
    """

    since_us: int
    runs: Mapping[RunState, int]
    tool_calls: int
    effects: Mapping[EffectState, int]
    decisions: Mapping[Outcome, int]
    approvals_open: int
    cost_micro_usd: int


def why_duplicates(tx: Tx, tenant: TenantId, since_us: int) -> DuplicatesAnswer:
    """Say which business keys were written more than once since a moment, by whom and why."""
    groups = tuple(
        _group(tx, tenant, found) for found in questions.recent_duplicates(tx, tenant, since_us)
    )
    return DuplicatesAnswer(since_us=since_us, groups=groups, paragraph=_paragraph(groups))


def summary(tx: Tx, tenant: TenantId, since_us: int) -> Summary:
    """Count runs, calls and decisions and add up the cost since a moment."""
    effects = activity.count_effects(tx, tenant, since_us)
    return Summary(
        since_us=since_us,
        runs=activity.count_runs(tx, tenant, since_us),
        tool_calls=sum(effects.values()),
        effects=effects,
        decisions=activity.count_decisions(tx, tenant, since_us),
        approvals_open=len(approvals.list_open(tx, tenant=tenant)),
        cost_micro_usd=activity.cost_micro_usd(tx, tenant, since_us),
    )


def cause_of(rows: tuple[KeyedEffect, ...]) -> Cause:
    """Name why the effects of one business key are several, from where each came from."""
    if len(rows) <= 1:
        return "retry" if any(row.attempt > 1 for row in rows) else "unknown"
    if len({row.run_id for row in rows}) == 1:
        return "repeated_in_run"
    if len({row.root_id for row in rows}) == 1:
        return "handoff"
    deliveries = {(row.trigger_kind, row.trigger_source): row for row in rows}
    if len(deliveries) > 1:
        return "two_triggers"
    bodies = {row.body_digest for row in rows}
    if None in bodies:
        return "unknown"
    # By root: one tree may hold several of the rows.
    per_root = Counter({row.root_id: row.body_digest for row in rows}.values())
    return "redelivery" if max(per_root.values()) > 1 else "several_events"


def _group(tx: Tx, tenant: TenantId, found: DuplicateKey) -> DuplicateGroup:
    rows = tuple(questions.effects_of_key(tx, tenant, found.tool, found.key_hash, found.first_us))
    happened = tuple(row for row in rows if row.state not in _DID_NOT_HAPPEN)
    cause = cause_of(happened)
    return DuplicateGroup(
        tool=found.tool,
        key_text=next((row.key_text for row in rows if row.key_text), ""),
        n=found.n,
        first_us=found.first_us,
        last_us=found.last_us,
        cause=cause,
        why=f"{_MEANING[cause]}: {_figures(happened)}.",
        rows=rows,
    )


def _figures(rows: tuple[KeyedEffect, ...]) -> str:
    keys = len({row.idem_key for row in rows})
    runs = len({row.run_id for row in rows})
    deliveries = len({(row.trigger_source, row.trigger_key) for row in rows})
    versions = len({row.policy_version for row in rows})
    sources = Counter(f"{row.trigger_kind} {row.trigger_source}" for row in rows)
    told = (
        f"{_count(len(rows), 'effect')} with {_count(keys, 'idempotency key')}",
        _count(runs, "run"),
        f"{_count(deliveries, 'delivery', 'deliveries')} from "
        + ", ".join(f"{name} ({n})" for name, n in sources.most_common()),
        f"{sum(1 for row in rows if row.approvals)} approved by a person",
        _count(versions, "policy version"),
    )
    return "; ".join(told)


def _paragraph(groups: tuple[DuplicateGroup, ...]) -> str:
    if not groups:
        return "No business key was written more than once."
    total = sum(group.n for group in groups)
    worst = max(groups, key=lambda group: group.n)
    return (
        f"{_count(len(groups), 'business key')} written more than once, {total} effects in all. "
        f"Most often `{worst.key_text}` by `{worst.tool}`: {worst.n} times between "
        f"{iso(worst.first_us)} and {iso(worst.last_us)}. {worst.why}"
    )


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
