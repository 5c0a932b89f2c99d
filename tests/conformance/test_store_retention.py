"""Retention: which run trees may be deleted, and that nothing of them is left."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import func, select

from interlock.domain.effect import EffectState
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import JournalEntry, RunState
from interlock.store import effects, journal, retention, runs, waits
from interlock.store.engine import Database
from interlock.store.tables import calls
from interlock.store.tables import runs as run_tables
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance import store_rows
from tests.conformance.store_rows import ended

AGE_S = 10.0
BEFORE_US = START_US + 5_000_000
UNSETTLED = sorted(
    set(EffectState)
    - {
        EffectState.DENIED,
        EffectState.DRAFTED,
        EffectState.SUCCEEDED,
        EffectState.FAILED_DEFINITE,
        EffectState.CONFIRMED_DONE,
        EffectState.CONFIRMED_ABSENT,
        EffectState.ABANDONED,
        EffectState.COMPENSATED,
    }
)


def expired(db: Database, *, before_us: int = BEFORE_US) -> list[RunId]:
    """Return the runs that may be deleted."""
    with db.reading() as tx:
        found = retention.list_expired(tx, before_us=before_us, limit=10)
        assert len(found) == retention.count_expired(tx, before_us=before_us)
    return found


def test_only_what_ended_long_ago_as_a_whole_is_expired(db: Database, clock: ManualClock) -> None:
    """Not a run that lives, not one whose child lives or ended later, and no child by itself."""
    store_rows.running(db, "lives")
    whole, parents = ended(db, "whole"), [ended(db, "p1"), ended(db, "p2")]
    with db.reading() as tx:
        root, with_live, with_late = (runs.get(tx, one) for one in (whole, *parents))
    ended(db, "child", parent=root)
    store_rows.running(db, "child-live", parent=with_live)
    clock.advance(AGE_S)
    ended(db, "child-late", parent=with_late)
    ended(db, "late")

    assert [whole] == expired(db)


@pytest.mark.parametrize("state", UNSETTLED)
def test_a_tree_with_an_unsettled_effect_is_kept(db: Database, state: EffectState) -> None:
    """Wherever in the tree it is, until a person has settled it."""
    with db.transaction("start") as tx:
        parent = store_rows.accepted(tx, "parent")
    child = ended(db, "child", parent=parent)

    def leave(tx: Tx) -> None:
        runs.claim(tx, parent.run_id, segment=0, executor_id=store_rows.WORKER)
        runs.finish(tx, parent.run_id, epoch=1, state=RunState.FAILED)
        effects.insert(tx, replace(store_rows.effect(child), state=state))

    db.run("leave", leave)
    kept = expired(db)
    settled = calls.effect.update().values(state=EffectState.ABANDONED)
    db.run("settle", lambda tx: tx.connection.execute(settled))

    assert ([], [parent.run_id]) == (kept, expired(db))


def test_a_tree_in_which_a_run_began_meanwhile_is_not_deleted(db: Database) -> None:
    """What was expired when it was listed is looked at again under the lock of its root."""
    root_id = ended(db, "root")
    listed = expired(db)
    with db.reading() as tx:
        root = runs.get(tx, root_id)
    store_rows.running(db, "undo", parent=root)

    began = db.run("begin", lambda tx: retention.begin(tx, root_id, before_us=BEFORE_US))

    assert ([root_id], False) == (listed, began)
    with db.transaction("look") as tx:
        assert not retention.is_deleting(tx, root_id)


def test_a_deletion_that_has_begun_is_ended(db: Database) -> None:
    """Its mark stays, and is the sign that nothing may begin in that tree."""
    root_id = ended(db, "root")

    began = [
        db.run("begin", lambda tx: retention.begin(tx, root_id, before_us=before_us))  # noqa: B023  # called at once
        for before_us in (BEFORE_US, START_US - 1)
    ]

    with db.transaction("look") as tx:
        is_marked = retention.is_deleting(tx, root_id)
    assert ([True, True], True) == (began, is_marked)


def test_nothing_of_a_deleted_tree_is_left(db: Database) -> None:
    """In portions, the root last, and other runs are not touched."""
    root_id, other_id = ended(db, "root"), ended(db, "other")
    with db.reading() as tx:
        root = runs.get(tx, root_id)
    child_id = ended(db, "child", parent=root)
    for run_id in (root_id, child_id, other_id):
        db.run("fill", partial(fill, run_id=run_id))
    before = count(db)

    portions: list[int] = []
    while not portions or portions[-1]:
        assert portions.count(0) == 0
        portions.append(db.run("delete", lambda tx: retention.delete_some(tx, root_id, limit=2)))
    left = count(db)

    assert {1, 2} == set(portions[:-1])
    assert {name: rows // 3 for name, rows in before.items()} == left
    with db.reading() as tx:
        assert [other_id] == [run.run_id for run in runs.list_runs(tx)]


def fill(tx: Tx, run_id: RunId) -> None:
    """Write some rows that belong to a run."""
    for name in ("one", "two", "three"):
        entry = JournalEntry(
            name=StepName(name),
            kind="step",
            value=1,
            error=None,
            input_digest=None,
            epoch=1,
            at_us=START_US,
        )
        journal.put(tx, run_id, entry)
        effects.insert(tx, replace(store_rows.effect(run_id, name), state=EffectState.DENIED))
    waits.put_signal(tx, run_id, "topic", 1, "key")


def count(db: Database) -> dict[str, int]:
    """Return how many rows the filled tables have."""
    filled = (
        run_tables.step,
        calls.effect,
        run_tables.signal,
        run_tables.run,
        run_tables.trigger_event,
    )
    with db.reading() as tx:
        return {
            table.name: tx.connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in filled
        }
