"""Histories: a run tree comes back from its rows, also if columns have been added since."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from interlock.domain.effect import EffectState
from interlock.domain.run import RunState
from interlock.store import effects, histories, migrate, runs
from interlock.store.engine import Database
from tests.conformance import store_rows
from tests.conformance.store_rows import ended


def test_a_tree_comes_back_from_its_rows(db: Database, tmp_path: Path) -> None:
    """Without the runs of others; what a row does not say is blank."""
    root_id = ended(db, "root")
    ended(db, "other")
    with db.reading() as tx:
        root = runs.get(tx, root_id)
    child_id = ended(db, "child", parent=root)
    undone = replace(store_rows.effect(root_id), state=EffectState.COMPENSATED)
    db.run("test", lambda tx: effects.insert(tx, undone))
    with db.reading() as tx:
        rows = json.loads(json.dumps(histories.read_tree(tx, root_id)))
    for row in rows["run"]:
        del row["recoveries"]

    fresh = Database(f"sqlite:///{tmp_path / 'fresh.db'}")
    migrate.upgrade(fresh)
    found = fresh.run("test", lambda tx: histories.write_tree(tx, rows))
    with fresh.reading() as tx:
        copied = runs.get(tx, root_id)
    opened = fresh.run("test", lambda tx: histories.reopen(tx, root_id, store_rows.OTHER_WORKER))
    with fresh.reading() as tx:
        (redone,) = effects.list_for_run(tx, root_id)
    fresh.close()

    assert ([root_id, child_id], root) == (found, copied)
    assert (RunState.RUNNING, None, store_rows.OTHER_WORKER, root.epoch) == (
        opened.state,
        opened.ended_us,
        opened.executor_id,
        opened.epoch,
    )
    assert EffectState.SUCCEEDED is redone.state
