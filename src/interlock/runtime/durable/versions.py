"""Which runs this worker can run, and what becomes of those that it cannot.

They are handed on to workers that can. If there is none for a minute, they wait, visibly, until a
worker starts that can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from interlock.domain.ids import RunId
from interlock.domain.run import Abilities, Run
from interlock.runtime.durable.dispatch import StoreDispatch
from interlock.runtime.durable.threads import StoreThreads
from interlock.store import leases, runs
from interlock.store.engine import Database
from interlock.store.tx import Tx

Needs = Callable[[Tx, Run], Abilities]
"""Says what a worker must be able to do to run a run."""
PATIENCE_S = 60.0
"""How long a run stays queued while no worker can run it."""
_PAUSE_S = 1.0

_log = structlog.get_logger(__name__)


def nothing_needed(_tx: Tx, _run: Run) -> Abilities:
    """Say that any worker can run the run."""
    return Abilities()


class Versions:
    """What one worker can run, and since when it has been handing on which runs."""

    def __init__(self, offered: Abilities | None = None, needs: Needs = nothing_needed) -> None:
        self.offered = offered or Abilities()
        self._needs = needs
        self._refused_us: dict[RunId, int] = {}

    def lacking(self, tx: Tx, run: Run) -> Abilities | None:
        """Return what a run needs if this worker does not have all of it, else None."""
        needed = self._needs(tx, run)
        return needed if self.offered.lacking(needed) else None

    async def hand_on(
        self,
        threads: StoreThreads,
        dispatch: StoreDispatch,
        run_id: RunId,
        needed: Abilities,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Leave a queued run to a worker that can run it, or to wait for one."""
        if await threads.run("run.version", partial(self._give_up, run_id=run_id, needed=needed)):
            self._refused_us.pop(run_id, None)
            return
        # Whoever polls first gets the next hint: not at once, or this worker would be busy with it.
        await pause(_PAUSE_S)
        await threads.run("run.hint", partial(dispatch.hint, run_id=run_id))

    def take_up(self, db: Database, dispatch: StoreDispatch) -> None:
        """Queue the runs that wait for a worker like this one."""
        with db.reading() as tx:
            found = [run for run in runs.list_missing_version(tx) if not self.lacking(tx, run)]

        def wake(tx: Tx, run_id: RunId) -> None:
            dispatch.wake(tx, runs.lock_any(tx, run_id))

        for run in found:
            db.run("run.wake", partial(wake, run_id=run.run_id))

    def _give_up(self, tx: Tx, *, run_id: RunId, needed: Abilities) -> bool:
        """Let the run wait if nobody has been able to run it for too long."""
        since_us = self._refused_us.setdefault(run_id, tx.now_us)
        if leases.list_able(tx, needed):
            self._refused_us[run_id] = tx.now_us
            return False
        if tx.now_us - since_us < PATIENCE_S * 1_000_000:
            return False
        what = ", ".join(self.offered.lacking(needed))
        if runs.miss_version(tx, run_id, what=what) is not None:
            _log.error("version.missing", run_id=run_id, what=what)
        return True
