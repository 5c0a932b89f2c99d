"""How many calls there were lately: counts by the minute, which cost the same however many it were.

The ledger has the calls themselves. Its rows would have to be read one by one, again for each call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sqlalchemy import bindparam, func, literal_column, select, tuple_

from interlock.domain.ids import TenantId, ToolName
from interlock.domain.tool import Environment
from interlock.store.statement import Statement
from interlock.store.tables.calls import call_count as table
from interlock.store.tx import Dialect, Tx, insert_into

MINUTE_US = 60_000_000
_SHARES = 16
"""Rows of one minute, so that connections that count at once rarely wait for each other."""
_KEY = ("tenant", "workflow", "environment", "tool")
_SINCE = Statement(
    select(func.coalesce(func.sum(table.c.n), 0).label("counted")).where(
        *(table.c[name] == bindparam(name) for name in _KEY),
        table.c.minute_us >= bindparam("since_us"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What is counted together: a workflow's calls of a tool in one environment, in all runs."""

    tenant: TenantId
    workflow: str
    environment: Environment
    tool: ToolName

    @property
    def values(self) -> dict[str, object]:
        """Return the columns that name it."""
        return {name: getattr(self, name) for name in _KEY}


def minute_of(at_us: int) -> int:
    """Return the beginning of the minute in which an instant is."""
    return at_us // MINUTE_US * MINUTE_US


def add(tx: Tx, counted: Counted, at_us: int, n: int) -> None:
    """Count `n` calls more (or less) in the minute of an instant."""
    tx.later(_add(tx.dialect), counted.values | {"minute_us": minute_of(at_us), "n": n})


def expect(tx: Tx, counted: Counted, at_us: int) -> None:
    """Say that `since` will be asked, probably for the minute of this instant."""
    tx.expect(_SINCE, _since(counted, at_us))


def since(tx: Tx, counted: Counted, at_us: int) -> int:
    """Return how many calls there were since the beginning of the minute of an instant."""
    (row,) = tx.rows(_SINCE, _since(counted, at_us))
    return int(row["counted"])


def _since(counted: Counted, at_us: int) -> dict[str, object]:
    return counted.values | {"since_us": minute_of(at_us)}


def delete_some(tx: Tx, *, before_us: int, limit: int) -> int:
    """Delete at most `limit` counts of minutes before an instant, and return how many."""
    keys = list(table.primary_key.columns)
    some = select(*keys).where(table.c.minute_us < before_us).limit(limit)
    return tx.connection.execute(table.delete().where(tuple_(*keys).in_(some))).rowcount


@cache
def _add(dialect: Dialect) -> Statement:
    share = "0" if dialect == "sqlite" else f"pg_backend_pid() % {_SHARES}"
    statement = insert_into(dialect, table).values(share=literal_column(share))
    more = statement.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key],
        set_={"n": table.c.n + statement.excluded.n},
    )
    return Statement(more, *_KEY, "minute_us", "n")
