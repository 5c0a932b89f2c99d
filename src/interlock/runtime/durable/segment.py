"""One uninterrupted stretch of a run: the one implementation of `Durable`, over the store.

Engines differ only in how they find, claim and time segments. Everything here runs on one event
loop; transactions run on the few threads that the connection pool can serve.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Literal, TypeVar

import structlog

from interlock.calls.durable import Retry
from interlock.domain.canonical import Json, JsonObject, digest
from interlock.domain.errors import (
    CancelledRunError,
    FencedError,
    InterlockError,
    InvariantError,
    PausedRunError,
    StepNameReusedError,
    UnavailableError,
)
from interlock.domain.ids import RunId, StepName
from interlock.domain.record import from_json
from interlock.domain.run import (
    ChildOutcome,
    Expired,
    JournalEntry,
    Run,
    RunOutcome,
    StartRequest,
)
from interlock.runtime.durable import codec, waiting
from interlock.runtime.durable.branches import Group, Waiter, go_on, group_of_branch, results_of
from interlock.runtime.durable.children import child_of, child_topic
from interlock.runtime.durable.dispatch import StoreDispatch
from interlock.runtime.durable.entries import Notes, is_undoing, may_cancel, put_entry, replayed
from interlock.runtime.durable.threads import StoreThreads
from interlock.runtime.durable.waiting import HOLD_S, DatabaseTime, Wait, pause_s
from interlock.store import gates, journal, runs, waits
from interlock.store.tx import Tx

T = TypeVar("T")
Stop = FencedError | CancelledRunError | PausedRunError | UnavailableError
"""Why a segment ends before its code does: fenced, stopped, paused, or handed back to the queue."""

_SETTLE_S = 0.02
"""How long nothing may move before the waits of a segment let the run wait."""

_log = structlog.get_logger(__name__)


_is_in_flight: ContextVar[bool] = ContextVar("interlock_in_flight", default=False)


class Segment:
    """What the code of one claimed run holds; the port `Durable` says what it may do.

    `pause` sleeps for seconds; `hold_s` is how long a wait may be held in memory; `now_us` is
    database time as the run was claimed.
    """

    def __init__(
        self,
        run: Run,
        entries: Mapping[StepName, JournalEntry],
        *,
        threads: StoreThreads,
        dispatch: StoreDispatch,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        hold_s: float = HOLD_S,
        now_us: int | None = None,
    ) -> None:
        self._run = run
        self._time = DatabaseTime(threads.db.clock, now_us)
        self._journal = dict(entries)
        self._threads = threads
        self.dispatch = dispatch
        self._pause = pause
        self._hold_s = hold_s
        self._used: set[StepName] = set()
        self.notes = Notes()
        self._writing = asyncio.Lock()
        self._stop: Stop | None = None
        if may_cancel(run, entries):
            self._stop = CancelledRunError(f"the run `{run.run_id}` was asked to stop")
        self._was_refused = False
        self._moving = 0
        self._moves = 0
        self._waiters: dict[StepName, Waiter] = {}
        self._code: asyncio.Task[RunOutcome] | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._parking: asyncio.Task[None] | None = None
        self._has_gates = False
        self.is_parked = False

    @property
    def run(self) -> Run:
        """Return the run as it was claimed; `run.epoch` is this owner's."""
        return self._run

    @property
    def stopped_by(self) -> Stop | None:
        """Return why the code was refused an operation, None if it was not."""
        return self._stop if self._was_refused else None

    def stop(self, why: Stop) -> None:
        """Refuse every further operation with `why`; the first reason stays, but a fence wins."""
        if self._stop is None or isinstance(why, FencedError):
            self._stop = why

    async def execute(self, code: Callable[[Segment], Awaitable[RunOutcome]]) -> RunOutcome | None:
        """Run the code to its end and return its outcome; None if the run was parked.

        Whatever the code raises comes out, also if it was stopped: see `stopped_by`.
        """

        async def start() -> RunOutcome:
            return await code(self)

        self._code = asyncio.create_task(start())
        try:
            return await self._code
        except asyncio.CancelledError:
            if not self.is_parked:
                raise
            return None
        finally:
            for timer in (self._settling, self._looking):
                if timer is not None:
                    timer.cancel()
            if self._parking is not None:
                await self._parking

    # --- operations

    def is_surely_before(self, at_us: int) -> bool:
        """Return whether a moment is yet to come, by what transactions have said of the time."""
        return self._time.is_surely_before(at_us)

    def recorded(self, name: StepName, *, input_digest: str | None = None) -> JournalEntry | None:
        """Return what is in the journal under a name, without running anything."""
        entry = self._journal.get(name)
        before = None if entry is None else entry.input_digest
        if None not in {before, input_digest} and before != input_digest:
            self._diverged(name)
        return entry

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a read-only transaction: neither fenced nor recorded."""
        self._enter()
        with self._move(), self._stopping():
            return await self._threads.read(fn)

    async def transact(
        self,
        name: str,
        fn: Callable[[Tx], T],
        *,
        tool: str | None = None,
        expect: Callable[[Tx], None] | None = None,
    ) -> T:
        """Run `fn` in one fenced transaction that leaves no journal row."""
        self._enter()
        return await self._write(name, lambda tx, _run: fn(tx), tool=tool, first=expect)

    async def commit(
        self,
        name: StepName,
        fn: Callable[[Tx], Json],
        *,
        kind: str = "commit",
        tool: str | None = None,
        input_digest: str | None = None,
    ) -> Json:
        """Run `fn` and write its journal row in one fenced transaction: exactly once."""
        return await self._commit(
            name, lambda tx, _run: fn(tx), kind=kind, tool=tool, input_digest=input_digest
        )

    def note(self, name: StepName, fn: Callable[[Tx], Json], *, kind: str) -> None:
        """Run `fn` and write its journal row with the run's next write, at the latest its end."""
        self._enter(name)
        if self.recorded(name) is None:
            self.notes.add(name, fn, kind=kind)

    async def put_away(self, names: Sequence[StepName]) -> None:
        """Keep what is recorded under and below these names out of this and later segments."""
        put = partial(journal.put_away, run_id=self._run.run_id, names=names)
        for name in await self.transact("journal.put_away", put):
            self._journal.pop(name, None)
            self._used.discard(name)

    async def step(
        self,
        name: StepName,
        fn: Callable[[], Awaitable[Json]],
        *,
        retry: Retry | None = None,
        timeout_s: float | None = None,
    ) -> Json:
        """Run `fn` at least once until its result is recorded, then always return the record."""
        self._enter(name)
        recorded = self._journal.get(name)
        if recorded is not None:
            return replayed(recorded)
        policy, failures = retry or Retry(), 0
        while True:
            # A long pause is in the journal: then this attempt failed in an earlier segment.
            if StepName(f"{name}#retry.{failures + 1}") not in self._journal:
                with self.in_flight():
                    result = await self._attempt(name, fn, timeout_s)
                    is_last = failures + 1 >= policy.attempts
                    if not isinstance(result, InterlockError):
                        return replayed(await self._record(name, value=result))
                    if is_last or not result.is_retryable:
                        error = codec.error_to_json(result)
                        return replayed(await self._record(name, error=error))
            failures += 1
            await self._back_off(name, policy, failures)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Hold the segment while something outside is going on, until its outcome is committed."""
        token = _is_in_flight.set(True)
        try:
            with self._move():
                yield
        finally:
            _is_in_flight.reset(token)

    async def wait(self, name: StepName, topic: str, *, until_us: int | None) -> Json | Expired:
        """Return the oldest unconsumed signal of a topic, or `Expired` at `until_us`."""
        self._enter(name)
        if _is_in_flight.get():
            raise InvariantError(f"the wait `{name}` is inside a step, which is never parked")
        wait = Wait(topic=topic, until_us=until_us)
        entry = self._journal.get(name)
        while entry is None:
            entry, now_us = await self._write(
                "run.wait",
                lambda tx, run: (waiting.take(tx, run, name, wait), tx.now_us),
                first=lambda tx: waits.expect_signal(tx, self._run.run_id, topic),
            )
            if entry is not None:
                self._journal[name] = entry
            elif until_us is not None and until_us - now_us <= self._hold_s * 1_000_000:
                with self._move():
                    await self._pause((until_us - now_us) / 1_000_000)
            else:
                await self._until_ready(name, wait)
            self._enter()
        return waiting.answer_of(entry)

    async def sleep(self, name: StepName, until_us: int) -> None:
        """Return not before `until_us` by database time, also across restarts."""
        await self.wait(name, f"time/{name}", until_us=until_us)

    async def child(self, name: StepName, request: StartRequest) -> ChildOutcome:
        """Start exactly one child run under this name and wait for how it ends."""
        run_id = await self.spawn(StepName(f"{name}#run"), request)
        ended = await self.wait(name, child_topic(run_id), until_us=None)
        # INVARIANT: without a time the wait cannot expire.
        assert not isinstance(ended, Expired)
        return from_json(ChildOutcome, ended)

    async def spawn(self, name: StepName, request: StartRequest) -> RunId:
        """Start exactly one child run under this name and return its id."""

        def start(tx: Tx, run: Run) -> Json:
            child = child_of(run, name, request)
            return self.dispatch.start(tx, child, body_digest=digest(child.input))[0]

        wanted = {"workflow": request.workflow, "agent": request.agent, "input": request.input}
        started = await self._commit(name, start, kind="run.start", input_digest=digest(wanted))
        return RunId(str(started))

    async def gather(
        self,
        branches: Sequence[Callable[[], Awaitable[Json]]],
        *,
        limit: int = 8,
        on_error: Literal["fail_fast", "collect"] = "fail_fast",
    ) -> list[Json | BaseException]:
        """Run branches, at most `limit` at once; results are in the order given."""
        group, slots = Group(group_of_branch.get()), asyncio.Semaphore(limit)

        async def run(branch: Callable[[], Awaitable[Json]]) -> Json:
            group_of_branch.set(group)
            async with slots:
                self._enter()
                return await branch()

        tasks = [asyncio.create_task(run(branch)) for branch in branches]
        pending = set(tasks)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
                has_failed = any(not t.cancelled() and t.exception() is not None for t in done)
                if has_failed and (on_error == "fail_fast" or self._was_refused):
                    self._stop_group(group)
        finally:
            # Only reached with branches left if this task itself is cancelled.
            for task in pending:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._was_refused and self._stop is not None:
            raise self._stop
        return results_of(tasks, on_error)

    async def now_us(self, name: StepName) -> int:
        """Return database time, recorded at first use."""
        return int(str(await self.commit(name, lambda tx: tx.now_us, kind="now")))

    async def uuid(self, name: StepName) -> str:
        """Return a new UUIDv7, recorded at first use."""
        return str(await self.commit(name, lambda tx: tx.new_id(), kind="uuid"))

    async def hold(
        self, name: StepName, keys: Mapping[str, int], *, hold_while_waiting: bool = False
    ) -> None:
        """Take all keys, as soon as none is full, and hold them until the run ends."""
        self._enter(name)
        if _is_in_flight.get():
            raise InvariantError(f"the gate `{name}` is inside a step, which is never parked")
        wanted = gates.Ask(
            run_id=self._run.run_id,
            name=name,
            keys=keys,
            priority=self._run.request.priority,
            tenant=self._run.request.tenant,
            is_kept=hold_while_waiting,
        )
        self._has_gates = True
        full = await self._write(
            "gate.ask", lambda tx, _run: self.dispatch.ask(tx, wanted), first=gates.lock
        )
        if full is not None:
            topic = waiting.gate_topic(full.key)
            await self._until_ready(name, Wait(topic=topic, until_us=None, is_gate=True))
            self._enter()

    @asynccontextmanager
    async def gate(
        self, name: StepName, keys: Mapping[str, int], *, hold_while_waiting: bool = False
    ) -> AsyncIterator[None]:
        """Hold all keys for the block; what has left once, as replay finds, asks no more."""
        left = StepName(f"{name}#left")
        if left not in self._journal:
            await self.hold(name, keys, hold_while_waiting=hold_while_waiting)
        try:
            yield
        except (FencedError, CancelledRunError, PausedRunError, UnavailableError):
            # The segment ends, not the block; the end of the run frees what it still holds.
            raise
        except Exception:
            await self._leave(name, left)
            raise
        await self._leave(name, left)

    async def _leave(self, name: StepName, left: StepName) -> None:
        def leave(tx: Tx, _run: Run) -> Json:
            self.dispatch.leave(tx, self._run.run_id, name=name)
            return None

        await self._commit(left, leave, kind="gate.leave", first=gates.lock)

    # --- one operation

    def _diverged(self, name: StepName) -> None:
        """Tell that a step was recorded for another input than it has now; the record wins."""
        _log.warning("replay.diverged", run_id=self._run.run_id, step=name)

    def _enter(self, name: StepName | None = None) -> None:
        """Refuse the operation if the segment or its branch is to stop, or the name is taken."""
        if self.is_parked:
            # Only cleaning up after a wait can get here: it would run at every wait.
            raise asyncio.CancelledError
        if self._stop is not None and (
            not _is_in_flight.get() or isinstance(self._stop, FencedError)
        ):
            self._was_refused = True
            raise self._stop
        group = group_of_branch.get()
        if group is not None and group.is_stopped and not _is_in_flight.get():
            raise asyncio.CancelledError
        if name is not None:
            if name in self._used:
                raise StepNameReusedError(
                    f"the run `{self._run.run_id}` used the step name `{name}` twice; add a key"
                )
            self._used.add(name)

    @contextmanager
    def _move(self) -> Iterator[None]:
        self._moving += 1
        self._moves += 1
        try:
            yield
        finally:
            self._moving -= 1
            self._moves += 1
            self._consider_parking()

    async def _write(
        self,
        name: str,
        fn: Callable[[Tx, Run], T],
        *,
        tool: str | None = None,
        first: Callable[[Tx], object] | None = None,
    ) -> T:
        """Run `fn` in one transaction that locks the run as ours, after what `first` does.

        What was noted goes with it. One after another, as the lock of the run's row has it anyway.
        """
        is_exempt = _is_in_flight.get()

        def write(tx: Tx) -> tuple[T, dict[StepName, JournalEntry], int]:
            if first is not None:
                first(tx)
            run = runs.lock_again(tx, self._run)
            is_wanted = is_exempt or is_undoing(self._run, self._journal)
            if run.is_cancel_requested and not is_wanted:
                raise CancelledRunError(f"the run `{run.run_id}` was asked to stop")
            if run.is_pause_requested and not is_exempt:
                raise PausedRunError(f"the run `{run.run_id}` is to pause")
            noted = self.notes.write(tx, run)
            return fn(tx, run), noted, tx.now_us

        with self._move(), self._stopping():
            async with self._writing:
                result, noted, now_us = await self._threads.run(name, write, tool=tool)
                self._time.learn(now_us)
                self.notes.committed(noted)
                self._journal |= noted
        return result

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Note what stops the segment: a fence, a cancel, or a database that is away too long."""
        try:
            yield
        except (FencedError, CancelledRunError, PausedRunError, UnavailableError) as error:
            self.stop(error)
            self._was_refused = True
            raise

    async def _commit(
        self,
        name: StepName,
        fn: Callable[[Tx, Run], Json],
        *,
        kind: str,
        tool: str | None = None,
        first: Callable[[Tx], object] | None = None,
        input_digest: str | None = None,
    ) -> Json:
        self._enter(name)
        recorded = self.recorded(name, input_digest=input_digest)
        if recorded is not None:
            return replayed(recorded)

        def write(tx: Tx, run: Run) -> JournalEntry:
            value = codec.checked(fn(tx, run), what=f"the result of `{name}`")
            return put_entry(tx, run, name, kind, value=value, input_digest=input_digest)

        self._journal[name] = await self._write(kind, write, tool=tool, first=first)
        return self._journal[name].value

    # --- steps

    async def _attempt(
        self, name: StepName, fn: Callable[[], Awaitable[Json]], timeout_s: float | None
    ) -> Json | InterlockError:
        """Run `fn` once; an error that belongs into the journal is returned."""
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return codec.checked(await fn(), what=f"the result of `{name}`")
        except InterlockError as error:
            if self._was_refused:
                raise
            return error
        except Exception as error:  # noqa: BLE001  # a step is an edge: what it raises is recorded
            if isinstance(error, TimeoutError) and limit.expired():
                return UnavailableError(f"the step `{name}` took longer than {timeout_s} s")
            _log.exception("step.raised", run_id=self._run.run_id, step=name)
            return InvariantError(f"the step `{name}` raised a `{type(error).__name__}`")

    async def _record(
        self, name: StepName, *, value: Json = None, error: JsonObject | None = None
    ) -> JournalEntry:
        entry = await self._write(
            "step", lambda tx, run: put_entry(tx, run, name, "step", value=value, error=error)
        )
        self._journal[name] = entry
        return entry

    async def _back_off(self, name: StepName, retry: Retry, failures: int) -> None:
        """Pause before the next attempt; a pause that lets the run wait is in the journal."""
        key, seconds = StepName(f"{name}#retry.{failures}"), pause_s(retry, failures)
        if key in self._journal or seconds > self._hold_s:
            until = await self.commit(
                key, lambda tx: tx.now_us + round(seconds * 1_000_000), kind="retry"
            )
            await self.sleep(StepName(f"{key}.over"), int(str(until)))
            return
        with self._move():
            await self._pause(seconds)
        self._enter()

    # --- parking

    async def _until_ready(self, name: StepName, wait: Wait) -> None:
        """Block this branch until parking finds that its wait may end."""
        self._enter()  # whatever stops it later finds it among the waiters
        ready = asyncio.get_running_loop().create_future()
        self._waiters[name] = Waiter(wait=wait, group=group_of_branch.get(), ready=ready)
        self._consider_parking()
        try:
            await ready
        finally:
            del self._waiters[name]
            self._moves += 1

    def _consider_parking(self) -> None:
        if not self._waiters or self.is_parked:
            return
        loop = asyncio.get_running_loop()
        if not self._moving and self._settling is None:
            self._settling = loop.call_later(_SETTLE_S, self._try_parking, self._moves)
        elif self._moving and self._looking is None:
            # However long other branches go on, an answer is heard.
            self._looking = loop.call_later(waiting.LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = None
        if self._moving and self._waiters and (self._parking is None or self._parking.done()):
            self._parking = asyncio.get_running_loop().create_task(self._hear())

    async def _hear(self) -> None:
        """Let those branches go on whose wait may end, while others keep the run from parking."""
        waiters = dict(self._waiters)
        open_waits = {name: waiter.wait for name, waiter in waiters.items()}
        look = partial(waiting.ready, run_id=self._run.run_id, open_waits=open_waits)
        with suppress(UnavailableError):
            go_on(waiters, await self._threads.read(look))
        self._consider_parking()

    def _try_parking(self, moves: int) -> None:
        self._settling = None
        if moves != self._moves:
            self._consider_parking()
        elif self._waiters and not self._moving and (self._parking is None or self._parking.done()):
            _is_in_flight.set(False)
            self._parking = asyncio.get_running_loop().create_task(self._park())

    async def _park(self) -> None:
        waiters = dict(self._waiters)
        open_waits = {name: waiter.wait for name, waiter in waiters.items()}
        leaves_gates = self._has_gates and waiting.is_for_people(open_waits)

        def park(tx: Tx, run: Run) -> list[StepName]:
            ready = waiting.park(tx, run, open_waits)
            if leaves_gates and not ready:
                self.dispatch.leave(tx, run.run_id, with_kept=False)
            return ready

        try:
            ready = await self._write("run.park", park, first=gates.lock if leaves_gates else None)
        except Exception as error:  # noqa: BLE001  # whoever waits has to hear of it
            for waiter in waiters.values():
                if not waiter.ready.done():
                    waiter.ready.set_exception(error)
            return
        if not ready:
            self.is_parked = True
            # INVARIANT: the waits belong to the code, so it was started.
            assert self._code is not None
            self._code.cancel()
        go_on(waiters, ready)

    def _stop_group(self, group: Group) -> None:
        group.stop()
        for waiter in self._waiters.values():
            if waiter.group is not None and waiter.group.is_stopped:
                waiter.ready.cancel()
