"""Whole run trees as plain rows, so that a recorded one can be run again in another database."""

from __future__ import annotations

from sqlalchemy import Boolean, Table, Text, select, update

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import EffectState
from interlock.domain.ids import ExecutorId, RunId
from interlock.domain.run import Run, RunState
from interlock.store import runs
from interlock.store.tables.calls import effect
from interlock.store.tables.runs import release, run
from interlock.store.tables.schema import metadata
from interlock.store.tx import Tx


def read_tree(tx: Tx, root_id: RunId) -> JsonObject:
    """Return every row of a run tree by table, and every release; nothing is redacted."""
    tree = [each.run_id for each in runs.tree(tx, root_id)]
    return {
        table.name: _rows(tx, table, tree)
        for table in metadata.sorted_tables
        if table is release or "run_id" in table.columns
    }


def write_tree(tx: Tx, rows: JsonObject) -> list[RunId]:
    """Write such rows into an empty database; return the runs, the root first.

    Columns that are not among them are empty, zero or false.
    """
    for table in metadata.sorted_tables:
        for row in _objects(rows.get(table.name)):
            known = {name: value for name, value in row.items() if name in table.columns}
            tx.connection.execute(table.insert().values({**_blanks(table), **known}))
    return [RunId(str(row["run_id"])) for row in _objects(rows["run"])]


def reopen(tx: Tx, run_id: RunId, executor_id: ExecutorId) -> Run:
    """Let an ended run be as when it was claimed for the last time, and nothing of it be undone."""
    undone = (effect.c.run_id == run_id, effect.c.state == EffectState.COMPENSATED)
    tx.connection.execute(update(effect).where(*undone).values(state=EffectState.SUCCEEDED))
    values = {"state": RunState.RUNNING, "ended_us": None, "executor_id": executor_id}
    tx.connection.execute(update(run).where(run.c.run_id == run_id).values(values))
    return runs.get(tx, run_id)


def _rows(tx: Tx, table: Table, tree: list[RunId]) -> Json:
    query = select(table).order_by(*table.primary_key.columns)
    if "run_id" in table.columns:
        query = query.where(table.c.run_id.in_(tree))
    return [dict(row) for row in tx.connection.execute(query).mappings()]


def _objects(rows: Json) -> list[JsonObject]:
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _blanks(table: Table) -> dict[str, object]:
    return {
        column.name: ""
        if isinstance(column.type, Text)
        else False
        if isinstance(column.type, Boolean)
        else 0
        for column in table.columns
        if not column.nullable
    }
