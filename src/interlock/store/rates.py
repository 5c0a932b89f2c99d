"""Rates: how often something is called, counted over all workers in the transaction that calls.

The generic cell rate algorithm (ITU-T I.371): one time per key says when all calls so far would
have been spread evenly; it may lie ahead of now by no more than the period.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select, update

from interlock.domain.tool import Rate
from interlock.store.tables.calls import rate as table
from interlock.store.tx import Tx

_SECOND_US = 1_000_000


def take(tx: Tx, wanted: Mapping[str, Rate]) -> int | None:
    """Count one call under every key, or under none; None if it is counted.

    Otherwise returns when to ask again, in microseconds by database time: those who are told to
    wait get different times, as far apart as the calls may be, so that they do not come together.
    The rows are locked in the order of their keys, until `tx` ends.
    """
    if not wanted:
        return None
    for key in sorted(wanted):
        tx.insert_once(table, {"key": key, "full_us": 0, "turn_us": 0})
    query = (
        select(table).where(table.c.key.in_(list(wanted))).order_by(table.c.key).with_for_update()
    )
    rows = {row["key"]: row for row in tx.connection.execute(query).mappings().all()}
    full = {
        key: free_us
        for key, row in rows.items()
        if (free_us := row["full_us"] - _slack_us(wanted[key])) > tx.now_us
    }
    if not full:
        for key, row in rows.items():
            until_us = max(row["full_us"], tx.now_us) + _space_us(wanted[key])
            _set(tx, key, full_us=until_us)
        return None
    turns: dict[str, int] = {
        key: max(free_us, rows[key]["turn_us"] + _space_us(wanted[key]))
        for key, free_us in full.items()
    }
    for key, turn_us in turns.items():
        _set(tx, key, turn_us=turn_us)
    return max(turns.values())


def _space_us(rate: Rate) -> int:
    """Return how far apart calls are if they come evenly."""
    return -(-round(rate.per_s * _SECOND_US) // rate.calls)


def _slack_us(rate: Rate) -> int:
    """Return how far the calls so far may be ahead of an even pace, with room for one more."""
    return (rate.calls - 1) * _space_us(rate)


def _set(tx: Tx, key: str, **changes: int) -> None:
    tx.connection.execute(update(table).where(table.c.key == key).values(**changes))
