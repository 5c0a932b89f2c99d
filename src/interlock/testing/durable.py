"""Durable runs in one process with a clock that stands still: for tests of code that runs in them.

Journal, ledger and waits are the store's, as with every engine. Only finding work differs: runs are
found by looking for queued ones, and time passes when a test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from interlock.domain.errors import InvariantError
from interlock.domain.ids import ExecutorId, RunId
from interlock.domain.run import Run, RunOutcome, RunState
from interlock.runtime.durable import waiting
from interlock.runtime.durable.dispatch import StoreDispatch
from interlock.runtime.durable.runner import OnEnd, Runner, nothing_more
from interlock.runtime.durable.segment import Segment
from interlock.runtime.durable.threads import LoopThread, StoreThreads
from interlock.runtime.durable.versions import Versions
from interlock.store import runs
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.clock import ManualClock

T = TypeVar("T")

_EXECUTOR = ExecutorId("memory")
_ENOUGH = 10_000
_TIMEOUT_S = 30.0


class NoHints:
    """Runs are found by looking: a hint would say nothing that the store does not."""

    def give(self, tx: Tx, run_id: RunId, segment: int, *, priority: int) -> None:
        """Do nothing."""


class MemoryEngine:
    """Runs `code` for every queued run of a database; the surface of `runtime.engine.DbosEngine`.

    `db` was opened with `clock`. Pauses of up to 2 seconds pass at once and move the clock on;
    longer waits end when the test calls `advance`. A new engine on the same database takes over
    what an earlier one left behind, as after a crash.
    """

    def __init__(
        self,
        db: Database,
        code: Callable[[Segment], Awaitable[RunOutcome]],
        *,
        clock: ManualClock,
        on_end: OnEnd = nothing_more,
        on_stop: Callable[[], Coroutine[object, object, None]] | None = None,
        versions: Versions | None = None,
    ) -> None:
        self._db = db
        self._on_stop = on_stop
        self._clock = clock
        self._dispatch = StoreDispatch(NoHints())
        self._threads = StoreThreads(db)
        self._loop = LoopThread("memory-engine")
        self._runner = Runner(
            code,
            threads=self._threads,
            dispatch=self._dispatch,
            executor_id=_EXECUTOR,
            on_end=on_end,
            pause=self._pause,
            versions=versions,
        )
        self._versions = versions or Versions()

    @property
    def dispatch(self) -> StoreDispatch:
        """Return what the outside does to runs."""
        return self._dispatch

    def start(self) -> None:
        """Take over what an earlier engine left; nothing runs before `run_until_idle`."""
        self._loop.start()
        self._db.run(
            "run.takeover",
            lambda tx: self._dispatch.take_over(tx, _EXECUTOR, max_recoveries=3),
        )
        self._versions.take_up(self._db, self._dispatch)

    def stop(self) -> None:
        """Hand back what is running and end the threads."""
        self._runner.drain()
        if self._on_stop is not None:
            self._loop.call(self._on_stop())
        self._loop.stop()
        self._threads.close()

    def advance(self, seconds: float) -> None:
        """Let time pass, wake what is due, and run until nothing moves."""
        self._clock.advance(seconds)
        self.wake()
        self.run_until_idle()

    def wake(self) -> None:
        """Queue what is due by now."""
        waiting.wake_all_due(self._db, self._dispatch)

    def run_until_idle(self) -> None:
        """Run queued runs, and those they start or wake, until all have ended or wait."""
        self._loop.call(self._until_idle(), timeout_s=_TIMEOUT_S)

    def wait_for(self, run_id: RunId, *states: RunState, timeout_s: float = _TIMEOUT_S) -> Run:
        """Run until nothing moves and return the run; raises if it is in none of `states`."""
        self._loop.call(self._until_idle(), timeout_s=timeout_s)
        with self._db.reading() as tx:
            run = runs.get(tx, run_id)
        if run.state not in states:
            raise InvariantError(f"the run is `{run.state}`: {run.error_code} {run.error_message}")
        return run

    async def attend(self, run_id: RunId) -> None:
        """Claim a run that waits or is queued, now; on this engine's loop only."""
        await self._runner.attend(run_id)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a read-only transaction; on this engine's loop only."""
        return await self._threads.read(fn)

    def submit(self, coroutine: Coroutine[object, object, T]) -> Future[T]:
        """Run a coroutine on this engine's loop."""
        return self._loop.submit(coroutine)

    async def _until_idle(self) -> None:
        tasks: dict[RunId, asyncio.Task[None]] = {}
        list_queued = partial(runs.list_runs, states=(RunState.QUEUED,), limit=_ENOUGH)
        while True:
            for run in await self._threads.read(list_queued):
                if run.run_id not in tasks:
                    task = asyncio.create_task(self._runner.run(run.run_id, run.segment))
                    tasks[run.run_id] = task
            if not tasks:
                return
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for run_id, task in list(tasks.items()):
                if task.done():
                    task.result()
                    del tasks[run_id]

    async def _pause(self, seconds: float) -> None:
        self._clock.advance(seconds)
