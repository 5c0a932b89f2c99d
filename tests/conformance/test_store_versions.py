from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from interlock.domain.approval import ApprovalState
from interlock.domain.effect import EffectState
from interlock.domain.ids import ApprovalId, RunId, TenantId
from interlock.domain.run import RunState
from interlock.domain.trace import SpanStatus
from interlock.observe import emit
from interlock.store import approvals, effects, runs, spans, versions
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.clock import START_US
from tests.conformance import store_rows as rows


def _tree(db: Database, root_id: RunId) -> str:
    with db.reading() as tx:
        return versions.of_tree(tx, root_id)


def test_mark_of_a_tree_changes_with_each_thing_that_its_page_shows(db: Database) -> None:
    """A span, its end, an effect's move, a child run and the end of a run each change the mark."""
    run = rows.running(db)
    intent = rows.intent(run.run_id)
    marks = [_tree(db, run.run_id)]

    def step(fn: Callable[[Tx], object]) -> None:
        db.run("test", fn)
        marks.append(_tree(db, run.run_id))

    step(lambda tx: spans.put(tx, emit.step_span(run.run_id, "file", start_us=START_US)))
    step(lambda tx: effects.insert(tx, intent))
    step(lambda tx: effects.move(tx, intent, replace(intent, state=EffectState.SUCCEEDED)))
    step(lambda tx: spans.close(tx, run.run_id, "file", end_us=START_US + 1, status=SpanStatus.OK))
    step(lambda tx: rows.accepted(tx, "child", parent=run))
    step(lambda tx: runs.finish(tx, run.run_id, epoch=run.epoch, state=RunState.SUCCEEDED))

    assert len(marks) == len(set(marks))


def test_mark_of_a_tree_is_the_same_while_nothing_changes(db: Database) -> None:
    """Looking twice gives one mark, and another tree does not touch it."""
    run = rows.running(db)
    before = _tree(db, run.run_id)

    rows.running(db, "other")

    assert before == _tree(db, run.run_id)


def test_mark_of_the_list_changes_when_a_run_starts_moves_and_ends(db: Database) -> None:
    """Accepting, claiming and finishing a run each change the mark of the list."""

    def mark() -> str:
        with db.reading() as tx:
            return versions.of_runs(tx, rows.TENANT)

    marks = [mark()]
    accepted = db.run("test", rows.accepted)
    marks.append(mark())
    db.run("test", lambda tx: runs.claim(tx, accepted.run_id, segment=0, executor_id=rows.WORKER))
    marks.append(mark())
    db.run(
        "test",
        lambda tx: runs.finish(tx, accepted.run_id, epoch=1, state=RunState.SUCCEEDED),
    )
    marks.append(mark())

    assert len(marks) == len(set(marks))


def test_mark_of_the_inbox_is_the_tenants_own(db: Database) -> None:
    """Asking and answering change the mark of that tenant's inbox and of no other."""
    run = rows.running(db)
    effect = rows.effect(run.run_id)
    asked = rows.approval(effect)
    elsewhere = TenantId("elsewhere")

    def marks() -> tuple[str, str, str]:
        with db.reading() as tx:
            return (
                versions.of_inbox(tx, rows.TENANT),
                versions.of_inbox(tx, elsewhere),
                versions.of_approval(tx, ApprovalId("a1")),
            )

    empty = marks()
    db.run("test", lambda tx: approvals.put(tx, asked, tenant=rows.TENANT))
    pending = marks()
    db.run(
        "test",
        lambda tx: approvals.answer(
            tx, asked.approval_id, state=ApprovalState.APPROVED, by="ada", reason=None
        ),
    )
    answered = marks()

    assert (empty[0], empty[0]) == (answered[0], empty[1])
    assert empty[0] != pending[0]
    assert empty[1] == pending[1] == answered[1]
    assert 3 == len({empty[2], pending[2], answered[2]})
