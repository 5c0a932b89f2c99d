"""From a hint to the end of a segment: claim the run, run its code, commit how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import structlog

from interlock.domain.canonical import Json
from interlock.domain.errors import (
    CancelledRunError,
    FencedError,
    InterlockError,
    PausedRunError,
    StepFailedError,
    UnavailableError,
)
from interlock.domain.ids import ExecutorId, RunId, StepName
from interlock.domain.record import to_json
from interlock.domain.run import (
    RECHECK,
    Abilities,
    ChildOutcome,
    JournalEntry,
    Run,
    RunOutcome,
    RunState,
)
from interlock.runtime.durable import codec
from interlock.runtime.durable.children import child_topic
from interlock.runtime.durable.dispatch import StoreDispatch
from interlock.runtime.durable.entries import Notes, may_cancel
from interlock.runtime.durable.segment import Segment
from interlock.runtime.durable.threads import StoreThreads
from interlock.runtime.durable.versions import Versions
from interlock.runtime.durable.waiting import HOLD_S
from interlock.store import effects, gates, journal, registry, runs, waits
from interlock.store.tx import Tx

Code = Callable[[Segment], Awaitable[RunOutcome]]
"""What a run does; takes the segment as its `Durable`."""
OnEnd = Callable[[Tx, Run, RunOutcome], None]
"""Called in the transaction that ends a run, whichever way it ends."""

_Claimed = tuple[Run, dict[StepName, JournalEntry], int]
"""A claimed run, what it has recorded, and database time."""

_log = structlog.get_logger(__name__)


def nothing_more(_tx: Tx, _run: Run, _outcome: RunOutcome) -> None:
    """Add nothing to the end of a run."""


class _UnableError(Exception):
    """This worker cannot run the run; raised so that the claim is taken back."""

    def __init__(self, needed: Abilities) -> None:
        super().__init__()
        self.needed = needed


class _Attempt:
    """One delivery of a hint: the run that is, or was, being claimed for it."""

    def __init__(self, run_id: RunId) -> None:
        self.run_id = run_id
        self.segment: Segment | None = None


class Runner:
    """Runs segments for one worker; one object per engine, on one event loop."""

    def __init__(
        self,
        code: Code,
        *,
        threads: StoreThreads,
        dispatch: StoreDispatch,
        executor_id: ExecutorId,
        on_end: OnEnd = nothing_more,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        hold_s: float = HOLD_S,
        versions: Versions | None = None,
    ) -> None:
        self._code = code
        self._versions = versions or Versions()
        self._threads = threads
        self._dispatch = dispatch
        self._executor_id = executor_id
        self._on_end = on_end
        self._pause = pause
        self._hold_s = hold_s
        self._attempts: set[_Attempt] = set()
        self._left = asyncio.Event()
        self._draining: UnavailableError | None = None

    @property
    def active(self) -> frozenset[RunId]:
        """Return the runs that this worker may own just now."""
        # A copy, since the loop's thread changes the set while others look.
        return frozenset(attempt.run_id for attempt in self._attempts.copy())

    async def run(self, run_id: RunId, segment_number: int) -> None:
        """Claim a segment and run it to its end; do nothing if the hint is stale."""
        if self._draining is not None:
            # The hint is used up, so that another worker needs a new one.
            await self._threads.run("run.hint", partial(self._dispatch.hint, run_id=run_id))
            return
        claim = partial(self._claim, run_id=run_id, number=segment_number)
        await self._claim_and_run(run_id, claim)

    async def attend(self, run_id: RunId) -> None:
        """Claim a run that waits, or is queued, without a hint and run it to its next wait.

        Does nothing if it is neither, as while somebody else owns it; raises `UnavailableError` if
        this worker is stopping.
        """
        if self._draining is not None:
            raise self._draining
        await self._claim_and_run(run_id, partial(self._claim_waiting, run_id=run_id))

    async def _claim_and_run(self, run_id: RunId, claim: Callable[[Tx], _Claimed | None]) -> None:
        # Not by run: the next segment may be hinted at while the last one is still cleaning up.
        attempt = _Attempt(run_id)
        self._attempts.add(attempt)
        try:
            claimed = await self._threads.run("run.claim", claim)
            if claimed is not None:
                await self._run(attempt, *claimed)
        except FencedError:
            _log.info("segment.fenced", run_id=run_id)
        except _UnableError as unable:
            await self._versions.hand_on(
                self._threads, self._dispatch, run_id, unable.needed, pause=self._pause
            )
        finally:
            self._attempts.discard(attempt)
            self._left.set()

    def drain(self) -> None:
        """Claim nothing more and hand every run back at its next operation."""
        self._draining = UnavailableError("the worker is stopping")
        for attempt in self._attempts:
            if attempt.segment is not None:
                attempt.segment.stop(self._draining)

    async def idle(self, *, timeout_s: float) -> None:
        """Return when no run is owned any more; after `timeout_s` others have to take over."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._attempts:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            _log.warning("runs.left", runs=len(self._attempts))

    def _claim_waiting(self, tx: Tx, *, run_id: RunId) -> _Claimed | None:
        run = runs.lock_any(tx, run_id)
        if run.state is RunState.WAITING:
            waits.close_all(tx, run_id)
            runs.requeue(tx, run_id, state=run.state, epoch=run.epoch)
        return self._claim(tx, run_id=run_id, number=run.segment)

    def _claim(self, tx: Tx, *, run_id: RunId, number: int) -> _Claimed | None:
        journal.expect(tx, run_id)
        # What every run needs depends on it.
        registry.expect_live_format(tx)
        run = runs.claim(tx, run_id, segment=number, executor_id=self._executor_id)
        if run is None:
            return None
        entries = journal.load(tx, run_id)
        # Any worker can cancel a run, but for one that is undoing what it did.
        needed = None if may_cancel(run, entries) else self._versions.lacking(tx, run)
        if needed is not None:
            raise _UnableError(needed)
        return run, entries, tx.now_us

    async def _run(
        self, attempt: _Attempt, run: Run, entries: dict[StepName, JournalEntry], now_us: int
    ) -> None:
        segment = Segment(
            run,
            entries,
            threads=self._threads,
            dispatch=self._dispatch,
            pause=self._pause,
            hold_s=self._hold_s,
            now_us=now_us,
        )
        attempt.segment = segment
        if self._draining is not None:
            segment.stop(self._draining)
        outcome = await self._outcome_of(segment)
        match segment.stopped_by:
            case FencedError():
                _log.info("segment.fenced", run_id=run.run_id)
            case UnavailableError():
                await self._threads.run("run.hand_back", partial(self._hand_back, run=run))
            case PausedRunError():
                await self._threads.run("run.pause", partial(self._stand_still, run=run))
            case CancelledRunError() as why:
                await self._cancel_children(run)
                stopped = RunOutcome(
                    state=RunState.CANCELLED, error_code=why.code, error_message=why.message
                )
                await self._finish(segment, stopped)
            case None:
                if outcome is not None:
                    await self._finish(segment, outcome)

    async def _outcome_of(self, segment: Segment) -> RunOutcome | None:
        """Return how the code ended; None if it was parked. Nothing it raises gets further."""
        try:
            outcome = await segment.execute(self._code)
            if outcome is None:
                return None
            output = codec.checked(outcome.output, what="the output of the run")
            if segment.run.request.parent_id is not None:
                codec.checked(_told(segment.run, outcome), what="what the parent hears of the run")
            return replace(outcome, output=output)
        except InterlockError as error:
            return _failed(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._unexpected(segment, "its code was cancelled from inside")
        except Exception as error:  # noqa: BLE001  # a run is an edge: what it raises ends it
            return self._unexpected(segment, f"its code raised a `{type(error).__name__}`")

    def _unexpected(self, segment: Segment, what: str) -> RunOutcome:
        if segment.stopped_by is None:
            _log.exception("run.raised", run_id=segment.run.run_id)
        return RunOutcome(state=RunState.FAILED, error_code="internal", error_message=what)

    def _hand_back(self, tx: Tx, *, run: Run) -> None:
        locked = runs.lock(tx, run.run_id, epoch=run.epoch)
        self._dispatch.requeue(tx, locked)

    def _stand_still(self, tx: Tx, *, run: Run) -> None:
        gates.lock_of(tx, run.run_id)
        locked = runs.lock(tx, run.run_id, epoch=run.epoch)
        if locked.is_pause_requested:
            self._dispatch.stand_still(tx, run.run_id, from_states=runs.OWNED)
        else:
            # Resumed in between.
            self._dispatch.requeue(tx, locked)

    async def _cancel_children(self, run: Run) -> None:
        children = await self._threads.read(lambda tx: runs.children(tx, run.run_id))
        for child in children:
            # A second look is about what was sent already.
            if not child.state.is_final and child.request.trigger.kind != RECHECK:
                await self._threads.run(
                    "run.cancel", partial(self._dispatch.cancel, run_id=child.run_id)
                )

    async def _finish(self, segment: Segment, outcome: RunOutcome) -> None:
        run = segment.run

        def end(tx: Tx) -> None:
            self._end(tx, run, outcome, notes=segment.notes)

        try:
            await self._threads.run("run.finish", end)
        except (FencedError, CancelledRunError, PausedRunError, UnavailableError):
            raise
        except InterlockError as error:
            # Rolled back whenever it is tried, the run would never end.
            _log.exception("run.end_refused", run_id=run.run_id)
            failed = _failed(error)
            await self._threads.run("run.finish", lambda tx: self._end(tx, run, failed))

    def _end(self, tx: Tx, run: Run, outcome: RunOutcome, *, notes: Notes | None = None) -> None:
        """End the run; in the same transaction its gates are free and its parent hears of it."""
        has_gates = gates.lock_of(tx, run.run_id)
        # Whoever ends it asks what is left open.
        effects.expect_unended(tx, run.run_id)
        ended = runs.finish(
            tx,
            run.run_id,
            epoch=run.epoch,
            state=outcome.state,
            output=outcome.output,
            end_state=outcome.end_state,
            error_code=outcome.error_code,
            error_message=outcome.error_message,
        )
        if notes is not None:
            notes.write(tx, run)
        if has_gates:
            self._dispatch.leave(tx, run.run_id)
        self._on_end(tx, ended, outcome)
        parent_id = ended.request.parent_id
        if parent_id is None:
            return
        topic = child_topic(ended.run_id)
        self._dispatch.signal(tx, parent_id, topic, _told(ended, outcome), dedupe_key=topic)


def _failed(error: InterlockError) -> RunOutcome:
    code = error.error_code if isinstance(error, StepFailedError) else error.code
    return RunOutcome(state=RunState.FAILED, error_code=code, error_message=error.message)


def _told(run: Run, outcome: RunOutcome) -> Json:
    """Return what the parent of a run hears of its end."""
    return to_json(
        ChildOutcome(
            run_id=run.run_id,
            state=outcome.state,
            output=outcome.output,
            error_code=outcome.error_code,
            error_message=outcome.error_message,
        )
    )
