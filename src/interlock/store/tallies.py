"""What a run has called, counted tool by tool as its effects move.

A session may have very many calls; asking what it has called costs the same after each of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from itertools import takewhile

from sqlalchemy import bindparam, or_, select

from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import RunId, ToolName
from interlock.store.statement import Statement
from interlock.store.tables.calls import effect as effects
from interlock.store.tables.calls import tally as table
from interlock.store.tx import Dialect, Tx, insert_into

NOTHING_DONE = (
    EffectState.PROPOSED,
    EffectState.AUTHORIZED,
    EffectState.DENIED,
    EffectState.DRAFTED,
    EffectState.FAILED_DEFINITE,
    EffectState.CONFIRMED_ABSENT,
)
"""States of effects that certainly did nothing."""
_DONE = (EffectState.SUCCEEDED, EffectState.CONFIRMED_DONE)
_NOT_DONE = (
    EffectState.FAILED_DEFINITE,
    EffectState.AMBIGUOUS,
    EffectState.PROBING,
    EffectState.PARKED,
    EffectState.CONFIRMED_ABSENT,
    EffectState.ABANDONED,
)
_COUNTS = ("calls", "writes", "done", "not_done")
_FAILURES_SEEN = 100
_OF_RUN = Statement(
    select(table.c.tool, *(table.c[name] for name in _COUNTS)).where(
        table.c.run_id == bindparam("run_id")
    )
)
# The last that were proposed: how many effects the run has does not matter.
_LAST = Statement(
    select(effects.c.state, effects.c.intent_us)
    .where(
        effects.c.run_id == bindparam("run_id"),
        effects.c.effect_id != bindparam("other_than"),
        effects.c.tool == bindparam("of_tool"),
        or_(*(effects.c.state == state.value for state in _DONE + _NOT_DONE)),
    )
    .order_by(effects.c.created_us.desc())
    .limit(_FAILURES_SEEN)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a run has called so far; `failures` are the last calls in a row that did not succeed."""

    calls: int
    writes: int
    failures: int
    done: frozenset[str]


def is_counted(effect: Effect) -> bool:
    """Return whether an effect counts as a call: its intent was written, and it may have done it.

    Calls in flight on other workers count, denied ones do not, nor does one whose attempt failed
    for sure and whose next was refused.
    """
    return effect.intent_us is not None and effect.state not in NOTHING_DONE


def note(tx: Tx, before: Effect | None, after: Effect) -> None:
    """Count an effect as it stands `after`, and no more as it stood `before`."""
    now, then = _share(after), _share(before)
    change = {name: now[name] - then[name] for name in _COUNTS}
    if any(change.values()):
        tx.later(_add(tx.dialect), {"run_id": after.run_id, "tool": after.tool, **change})


def expect(tx: Tx, run_id: RunId) -> None:
    """Say that what a run has called so far will be asked for."""
    tx.expect(_OF_RUN, {"run_id": run_id})


def of_run(tx: Tx, run_id: RunId, tool: ToolName, *, other_than: Effect | None = None) -> Tally:
    """Count what a run has called: a tool's calls and its last failures (up to 100), all writes.

    `other_than` is left out; it is as its row stands, if it has one.
    """
    found = {
        row["tool"]: {name: int(row[name]) for name in _COUNTS}
        for row in tx.rows(_OF_RUN, {"run_id": run_id})
    }
    if other_than is not None and other_than.tool in found:
        row, own = found[other_than.tool], _share(other_than)
        found[other_than.tool] = {name: row[name] - own[name] for name in _COUNTS}
    of_tool = found.get(tool)
    has_failed = of_tool is not None and of_tool["not_done"] > 0
    return Tally(
        calls=0 if of_tool is None else of_tool["calls"],
        writes=sum(row["writes"] for row in found.values()),
        failures=_failures(tx, run_id, tool, other_than) if has_failed else 0,
        done=frozenset(name for name, row in found.items() if row["done"]),
    )


def done_tools(tx: Tx, run_ids: Collection[RunId]) -> frozenset[str]:
    """Return the tools that succeeded in any of these runs."""
    query = select(table.c.tool).distinct()
    query = query.where(table.c.run_id.in_(run_ids), table.c.done > 0)
    return frozenset(tx.connection.execute(query).scalars())


def _failures(tx: Tx, run_id: RunId, tool: ToolName, other_than: Effect | None) -> int:
    own = "" if other_than is None else other_than.effect_id
    last = tx.rows(_LAST, {"run_id": run_id, "other_than": own, "of_tool": tool})
    # By when they were sent: one that waited for people was sent after others proposed later.
    by_intent = sorted(last, key=lambda row: row["intent_us"] or 0, reverse=True)
    return sum(1 for _ in takewhile(lambda row: row["state"] in _NOT_DONE, by_intent))


def _share(effect: Effect | None) -> dict[str, int]:
    if effect is None:
        return dict.fromkeys(_COUNTS, 0)
    is_call = is_counted(effect)
    return {
        "calls": int(is_call),
        "writes": int(is_call and effect.is_write),
        "done": int(effect.state in _DONE),
        "not_done": int(effect.state in _NOT_DONE),
    }


@cache
def _add(dialect: Dialect) -> Statement:
    statement = insert_into(dialect, table)
    more = statement.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key],
        set_={name: table.c[name] + statement.excluded[name] for name in _COUNTS},
    )
    return Statement(more, "run_id", "tool", *_COUNTS)
