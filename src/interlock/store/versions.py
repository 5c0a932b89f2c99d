"""Marks that change when what a person looks at changes: counts and maxima, never content.

They are read a few times a second for each open live page, so each is answered from an index and a
page is built anew only when its mark has changed.
"""

from __future__ import annotations

import hashlib
import json

from sqlalchemy import Executable, func, select, text

from interlock.domain.ids import ApprovalId, RunId, TenantId
from interlock.store.tables.calls import approval, effect
from interlock.store.tables.runs import run
from interlock.store.tables.seen import span
from interlock.store.tx import Tx


def of_tree(tx: Tx, root_id: RunId) -> str:
    """Return the mark of a root and all runs below it: their states, spans and effects."""
    tree = select(run.c.run_id).where(run.c.root_id == root_id)
    return _mark(
        tx,
        select(run.c.run_id, run.c.state, run.c.epoch, run.c.segment, run.c.is_cancel_requested)
        .where(run.c.root_id == root_id)
        .order_by(run.c.run_id),
        select(func.count(), func.count(span.c.end_us), func.max(span.c.end_us)).where(
            span.c.run_id.in_(tree)
        ),
        select(effect.c.state, func.count(), func.sum(effect.c.attempt))
        .where(effect.c.run_id.in_(tree))
        .group_by(effect.c.state)
        .order_by(effect.c.state),
    )


def of_runs(tx: Tx, tenant: TenantId) -> str:
    """Return the mark of a tenant's list of runs: the newest, and how those that live stand."""
    return _mark(
        tx,
        select(func.max(run.c.run_id)),
        # In the words of the partial index, so that both databases see that it serves.
        select(run.c.state, func.count(), func.sum(run.c.epoch + run.c.segment))
        .where(text("ended_us IS NULL"), run.c.tenant == tenant)
        .group_by(run.c.state)
        .order_by(run.c.state),
    )


def of_inbox(tx: Tx, tenant: TenantId) -> str:
    """Return the mark of a tenant's open approvals."""
    return _mark(
        tx,
        select(func.count(), func.max(approval.c.approval_id)).where(
            text("state = 'pending'"), approval.c.tenant == tenant
        ),
    )


def of_approval(tx: Tx, approval_id: ApprovalId) -> str:
    """Return the mark of one approval."""
    return _mark(tx, select(approval.c.state).where(approval.c.approval_id == approval_id))


def _mark(tx: Tx, *queries: Executable) -> str:
    rows = [[list(row) for row in tx.connection.execute(query)] for query in queries]
    # Postgres sums integers to a type of its own; as text the two databases agree.
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()[:16]
