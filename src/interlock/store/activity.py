"""Counts and cost of a tenant since a moment: the figures of the summary."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select

from interlock.domain.decision import Outcome
from interlock.domain.effect import EffectState
from interlock.domain.ids import TenantId, ToolName
from interlock.domain.principal import Seat
from interlock.domain.run import RunState
from interlock.domain.tool import Environment
from interlock.store.columns import unpack_seats
from interlock.store.tables.calls import decision, effect
from interlock.store.tables.runs import run
from interlock.store.tables.seen import model_use
from interlock.store.tx import Tx


def count_runs(tx: Tx, tenant: TenantId, since_us: int) -> dict[RunState, int]:
    """Count runs accepted since a moment by their state now; states without any are absent."""
    query = (
        select(run.c.state, func.count())
        .where(run.c.tenant == tenant, run.c.created_us >= since_us)
        .group_by(run.c.state)
    )
    return {RunState(state): count for state, count in tx.connection.execute(query)}


def count_effects(tx: Tx, tenant: TenantId, since_us: int) -> dict[EffectState, int]:
    """Count calls proposed since a moment by their state now; states without any are absent."""
    query = (
        select(effect.c.state, func.count())
        .where(effect.c.tenant == tenant, effect.c.created_us >= since_us)
        .group_by(effect.c.state)
    )
    return {EffectState(state): count for state, count in tx.connection.execute(query)}


def count_decisions(tx: Tx, tenant: TenantId, since_us: int) -> dict[Outcome, int]:
    """Count decisions since a moment; outcomes without any are absent."""
    query = (
        select(decision.c.outcome, func.count())
        .join(run, run.c.run_id == decision.c.run_id)
        .where(run.c.tenant == tenant, decision.c.at_us >= since_us)
        .group_by(decision.c.outcome)
    )
    return {Outcome(outcome): count for outcome, count in tx.connection.execute(query)}


def cost_micro_usd(tx: Tx, tenant: TenantId, since_us: int) -> int:
    """Return what model requests and calls have cost since a moment."""
    models = (
        select(func.coalesce(func.sum(model_use.c.cost_micro_usd), 0))
        .join(run, run.c.run_id == model_use.c.run_id)
        .where(run.c.tenant == tenant, model_use.c.at_us >= since_us)
    )
    calls = select(func.coalesce(func.sum(effect.c.cost_micro_usd), 0)).where(
        effect.c.tenant == tenant, effect.c.outcome_us >= since_us
    )
    return sum(int(tx.connection.execute(query).scalar_one()) for query in (models, calls))


def count_calls_of(
    tx: Tx, tool: ToolName, *, tenant: TenantId, since_us: int
) -> Mapping[tuple[str, str, int], int]:
    """Count calls of a tool proposed since a moment, by workflow, environment and version."""
    by = (effect.c.workflow, effect.c.environment, effect.c.tool_version)
    query = (
        select(*by, func.count())
        .where(effect.c.tenant == tenant, effect.c.created_us >= since_us, effect.c.tool == tool)
        .group_by(*by)
        .order_by(*by)
    )
    rows = tx.connection.execute(query)
    return {(workflow, place, version): count for workflow, place, version, count in rows}


def last_calls(tx: Tx, tenant: TenantId) -> dict[tuple[Seat, ToolName, Environment], int]:
    """Return when each seat last called each tool, of the calls that are kept; as any of a chain.

    Calls that were refused count: somebody wanted them.
    """
    query = (
        select(effect.c.seats, effect.c.tool, effect.c.environment, func.max(effect.c.created_us))
        .where(effect.c.tenant == tenant)
        .group_by(effect.c.seats, effect.c.tool, effect.c.environment)
    )
    found: dict[tuple[Seat, ToolName, Environment], int] = {}
    for seats, tool, environment, at_us in tx.connection.execute(query):
        for seat in unpack_seats(seats):
            key = seat, ToolName(tool), environment
            found[key] = max(at_us, found.get(key, 0))
    return found
