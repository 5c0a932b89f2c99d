"""Breakers: which servers are not called now, over all workers, and who waits for which turn.

A row is a breaker that is not closed, so a call that succeeds writes none. How calls went is
counted by each worker for itself; that a breaker opened, and what its probe found, is shared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from sqlalchemy import RowMapping, and_, func, select, update

from interlock.domain.breaker import Breaker, Tally, is_failure, open_us, topic_of, why
from interlock.domain.effect import Reply
from interlock.domain.ids import EffectId
from interlock.domain.record import object_to_json
from interlock.domain.tool import Server
from interlock.store.tables.calls import breaker as table
from interlock.store.tables.runs import FOR_BREAKER, wait
from interlock.store.tx import Tx

Change = Literal["opened", "closed"]

_SPACE_US = 50_000
"""How far apart runs come back: a server that has just recovered gets twenty calls a second."""

_ALONE_US = 2_000_000
"""How long before all others the first comes back, so that they hear what it found."""

_FRESH_US = 500_000
"""How old what a worker knows may be before it looks again."""

_PROBE_MARGIN_US = 5_000_000
"""How long after its send deadline the outcome of a probe may be recorded."""


class Breakers:
    """What one worker knows of all breakers, and how its own calls went; for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._open: frozenset[str] = frozenset()
        self._read_us: int | None = None

    def is_held(self, tx: Tx, server: str) -> bool:
        """Return whether calls to a server wait now; writes nothing."""
        held = find(tx, server) if self._is_open(tx, server) else None
        return held is not None and held.held_until_us(tx.now_us) is not None

    def hold(self, tx: Tx, server: str, effect_id: EffectId) -> int | None:
        """Return when a call may ask again, in the order in which they ask; None: send it now.

        A breaker that is half-open stays locked until `tx` ends: `claim` it if the call is sent.
        """
        held = _locked(tx, server) if self._is_open(tx, server) else None
        until_us = None if held is None else held.breaker.held_until_us(tx.now_us)
        # A worker that died with its probe has left the call to another one, which sends it again.
        if held is None or until_us is None or held.breaker.probe == effect_id:
            return None
        is_first = held.turn_us < until_us
        later_us = max(until_us + _ALONE_US, held.turn_us + _SPACE_US)
        turn_us = until_us if is_first else later_us
        _set(tx, server, turn_us=turn_us)
        return turn_us

    def claim(self, tx: Tx, server: str, effect_id: EffectId, *, deadline_us: int) -> None:
        """Make a call that is about to be sent the probe, if the breaker is half-open."""
        if not self._is_open(tx, server) or _locked(tx, server) is None:
            return
        until_us = deadline_us + _PROBE_MARGIN_US
        turn_us = _move_turns(tx, server, to_us=until_us, alone_us=_ALONE_US)
        _set(tx, server, probe=effect_id, probe_until_us=until_us, turn_us=turn_us)

    def heard(
        self, at: Server, effect_id: EffectId, reply: Reply
    ) -> Callable[[Tx], Change | None] | None:
        """Count how a call went; return what has to be written because of it, if anything."""
        is_bad, server = is_failure(reply), at.name
        with self._lock:
            if server in self._open:
                return partial(settle, server=at, effect_id=effect_id, reply=reply)
            if is_bad is None:
                return None
            tally = self._tallies.get(server, Tally()).add(is_failure=is_bad)
            self._tallies[server] = tally
            if not (is_bad and tally.is_bad):
                return None
            del self._tallies[server]
        failed = f"{sum(tally.last)} of its last {len(tally.last)} calls failed; {why(reply)}"
        for_us = open_us(at, 1, retry_after_s=reply.retry_after_s)
        return lambda tx: _open_by_failures(tx, server, reason=failed, for_us=for_us)

    def look_again(self) -> None:
        """Read the rows at the next call: this worker has just changed one."""
        with self._lock:
            self._read_us = None

    def _is_open(self, tx: Tx, server: str) -> bool:
        with self._lock:
            is_fresh = self._read_us is not None and abs(tx.now_us - self._read_us) < _FRESH_US
        if not is_fresh:
            found = frozenset(tx.connection.execute(select(table.c.server)).scalars())
            with self._lock:
                self._open, self._read_us = found, tx.now_us
                for opened in found:
                    # What was under way when it opened says nothing about after.
                    self._tallies.pop(opened, None)
        return server in self._open


@dataclass(frozen=True, slots=True, kw_only=True)
class _Locked:
    breaker: Breaker
    turn_us: int


def find(tx: Tx, server: str) -> Breaker | None:
    """Return the breaker of a server, None if it is closed."""
    row = tx.connection.execute(select(table).where(table.c.server == server)).mappings().first()
    return None if row is None else _breaker(row)


def list_all(tx: Tx) -> list[Breaker]:
    """Return all breakers that are not closed, by server."""
    rows = tx.connection.execute(select(table).order_by(table.c.server)).mappings()
    return [_breaker(row) for row in rows]


def count_waiting(tx: Tx) -> dict[str, int]:
    """Return how many waits there are for each topic of a breaker."""
    query = select(wait.c.topic, func.count()).where(FOR_BREAKER).group_by(wait.c.topic)
    return {str(row[0]): int(row[1]) for row in tx.connection.execute(query)}


def open_by_hand(tx: Tx, server: str, *, for_us: int, reason: str, by: str) -> Breaker:
    """Send no calls to a server for a time, whatever state its breaker is in; then one probes."""
    opened = Breaker(
        server=server,
        opened_us=tx.now_us,
        until_us=tx.now_us + for_us,
        openings=1,
        reason=reason,
        by=by,
    )
    _locked(tx, server)  # before the rows of those who wait, as everybody
    turn_us = _move_turns(tx, server, to_us=opened.until_us, alone_us=_ALONE_US)
    tx.upsert(table, object_to_json(opened) | {"turn_us": turn_us})
    return opened


def close(tx: Tx, server: str) -> bool:
    """Send calls to a server again, those that wait one after the other; False if it was closed."""
    if _locked(tx, server) is None:
        return False
    _move_turns(tx, server, to_us=tx.now_us)
    tx.connection.execute(table.delete().where(table.c.server == server))
    return True


def settle(tx: Tx, *, server: Server, effect_id: EffectId, reply: Reply) -> Change | None:
    """Close a breaker or open it for longer, as its probe says; other calls say nothing."""
    held = _locked(tx, server.name)
    if held is None or held.breaker.probe != effect_id:
        return None
    is_bad = is_failure(reply)
    if is_bad is False:
        close(tx, server.name)
        return "closed"
    before, after = held.breaker, replace(held.breaker, probe=None, probe_until_us=None)
    if is_bad:
        openings = before.openings + 1
        until_us = tx.now_us + open_us(server, openings, retry_after_s=reply.retry_after_s)
        reason = f"a call that probed it failed; {why(reply)}"
        after = replace(after, until_us=until_us, openings=openings, reason=reason)
    turn_us = _move_turns(tx, server.name, to_us=max(after.until_us, tx.now_us), alone_us=_ALONE_US)
    tx.upsert(table, object_to_json(after) | {"turn_us": turn_us})
    return "opened" if is_bad else None


def _open_by_failures(tx: Tx, server: str, *, reason: str, for_us: int) -> Change | None:
    opened = Breaker(
        server=server,
        opened_us=tx.now_us,
        until_us=tx.now_us + for_us,
        openings=1,
        reason=reason,
        by="interlock",
    )
    is_new = tx.insert_once(table, object_to_json(opened) | {"turn_us": 0})
    return "opened" if is_new else None


def _move_turns(tx: Tx, server: str, *, to_us: int, alone_us: int = 0) -> int:
    """Let those who wait come back from a time on, in their order; return the last one's turn.

    The first comes at that time, the others `alone_us` after it at the earliest.
    Who was told to wait and does not wait yet comes when it was told to, and asks again.
    """
    mine = (wait.c.topic == topic_of(server), FOR_BREAKER)
    turns = select(wait.c.run_id, wait.c.name, wait.c.due_us).where(*mine).order_by(wait.c.due_us)
    waiting = tx.connection.execute(turns).all()
    if not waiting:
        return 0
    first = (wait.c.run_id == waiting[0].run_id, wait.c.name == waiting[0].name)
    tx.connection.execute(update(wait).where(*first).values(due_us=to_us))
    if len(waiting) == 1:
        return to_us
    later_us = to_us + (alone_us or _SPACE_US) - waiting[1].due_us
    others = update(wait).where(*mine, ~and_(*first)).values(due_us=wait.c.due_us + later_us)
    tx.connection.execute(others)
    return int(waiting[-1].due_us + later_us)


def _locked(tx: Tx, server: str) -> _Locked | None:
    query = select(table).where(table.c.server == server).with_for_update()
    row = tx.connection.execute(query).mappings().first()
    return None if row is None else _Locked(breaker=_breaker(row), turn_us=row["turn_us"])


def _set(tx: Tx, server: str, **changes: object) -> None:
    tx.connection.execute(update(table).where(table.c.server == server).values(**changes))


def _breaker(row: RowMapping) -> Breaker:
    return Breaker(**{name: value for name, value in row.items() if name != "turn_us"})
