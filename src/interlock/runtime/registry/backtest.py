"""Back-test: what other policies would have said to the calls of the last days."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from interlock.domain.decision import PolicyRequest
from interlock.domain.errors import InputError
from interlock.domain.ids import TenantId
from interlock.domain.record import from_json
from interlock.policy.changes.replay import Asked, Replay, Replayed
from interlock.policy.changes.rights import Worlds
from interlock.store import decisions
from interlock.store.decisions import RecordedDecision
from interlock.store.engine import Database

PAGE = 200
_REST = 1.0
"""How long is rested for each second of work, so that whoever else works here gets on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How many of the recorded decisions were looked at."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """The end of it; `unreadable` are questions of which not all is kept."""

    since_us: int
    total: int
    unreadable: int
    replayed: Replayed


def backtest(
    db: Database,
    before: Worlds,
    after: Worlds,
    *,
    tenant: TenantId,
    span_us: int,
    rest: float = _REST,
) -> Iterator[Progress | Backtest]:
    """Yield how far it is, page by page, and at last what came of it.

    Decisions that are made meanwhile are looked at too. `rest` is a share of the time that it
    works, 0 where nobody else does.
    """
    replay, last, done, unreadable = Replay(before, after), None, 0, 0
    with db.reading() as tx:
        since_us = tx.now_us - span_us
        total = decisions.count_since(tx, tenant, since_us)
    while True:
        began_s = time.monotonic()
        with db.reading() as tx:
            page = decisions.list_since(tx, tenant, since_us, after=last, limit=PAGE)
        for recorded in page:
            asked = _asked(recorded)
            if asked is None:
                unreadable += 1
            else:
                replay.take(asked)
        done += len(page)
        if len(page) < PAGE:
            break
        last = page[-1]
        yield Progress(done=done, total=max(total, done))
        time.sleep(rest * (time.monotonic() - began_s))
    yield Backtest(since_us=since_us, total=done, unreadable=unreadable, replayed=replay.replayed())


def _asked(recorded: RecordedDecision) -> Asked | None:
    try:
        request = from_json(PolicyRequest, recorded.request)
    except InputError:
        return None
    return Asked(
        request=request,
        decision=recorded.decision,
        run=recorded.run_id,
        call=recorded.effect_id or recorded.decision_id,
    )
