"""Spans and model use: the narrow rows of traces, written with the step that they describe."""

from __future__ import annotations

from functools import cache

from sqlalchemy import bindparam, func, or_, select, update

from interlock.domain.canonical import JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import EffectId, RunId
from interlock.domain.trace import ModelUse, Span, SpanKind, SpanStatus
from interlock.store.columns import pack, unpack_object
from interlock.store.statement import Row, Statement
from interlock.store.tables.calls import effect
from interlock.store.tables.runs import run
from interlock.store.tables.seen import model_use
from interlock.store.tables.seen import span as table
from interlock.store.tx import Dialect, Tx, insert_into

_IS_IT = (table.c.run_id == bindparam("of_run"), table.c.key == bindparam("of_key"))
_ATTRIBUTES = Statement(select(table.c.attributes).where(*_IS_IT))
_OPEN = Statement(
    select(table)
    .where(table.c.run_id == bindparam("of_run"), table.c.end_us.is_(None))
    .order_by(table.c.seq)
)
_CLOSED = ("end_us", "status", "error_code", "cost_micro_usd", "attributes")
_CLOSE = Statement(update(table).where(*_IS_IT), *_CLOSED)


def put(tx: Tx, *new: Span) -> None:
    """Write spans in order, or the newer form of those with the same run and key.

    The first start counts, and the first write gives its place in the run's order. The open form
    of a span that is closed changes nothing: replay passes a span's start again.
    """
    tx.later(_put(tx.dialect), *map(_row, new))


def _row(span: Span) -> dict[str, object]:
    return {
        "of_run": span.run_id,
        "run_id": span.run_id,
        "key": span.key,
        "start_us": span.start_us,
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


@cache
def _put(dialect: Dialect) -> Statement:
    other = table.alias("other")
    last = select(func.coalesce(func.max(other.c.seq), 0))
    last = last.where(other.c.run_id == bindparam("of_run"))
    names = (
        "parent_key",
        "kind",
        "name",
        "end_us",
        "status",
        "error_code",
        "effect_id",
        "cost_micro_usd",
        "attributes",
    )
    statement = insert_into(dialect, table).values(seq=last.scalar_subquery() + 1)
    newer = statement.on_conflict_do_update(
        index_elements=["run_id", "key"],
        set_={name: statement.excluded[name] for name in names},
        where=or_(table.c.end_us.is_(None), statement.excluded.end_us.is_not(None)),
    )
    return Statement(newer, "run_id", "key", "start_us", *names)


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
    of_span = {"of_run": run_id, "of_key": key}
    found = tx.rows(_ATTRIBUTES, of_span)
    if not found:
        raise NotFoundError(f"the run `{run_id}` has no span `{key}`")
    before = found[0]["attributes"]
    tx.later(
        _CLOSE,
        of_span
        | {
            "end_us": end_us,
            "status": status,
            "error_code": error_code,
            "cost_micro_usd": cost_micro_usd,
            "attributes": pack(unpack_object(before) | (attributes or {})),
        },
    )


def list_for_run(tx: Tx, run_id: RunId) -> list[Span]:
    """Return the spans of a run in the order in which they were first written."""
    query = select(table).where(table.c.run_id == run_id).order_by(table.c.seq)
    return [_span(row) for row in tx.connection.execute(query).mappings()]


def list_open(tx: Tx, run_id: RunId) -> list[Span]:
    """Return the spans of a run that have not ended, in the order in which they were written."""
    return [_span(row) for row in tx.rows(_OPEN, {"of_run": run_id})]


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


def model_cost_of(tx: Tx, run_id: RunId) -> int:
    """Return what the model requests of one run have cost so far in micro-USD."""
    total = func.coalesce(func.sum(model_use.c.cost_micro_usd), 0)
    query = select(total).where(model_use.c.run_id == run_id)
    return int(tx.connection.execute(query).scalar_one())


def cost_of_tree(tx: Tx, root_id: RunId) -> int:
    """Return what a root and all runs below it have cost in micro-USD: models and calls."""
    runs = select(run.c.run_id).where(run.c.root_id == root_id)
    total = 0
    for priced in (model_use, effect):
        query = select(func.coalesce(func.sum(priced.c.cost_micro_usd), 0))
        total += int(tx.connection.execute(query.where(priced.c.run_id.in_(runs))).scalar_one())
    return total


def _span(row: Row) -> Span:
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
