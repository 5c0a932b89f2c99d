"""Spans and model use: the narrow rows of traces, written with the step that they describe."""

from __future__ import annotations

from sqlalchemy import RowMapping, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from interlock.domain.canonical import JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import EffectId, RunId
from interlock.domain.trace import ModelUse, Span, SpanKind, SpanStatus
from interlock.store.columns import pack, unpack_object
from interlock.store.engine import Tx
from interlock.store.tables import effect, model_use, run
from interlock.store.tables import span as table


def put(tx: Tx, span: Span) -> None:
    """Write a span, or the newer form of one with the same run and key.

    The first start counts, and the first write gives its place in the run's order. The open form
    of a span that is closed changes nothing: replay passes a span's start again.
    """
    other = table.alias("other")
    values = {
        "parent_key": span.parent_key,
        "kind": span.kind,
        "name": span.name,
        "end_us": span.end_us,
        "status": span.status,
        "error_code": span.error_code,
        "effect_id": span.effect_id,
        "cost_micro_usd": span.cost_micro_usd,
        "attributes": pack(span.attributes),
    }
    last = select(func.coalesce(func.max(other.c.seq), 0)).where(other.c.run_id == span.run_id)
    insert = sqlite.insert if tx.dialect == "sqlite" else postgresql.insert
    statement = insert(table).values(
        run_id=span.run_id,
        key=span.key,
        seq=last.scalar_subquery() + 1,
        start_us=span.start_us,
        **values,
    )
    tx.connection.execute(
        statement.on_conflict_do_update(
            index_elements=["run_id", "key"],
            set_=values,
            where=or_(table.c.end_us.is_(None), statement.excluded.end_us.is_not(None)),
        )
    )


def close(
    tx: Tx,
    run_id: RunId,
    key: str,
    *,
    end_us: int,
    status: SpanStatus,
    error_code: str | None = None,
    cost_micro_usd: int = 0,
    attributes: JsonObject | None = None,
) -> None:
    """Close a span, adding attributes to those it has; raises `NotFoundError`."""
    is_it = (table.c.run_id == run_id, table.c.key == key)
    before = tx.connection.execute(select(table.c.attributes).where(*is_it)).scalar()
    if before is None:
        raise NotFoundError(f"the run `{run_id}` has no span `{key}`")
    tx.connection.execute(
        update(table)
        .where(*is_it)
        .values(
            end_us=end_us,
            status=status,
            error_code=error_code,
            cost_micro_usd=cost_micro_usd,
            attributes=pack(unpack_object(before) | (attributes or {})),
        )
    )


def list_for_run(tx: Tx, run_id: RunId) -> list[Span]:
    """Return the spans of a run in the order in which they were first written."""
    query = select(table).where(table.c.run_id == run_id).order_by(table.c.seq)
    return [_span(row) for row in tx.connection.execute(query).mappings()]


def put_model_use(tx: Tx, use: ModelUse) -> None:
    """Write the tokens and money of a model request, or replace those of the same span."""
    tx.upsert(
        model_use,
        {
            "run_id": use.run_id,
            "span_key": use.span_key,
            "provider": use.provider,
            "model": use.model,
            "input_tokens": use.input_tokens,
            "output_tokens": use.output_tokens,
            "cost_micro_usd": use.cost_micro_usd,
            "price_version": use.price_version,
            "is_estimated": use.is_estimated,
            "at_us": use.at_us,
        },
    )


def cost_of_tree(tx: Tx, root_id: RunId) -> int:
    """Return what a root and all runs below it have cost in micro-USD: models and calls."""
    runs = select(run.c.run_id).where(run.c.root_id == root_id)
    total = 0
    for priced in (model_use, effect):
        query = select(func.coalesce(func.sum(priced.c.cost_micro_usd), 0))
        total += int(tx.connection.execute(query.where(priced.c.run_id.in_(runs))).scalar_one())
    return total


def _span(row: RowMapping) -> Span:
    return Span(
        run_id=RunId(row["run_id"]),
        key=row["key"],
        parent_key=row["parent_key"],
        kind=SpanKind(row["kind"]),
        name=row["name"],
        start_us=row["start_us"],
        end_us=row["end_us"],
        status=SpanStatus(row["status"]),
        error_code=row["error_code"],
        effect_id=EffectId(row["effect_id"]) if row["effect_id"] else None,
        cost_micro_usd=row["cost_micro_usd"],
        attributes=unpack_object(row["attributes"]),
    )
