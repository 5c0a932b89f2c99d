"""What may be deleted: run trees that ended long ago and left nothing open, some rows at once."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Table, and_, exists, func, or_, select, tuple_

from interlock.domain.effect import EffectState
from interlock.domain.ids import RunId
from interlock.store import runs
from interlock.store.tables.calls import approval_use, budget_window, effect, evidence
from interlock.store.tables.runs import run
from interlock.store.tables.schema import metadata
from interlock.store.tx import Tx

_UNSETTLED = (
    EffectState.PROPOSED,
    EffectState.AUTHORIZED,
    EffectState.INTENT,
    EffectState.AMBIGUOUS,
    EffectState.PROBING,
    EffectState.PARKED,
)


def list_expired(tx: Tx, *, before_us: int, limit: int) -> list[RunId]:
    """Return roots of run trees that ended before an instant as a whole, the oldest first.

    None in which a run lives or an effect is not settled.
    """
    query = select(run.c.run_id).where(*_expired(before_us)).order_by(run.c.ended_us).limit(limit)
    return [RunId(run_id) for run_id in tx.connection.execute(query).scalars()]


def count_expired(tx: Tx, *, before_us: int) -> int:
    """Return how many run trees may be deleted."""
    query = select(func.count()).select_from(run).where(*_expired(before_us))
    return tx.connection.execute(query).scalar_one()


def begin(tx: Tx, root_id: RunId, *, before_us: int) -> bool:
    """Mark a tree as being deleted, for good; False if it may not be deleted any more.

    Whoever would start something below an ended run locks its root and looks for the mark: so a
    tree is never deleted under a run, and no run begins in half a tree.
    """
    runs.lock_any(tx, root_id)
    may_go = or_(run.c.is_deleting.is_(True), and_(*_expired(before_us)))
    mark = run.update().where(run.c.run_id == root_id, may_go).values(is_deleting=True)
    return tx.connection.execute(mark).rowcount == 1


def is_deleting(tx: Tx, root_id: RunId) -> bool:
    """Lock the root of a tree and return whether it is being deleted.

    Raises `NotFoundError` if it is gone.
    """
    runs.lock_any(tx, root_id)
    query = select(run.c.is_deleting).where(run.c.run_id == root_id)
    return tx.connection.execute(query).scalar_one() is True


def delete_some(tx: Tx, root_id: RunId, *, limit: int) -> int:
    """Delete at most `limit` rows of a tree that is marked; 0 when nothing is left of it.

    The runs themselves go last, the root as the very last, so that an interrupted deletion is found
    again. Counts of duplicates stay: they name no run.
    """
    tree = select(run.c.run_id).where(run.c.root_id == root_id)
    effects = select(effect.c.effect_id).where(effect.c.run_id.in_(tree))
    for table in (evidence, approval_use):
        if deleted := _delete(tx, table, table.c.effect_id.in_(effects), limit):
            return deleted
    for table in reversed(metadata.sorted_tables):
        if table is run or "run_id" not in table.columns:
            continue
        if deleted := _delete(tx, table, table.c.run_id.in_(tree), limit):
            return deleted
    # Those of all time are the tree's own: others begin with an hour, a day or a month.
    own = (budget_window.c.account == root_id) & (budget_window.c.start_us == 0)
    if deleted := _delete(tx, budget_window, own, limit):
        return deleted
    below = (run.c.root_id == root_id) & (run.c.run_id != root_id)
    return _delete(tx, run, below, limit) or _delete(tx, run, run.c.run_id == root_id, limit)


def _expired(before_us: int) -> tuple[ColumnElement[bool], ...]:
    member, open_effect = run.alias("member"), effect.alias("open_effect")
    lives = exists().where(
        member.c.root_id == run.c.run_id,
        or_(member.c.ended_us.is_(None), member.c.ended_us >= before_us),
    )
    is_unsettled = exists().where(
        member.c.root_id == run.c.run_id,
        open_effect.c.run_id == member.c.run_id,
        open_effect.c.state.in_(_UNSETTLED),
    )
    # The first two in the words of the partial index.
    return (run.c.parent_id.is_(None), run.c.ended_us < before_us, ~lives, ~is_unsettled)


def _delete(tx: Tx, table: Table, condition: ColumnElement[bool], limit: int) -> int:
    keys = list(table.primary_key.columns)
    some = select(*keys).where(condition).limit(limit)
    chosen = keys[0].in_(some) if len(keys) == 1 else tuple_(*keys).in_(some)
    return tx.connection.execute(table.delete().where(chosen)).rowcount
