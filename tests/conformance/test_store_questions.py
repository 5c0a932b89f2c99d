"""The read behind `why duplicates`, and the query plans of what must stay fast."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import Boolean, Column, Integer, text

from interlock.domain.approval import ApprovalState
from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest
from interlock.domain.effect import EffectState
from interlock.domain.ids import (
    ApprovalId,
    DecisionId,
    EffectId,
    ExecutorId,
    RunId,
    TenantId,
    ToolName,
    WorkflowName,
)
from interlock.domain.run import RunState
from interlock.store import (
    approvals,
    counts,
    decisions,
    effects,
    leases,
    questions,
    runs,
    spans,
    tallies,
    touches,
    waits,
)
from interlock.store.engine import Database
from interlock.store.questions import KeyedEffect
from interlock.store.tables.schema import metadata
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.store_rows import (
    SEAT,
    TENANT,
    TOOL,
    WORKFLOW,
    approval,
    intent,
    running,
)


def test_effects_of_a_key_tell_where_they_came_from(db: Database, clock: ManualClock) -> None:
    """Each effect comes with run, the root's trigger, decision and the approvals that it used."""
    root = running(db)
    child = running(db, "child", parent=root)
    clock.advance(1)
    first = replace(
        intent(root.run_id),
        state=EffectState.SUCCEEDED,
        external_id="41",
        decision_id=DecisionId("d1"),
        policy_version="p1",
    )
    second = intent(child.run_id, at_us=START_US + 1)
    request = PolicyRequest(
        seats=(SEAT,), environment="dev", tool=TOOL, arguments={}, facts=Facts()
    )
    with db.transaction("write") as tx:
        effects.insert(tx, first)
        effects.insert(tx, second)
        effects.insert(tx, replace(intent(root.run_id, "other key"), key_hash="other"))
        decisions.put(
            tx,
            decision_id=DecisionId("d1"),
            run_id=root.run_id,
            effect_id=first.effect_id,
            decision=Decision(outcome=Outcome.ALLOW, reasons=()),
            request=request,
            tool=TOOL,
            tool_version=2,
        )
        for name in ("a1", "a2", "unused"):
            approvals.put(tx, approval(first, name), tenant=TENANT)
        for name in ("a1", "a2"):
            yes = approvals.answer(
                tx, ApprovalId(name), state=ApprovalState.APPROVED, by="linus", reason=None
            )
            approvals.use(tx, yes.approval_id, first.effect_id, 1)
        used = approvals.list_for_effect(tx, first.effect_id)[:2]

    with db.reading() as tx:
        found = questions.effects_of_key(tx, TENANT, TOOL, "key-hash", START_US)
        later = questions.effects_of_key(tx, TENANT, TOOL, "key-hash", START_US + 1)
        foreign = questions.effects_of_key(tx, TenantId("other"), TOOL, "key-hash", 0)

    one = KeyedEffect(
        effect_id=first.effect_id,
        state=EffectState.SUCCEEDED,
        key_text="vpn is down",
        idem_key=first.idem_key,
        external_id="41",
        attempt=1,
        intent_us=START_US,
        step_name="file",
        seats=(SEAT,),
        run_id=root.run_id,
        parent_id=None,
        root_id=root.run_id,
        workflow=WORKFLOW,
        trigger_kind="webhook",
        trigger_source="desk",
        trigger_key="k1",
        body_digest="sha256:1",
        policy_version="p1",
        outcome=Outcome.ALLOW,
        approvals=tuple(used),
    )
    two = replace(
        one,
        effect_id=second.effect_id,
        state=EffectState.INTENT,
        idem_key=second.idem_key,
        external_id=None,
        intent_us=START_US + 1,
        run_id=child.run_id,
        parent_id=root.run_id,
        policy_version=None,
        outcome=None,
        approvals=(),
    )
    assert ([one, two], [two], []) == (found, later, foreign)


ROWS = 3000
RECENT_US = ROWS - 5
RUN, EFFECT = RunId("run_id-7"), EffectId("effect_id-7")
FLOW, OFTEN_CALLED = WorkflowName("workflow-7"), ToolName("tool-7")
OFTEN = counts.Counted(tenant=TENANT, workflow=FLOW, environment="dev", tool=OFTEN_CALLED)

INDEXED: dict[str, tuple[Callable[[Tx], object], set[str]]] = {
    "recent duplicates": (
        lambda tx: questions.recent_duplicates(tx, TENANT, RECENT_US),
        {"ix_dup_recent"},
    ),
    "effects of a key": (
        lambda tx: questions.effects_of_key(tx, TENANT, OFTEN_CALLED, "key_hash-7", 1),
        {"ix_effect_key"},
    ),
    "same key": (
        lambda tx: effects.count_same_key(
            tx, TENANT, OFTEN_CALLED, "key_hash-7", 1, other_than=EFFECT
        ),
        {"ix_effect_key"},
    ),
    "calls in the last hour": (
        lambda tx: counts.since(tx, OFTEN, RECENT_US),
        {"pk_call_count", "sqlite_autoindex_call_count_1"},
    ),
    "calls of a run": (
        lambda tx: tallies.of_run(tx, RUN, OFTEN_CALLED),
        {"pk_tally", "sqlite_autoindex_tally_1"},
    ),
    "open effects": (
        lambda tx: effects.list_effects(tx, states=(EffectState.PARKED,)),
        {"ix_effect_open"},
    ),
    "newest effects": (
        lambda tx: effects.list_effects(tx, tenant=TENANT),
        {"ix_effect_created"},
    ),
    "live runs": (
        lambda tx: runs.list_runs(tx, states=(RunState.RUNNING, RunState.WAITING)),
        {"ix_run_live"},
    ),
    "owned runs": (lambda tx: leases.owned_runs(tx, ExecutorId("executor_id-7")), {"ix_run_live"}),
    "newest runs": (lambda tx: runs.list_runs(tx, tenant=TENANT), {"ix_run_created"}),
    "runs of a workflow": (
        lambda tx: runs.list_runs(tx, tenant=TENANT, workflow=FLOW),
        {"ix_run_workflow"},
    ),
    "children": (lambda tx: runs.children(tx, RUN), {"ix_run_parent"}),
    "tree": (lambda tx: runs.tree(tx, RUN), {"ix_run_root"}),
    "due runs": (lambda tx: runs.lock_due(tx, 5, limit=10), {"ix_wait_due"}),
    "next due": (waits.next_due, {"ix_wait_due"}),
    "next signal": (lambda tx: waits.has_signal(tx, RUN, "topic-7"), {"ix_signal_topic"}),
    "open approvals": (
        lambda tx: approvals.list_open(tx, tenant=TENANT, groups=("grp-7",)),
        {"ix_approval_open"},
    ),
    "approvals of an effect": (
        lambda tx: approvals.list_for_effect(tx, EFFECT),
        {"ix_approval_effect"},
    ),
    "decisions of an effect": (
        lambda tx: decisions.list_for_effect(tx, EFFECT),
        {"ix_decision_effect"},
    ),
    "trace of a run": (lambda tx: spans.list_for_run(tx, RUN), {"ix_span_run"}),
    "touches of a record": (
        lambda tx: touches.list_for_record(
            tx, TENANT, system="system-7", kind="type-7", external_id="external_id-7"
        ),
        {"pk_touch", "sqlite_autoindex_touch_1"},
    ),
}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database with thousands of rows of one tenant, of which few are open, due or recent."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("filled") / "store.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        url = f"sqlite:///{path}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.create_database(template=request.getfixturevalue("postgres_template"))
    db = Database(url)
    with db.transaction("fill") as tx:
        for table in metadata.sorted_tables:
            rows = [{c.name: _value(c, n) for c in table.columns} for n in range(ROWS)]
            tx.connection.execute(table.insert(), rows)
        if tx.dialect == "postgresql":
            # Autovacuum does it there sooner or later; SQLite plans without statistics.
            tx.connection.execute(text("ANALYZE"))
    yield db
    db.close()


def _value(column: Column[object], n: int) -> object:
    if column.name == "tenant":
        return TENANT
    if column.name == "state":
        return (
            "succeeded"
            if n % 100
            else {"effect": "parked", "approval": "pending"}.get(column.table.name, "running")
        )
    if column.name in {"ended_us", "compensates"} and n % 100 == 0:
        return None
    if isinstance(column.type, Boolean):
        return False
    if isinstance(column.type, Integer):
        return n
    is_key = column.primary_key or column.name.endswith(("_id", "_key", "_hash", "compensates"))
    return f"{column.name}-{n if is_key else n % 10}"


@pytest.mark.parametrize("name", INDEXED)
def test_query_is_answered_from_its_index(filled: Database, name: str) -> None:
    """The plan of the query's first statement uses the index that is there for it."""
    ask, indexes = INDEXED[name]

    plan = _plan_of(filled, ask)

    assert any(index in plan for index in indexes), plan


def _plan_of(db: Database, ask: Callable[[Tx], object]) -> str:
    statements: list[tuple[str, object]] = []

    def keep(statement: str, parameters: object) -> None:
        statements.append((statement, parameters))

    with db.listening(keep), suppress(ValueError), db.transaction("ask") as tx:
        # The rows that fill the tables are no real runs and effects.
        ask(tx)
    statement, parameters = next(each for each in statements if not each[0].startswith("BEGIN"))
    explain = "EXPLAIN QUERY PLAN" if db.dialect == "sqlite" else "EXPLAIN"
    with db.reading() as tx:
        if db.dialect == "postgresql" and isinstance(parameters, tuple):
            # A statement of the road, whose parameters have numbers.
            driver = tx.connection.connection.driver_connection
            # INVARIANT: the engine uses this driver.
            assert isinstance(driver, psycopg.Connection)
            with psycopg.RawCursor(driver) as cursor:
                return "\n".join(map(str, cursor.execute(f"{explain} {statement}", parameters)))
        rows = tx.connection.exec_driver_sql(f"{explain} {statement}", parameters)  # type: ignore[arg-type]
        return "\n".join(str(row) for row in rows)
