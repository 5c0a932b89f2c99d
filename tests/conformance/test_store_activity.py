from __future__ import annotations

from dataclasses import replace

from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest
from interlock.domain.effect import EffectState
from interlock.domain.ids import DecisionId, RunId, TenantId, ToolName
from interlock.domain.run import RunState
from interlock.domain.trace import ModelUse
from interlock.store import activity, decisions, effects, spans
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.clock import START_US
from tests.conformance import store_rows as rows


def plant(tx: Tx) -> None:
    """Write a run with a call, a decision and a model request."""
    run = rows.accepted(tx)
    effect = rows.effect(run.run_id)
    effects.insert(
        tx, replace(effect, created_us=tx.now_us, outcome_us=tx.now_us, cost_micro_usd=5)
    )
    decisions.put(
        tx,
        decision_id=DecisionId("d1"),
        run_id=run.run_id,
        effect_id=effect.effect_id,
        decision=Decision(outcome=Outcome.DENY, reasons=()),
        request=PolicyRequest(
            seats=(rows.SEAT,), environment="dev", tool=rows.TOOL, arguments={}, facts=Facts()
        ),
        tool=rows.TOOL,
        tool_version=2,
    )
    use = ModelUse(
        run_id=run.run_id,
        span_key="m",
        provider="p",
        model="m",
        input_tokens=1,
        output_tokens=1,
        cost_micro_usd=7,
        price_version="v",
        is_estimated=False,
        at_us=tx.now_us,
    )
    spans.put_model_use(tx, use)


def counted(tx: Tx, tenant: TenantId, since_us: int) -> tuple[object, ...]:
    """Return all figures of a tenant."""
    return (
        activity.count_runs(tx, tenant, since_us),
        activity.count_effects(tx, tenant, since_us),
        activity.count_decisions(tx, tenant, since_us),
        activity.cost_micro_usd(tx, tenant, since_us),
    )


def test_figures_count_from_the_moment_on(db: Database) -> None:
    """What happened at the moment counts, states without any are absent."""
    db.run("test.plant", plant)

    with db.reading() as tx:
        found = counted(tx, rows.TENANT, START_US)

    expected = ({RunState.QUEUED: 1}, {EffectState.PROPOSED: 1}, {Outcome.DENY: 1}, 12)
    assert expected == found


def test_calls_of_a_tool_are_counted_by_who_made_them(db: Database) -> None:
    """By workflow, environment and version; not those of other tenants, tools or times."""
    db.run("test.plant", plant)

    with db.reading() as tx:
        found, *others = (
            activity.count_calls_of(tx, tool, tenant=tenant, since_us=since_us)
            for tool, tenant, since_us in (
                (rows.TOOL, rows.TENANT, START_US),
                (ToolName("other.tool"), rows.TENANT, START_US),
                (rows.TOOL, TenantId("other"), START_US),
                (rows.TOOL, rows.TENANT, START_US + 1),
            )
        )
        planted = rows.effect(RunId("any"))

    assert {(planted.workflow, planted.environment, planted.tool_version): 1} == found
    assert [{}, {}, {}] == others


def test_figures_are_of_one_tenant_and_time(db: Database) -> None:
    """Another tenant, and a later moment, see nothing."""
    db.run("test.plant", plant)

    with db.reading() as tx:
        other, later = (
            counted(tx, TenantId("other"), START_US),
            counted(tx, rows.TENANT, START_US + 1),
        )

    assert ({}, {}, {}, 0) == other == later
