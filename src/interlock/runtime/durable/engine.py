"""Durable runs on DBOS: it dispatches hints over a queue; what a hint means is ours.

The only module that knows dbos. To DBOS a segment is a workflow with a run id and a number; it may
be delivered twice, late or never. Nothing of ours is in its tables, and nothing in them is ever
unpickled: the ban is in force from the import of this module on.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NoReturn, TypeVar

import structlog
from dbos import DBOS, DBOSClient, WorkflowSerializationFormat
from dbos._serialization import DBOSPortableJSONSerializer, DefaultSerializer
from uuid_utils import uuid7

from interlock.domain.errors import InvariantError, UnavailableError
from interlock.domain.ids import ExecutorId, RunId
from interlock.domain.run import Run, RunOutcome, RunState
from interlock.runtime.durable import waiting
from interlock.runtime.durable.dispatch import StoreDispatch
from interlock.runtime.durable.lease import Lease, find_dead, leave_process
from interlock.runtime.durable.runner import OnEnd, Runner, nothing_more
from interlock.runtime.durable.segment import Segment
from interlock.runtime.durable.threads import LoopThread, StoreThreads
from interlock.runtime.durable.versions import Versions
from interlock.store import leases, runs
from interlock.store.engine import Database
from interlock.store.tx import Tx

T = TypeVar("T")

QUEUE = "runs"
WORKFLOW = "interlock.segment"
APPLICATION = "interlock"
APPLICATION_VERSION = "interlock-1"
"""Constant on purpose: which version a run needs is on its own row."""
MAX_RECOVERIES = 3
CONCURRENCY = 30
POLL_S = 0.08
SWEEP_S = 1.0
_RENEW_HINTS_S = 60.0
_LISTENER_S = 0.25
_QUEUE_ENDS_S = 10.0
_MOST_URGENT = 9

_log = structlog.get_logger(__name__)
_one_per_process = threading.Lock()


def _refuse(_self: object, _text: str) -> NoReturn:
    raise InvariantError("a pickled row was refused")


# A row names its own codec, so an edited row could run code in whoever lists workflows. Set by
# name, since replacing the method of every instance is what the type checker rightly forbids.
setattr(DefaultSerializer, "deserialize", _refuse)  # noqa: B010


class _Trap:
    """Something whose pickle calls a function when it is loaded."""

    has_sprung = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _spring, ()


def _spring() -> None:
    _Trap.has_sprung = True


class _DbosHints:
    """Gives hints by enqueueing DBOS workflows in the caller's transaction."""

    def __init__(self, db: Database) -> None:
        self.client = DBOSClient(
            system_database_engine=db.engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            lazy=True,
        )

    def give(self, tx: Tx, run_id: RunId, segment: int, *, priority: int) -> None:
        """Make some worker try to claim this segment, if and only if `tx` commits."""
        self.client.enqueue_in_transaction(
            tx.connection,
            {
                "queue_name": QUEUE,
                "workflow_name": WORKFLOW,
                "workflow_id": f"{run_id}:{segment}:{tx.new_id()}",
                "app_version": APPLICATION_VERSION,
                # There 1 goes first.
                "priority": _MOST_URGENT - priority + 1,
            },
            run_id,
            segment,
        )


class DbosEngine:
    """Runs `code` for every queued run of a database, as one worker; one engine per process.

    `dispatch` works from the start of the object on, if `install` was called for the database.
    `on_end` runs in the transaction that ends a run, `on_stop` on the loop when the worker stops.
    `pause` is for tests whose clock stands still.
    """

    def __init__(
        self,
        db: Database,
        code: Callable[[Segment], Awaitable[RunOutcome]],
        *,
        on_end: OnEnd = nothing_more,
        on_stop: Callable[[], Coroutine[object, object, None]] | None = None,
        on_lost: Callable[[str], None] = leave_process,
        concurrency: int = CONCURRENCY,
        versions: Versions | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._db = db
        self._on_stop = on_stop
        self._concurrency = concurrency
        self._hints = _DbosHints(db)
        self._dispatch = StoreDispatch(self._hints)
        self._executor_id = ExecutorId(f"{platform.node()}-{uuid7()}")
        self._versions = versions or Versions()
        self._lease = Lease(
            db, self._executor_id, abilities=self._versions.offered, on_lost=on_lost
        )
        self._threads = StoreThreads(db)
        self._loop = LoopThread("interlock-runs")
        self._runner = Runner(
            code,
            threads=self._threads,
            dispatch=self._dispatch,
            executor_id=self._executor_id,
            on_end=on_end,
            pause=pause,
            versions=self._versions,
        )
        self._dbos: DBOS | None = None
        self._duties: list[Future[None]] = []
        self._moved = threading.Condition()
        self._hints_due_s = time.monotonic() + _RENEW_HINTS_S

    @property
    def dispatch(self) -> StoreDispatch:
        """Return what the outside does to runs."""
        return self._dispatch

    @property
    def executor_id(self) -> ExecutorId:
        """Return the name of this worker, new for every process."""
        return self._executor_id

    def may_send(self) -> bool:
        """Return whether nobody can have taken this worker's runs: ask right before each send."""
        return self._lease.may_send()

    def install(self) -> None:
        """Create or migrate the tables of DBOS; harmless if they are there."""
        DBOS.migrate(self._db.url)

    def start(self) -> None:
        """Take over what dead workers left, then claim and run; returns when the queue is served.

        Raises `ConflictError` if another process serves this SQLite file.
        """
        with self._starting():
            self._check_pickle_ban()
            self._reap()
            self._versions.take_up(self._db, self._dispatch)
            # Before the launch, which then serves it at once instead of a second later.
            self._hints.client.register_queue(
                QUEUE, worker_concurrency=self._concurrency, polling_interval_sec=POLL_S
            )
            # DBOS adopts a running event loop of the thread that launches it; this one has none.
            with ThreadPoolExecutor(1) as launcher:
                launcher.submit(self._launch).result()
        self._duties = [self._loop.submit(each) for each in (self._wake_due(), self._sweep())]
        _log.info("worker.started", executor_id=self._executor_id)

    def start_attending(self) -> None:
        """Own only the runs that `attend` is called for; nothing is taken from the queue.

        Raises `ConflictError` if another process serves this SQLite file.
        """
        self._lease.offer_nothing()
        with self._starting():
            pass
        _log.info("attendant.started", executor_id=self._executor_id)

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Hold lease and loop; give both back if what else is needed fails."""
        if not _one_per_process.acquire(blocking=False):
            raise InvariantError("this process runs an engine already")
        with ExitStack() as undo:
            undo.callback(_one_per_process.release)
            self.install()
            self._lease.start()
            undo.callback(self._lease.stop, is_clean=True)
            self._loop.start()
            undo.callback(self._loop.stop)
            yield
            undo.pop_all()

    async def attend(self, run_id: RunId) -> None:
        """Claim a run that waits or is queued, now and here; on this engine's loop only.

        See `Runner.attend`.
        """
        await self._runner.attend(run_id)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a read-only transaction, on a thread; on this engine's loop only."""
        return await self._threads.read(fn)

    def submit(self, coroutine: Coroutine[object, object, T]) -> Future[T]:
        """Run a coroutine on this engine's loop; cancelling the future cancels it."""
        return self._loop.submit(coroutine)

    def stop(self, *, timeout_s: int = 30) -> None:
        """Claim nothing more, hand runs back at their next operation, and leave no lease behind.

        Runs that are still busy after `timeout_s` are left to the next worker's takeover.
        """
        self._loop.call(self._drain())
        # It warns of hints that it may not see the end of; nothing depends on them.
        logging.getLogger("dbos").setLevel(logging.ERROR)
        if self._dbos is not None:
            self._end_queue()
            DBOS.destroy(
                destroy_registry=True,
                workflow_completion_timeout_sec=timeout_s if self._runner.active else 0,
            )
        self._loop.call(self._runner.idle(timeout_s=timeout_s))
        if self._on_stop is not None:
            self._loop.call(self._on_stop())
        self._loop.stop()
        self._threads.close()
        with self._db.reading() as tx:
            is_clean = not leases.owned_runs(tx, self._executor_id)
        self._lease.stop(is_clean=is_clean)
        _one_per_process.release()
        _log.info("worker.stopped", executor_id=self._executor_id, is_clean=is_clean)

    def wake(self) -> None:
        """Look at once for what is due, instead of at the next second."""
        waiting.wake_all_due(self._db, self._dispatch)
        self._do_duties()

    def wait_for(self, run_id: RunId, *states: RunState, timeout_s: float = 30.0) -> Run:
        """Return the run once it is in one of `states`; raises `UnavailableError` if that lasts."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            with self._db.reading() as tx:
                run = runs.get(tx, run_id)
            if run.state in states:
                return run
            if time.monotonic() > deadline_s:
                raise UnavailableError(
                    f"the run is still `{run.state}` after {timeout_s:.0f} s"
                    f" ({run.error_code}: {run.error_message})"
                )
            with self._moved:
                self._moved.wait(POLL_S)

    # --- DBOS

    def _launch(self) -> None:
        self._dbos = DBOS(
            config={
                "name": APPLICATION,
                "system_database_engine": self._db.engine,
                "serializer": DBOSPortableJSONSerializer(),
                "executor_id": self._executor_id,
                "application_version": APPLICATION_VERSION,
                "run_migrations": False,
                "use_listen_notify": False,
                "notification_listener_polling_interval_sec": _LISTENER_S,
                # No schedules and no threads of DBOS do our work.
                "scheduler_polling_interval_sec": 3600.0,
                "max_executor_threads": 8,
                "log_level": "WARNING",
            }
        )

        async def follow_hint(run_id: str, segment: int) -> None:
            await self._follow_hint(RunId(run_id), segment)

        DBOS.workflow(name=WORKFLOW)(follow_hint)
        DBOS.launch()

    def _end_queue(self) -> None:
        """End the queue's thread before DBOS ends the event loop that it hands hints to.

        DBOS does it the other way round, and a hint that is taken in between is lost until a new
        one is given.
        """
        # INVARIANT: `stop` comes here only if DBOS was launched.
        assert self._dbos is not None
        for event in self._dbos.background_thread_stop_events:
            event.set()
        for thread in threading.enumerate():
            if thread.name == f"queue-worker-{QUEUE}":
                thread.join(_QUEUE_ENDS_S)

    async def _follow_hint(self, run_id: RunId, segment: int) -> None:
        """Be the workflow of DBOS: lasts as long as the segment, so that its limits count."""
        try:
            await asyncio.wrap_future(self._loop.submit(self._runner.run(run_id, segment)))
        except Exception:  # noqa: BLE001  # whatever it is must not end in a table of DBOS
            # The run is queued or owned; takeover, or a new hint, brings it back.
            _log.exception("segment.lost", run_id=run_id)
        with self._moved:
            self._moved.notify_all()

    def _check_pickle_ban(self) -> None:
        """Plant a pickled row and see it refused; a worker that would run it must not start."""
        client, planted = self._hints.client, f"pickle-check:{self._executor_id}"
        client.enqueue(
            {
                # Nobody serves a queue of this name.
                "queue_name": "pickle-check",
                "workflow_name": "pickle-check",
                "workflow_id": planted,
                "serialization_type": WorkflowSerializationFormat.NATIVE,
            },
            _Trap(),
        )
        dbos_log = logging.getLogger("dbos")
        level, _Trap.has_sprung = dbos_log.level, False
        try:
            # DBOS warns of rows that it cannot read; here that is what should happen.
            dbos_log.setLevel(logging.ERROR)
            client.list_workflows(workflow_ids=[planted])
        finally:
            dbos_log.setLevel(level)
            client.delete_workflows([planted])
        if _Trap.has_sprung:
            raise InvariantError("a pickled row was run instead of refused")

    # --- duties of the worker besides its runs

    async def _wake_due(self) -> None:
        while True:
            wake = partial(waiting.wake_due, self._db, self._dispatch)
            pause_s = await self._do("wake", wake)
            await asyncio.sleep(waiting.LOOK_S if pause_s is None else pause_s)

    async def _sweep(self) -> None:
        while True:
            await self._do("sweep", self._do_duties)
            await asyncio.sleep(SWEEP_S)

    async def _do(self, name: str, duty: Callable[[], T]) -> T | None:
        """Do a duty; None if it failed, as it will be tried again."""
        try:
            return await self._threads.call(duty)
        except UnavailableError as error:
            _log.warning(f"{name}.failed", reason=error.message)
        except Exception:  # noqa: BLE001  # the duties of the next second must go on
            _log.exception(f"{name}.failed")
        return None

    def _do_duties(self) -> None:
        if self._db.dialect == "postgresql":
            self._reap()
        if time.monotonic() > self._hints_due_s:
            self._hints_due_s = time.monotonic() + _RENEW_HINTS_S
            self._renew_hints()
            self._versions.take_up(self._db, self._dispatch)

    def _reap(self) -> None:
        for dead, was_seen in find_dead(self._db, self._executor_id).items():
            self.recover_executor(dead, was_seen=was_seen)

    def clear_hints(self, older_than_s: float, limit: int) -> int:
        """Delete at most `limit` hints that were followed so long ago; return how many."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        ended = self._hints.client.list_workflows(
            queue_name=QUEUE,
            status=["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
            # When they were made: whatever ended since cannot be old.
            end_time=before.isoformat(),
            limit=limit,
            load_input=False,
            load_output=False,
        )
        if ended:
            self._hints.client.delete_workflows([hint.workflow_id for hint in ended])
        return len(ended)

    def recover_executor(self, dead: ExecutorId, *, was_seen: bool = True) -> None:
        """Fence and queue the runs of a dead worker, and give new hints for those it had taken.

        `was_seen` says that it was seen to end, so that it can no longer act. Interrupted takeovers
        are repeated by the next.
        """
        found = self._db.run(
            "run.takeover",
            lambda tx: self._dispatch.take_over(
                tx, dead, max_recoveries=MAX_RECOVERIES, was_seen=was_seen
            ),
        )
        left = self._hints.client.list_workflows(
            executor_id=dead, status="PENDING", load_input=False, load_output=False
        )
        fenced = {run.run_id for run in found}
        for hint in left:
            run_id = RunId(hint.workflow_id.partition(":")[0])
            if run_id not in fenced:
                self._db.run("run.hint", partial(self._dispatch.hint, run_id=run_id))
        self._hints.client.cancel_workflows([hint.workflow_id for hint in left])
        self._db.run("lease.remove", lambda tx: leases.remove(tx, dead))
        _log.warning("worker.taken_over", executor_id=dead, runs=len(found))

    def _renew_hints(self) -> None:
        """Give queued runs that have no hint a new one, and own no run that is not running.

        The second can only happen if a run could not be handed back.
        """
        with self._db.reading() as tx:
            owned = leases.owned_runs(tx, self._executor_id)
        for run in owned:
            if run.run_id not in self._runner.active:
                self._db.run("run.hand_back", partial(self._dispatch.requeue, run=run))
        # Before the hints: of a run that is queued from now on the hint is seen as well.
        with self._db.reading() as tx:
            queued = runs.list_queued(tx)
        if not queued:
            return
        # Not those that are taken: whoever took one may be gone, and a second hint does no harm.
        hints = self._hints.client.list_workflows(
            queue_name=QUEUE, status="ENQUEUED", load_input=False, load_output=False
        )
        hinted = {hint.workflow_id.rpartition(":")[0] for hint in hints}
        for run_id, segment in queued:
            if f"{run_id}:{segment}" not in hinted and run_id not in self._runner.active:
                self._db.run("run.hint", partial(self._dispatch.hint, run_id=run_id))

    async def _drain(self) -> None:
        self._runner.drain()
        for duty in self._duties:
            duty.cancel()
        # So that others see it leave, and hand it nothing on.
        await self._threads.call(self._lease.drain)
