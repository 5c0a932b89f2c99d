"""What the outside does to runs, each in the caller's transaction: start, signal, stop, resume.

Both sides of every wake-up lock the run's row: a signal and the wait for it cannot pass each other.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from interlock.domain.canonical import Json
from interlock.domain.ids import ExecutorId, RunId, StepName
from interlock.domain.run import Run, RunState, StartRequest
from interlock.runtime.durable import codec
from interlock.store import gates, leases, runs, triggers, waits
from interlock.store.tx import Tx


class Hints(Protocol):
    """Tells the workers of an engine that a run is queued.

    A hint may be delivered twice, late or never; the claim decides, and lost hints are renewed.
    """

    def give(self, tx: Tx, run_id: RunId, segment: int, *, priority: int) -> None:
        """Make some worker try to claim this segment, if and only if `tx` commits.

        Of the hints that are there the one with the highest priority is followed first.
        """
        ...


class StoreDispatch:
    """The outside of durable runs over the store; an engine adds only its way to give hints."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints

    def start(self, tx: Tx, request: StartRequest, *, body_digest: str) -> tuple[RunId, bool]:
        """Accept a run, deduplicated by (trigger source, key); also return whether it is new.

        The same key with another body raises `DedupeConflictError`.
        """
        run_id, is_new = triggers.accept(tx, request, body_digest=body_digest)
        if is_new:
            self._hints.give(tx, run_id, 0, priority=request.priority)
        return run_id, is_new

    def signal(self, tx: Tx, run_id: RunId, topic: str, value: Json, *, dedupe_key: str) -> bool:
        """Send a signal; returns False if one with this key was sent before.

        Raises `NotFoundError` for an unknown run and `InputError` for a value that is not JSON.
        """
        run = runs.lock_any(tx, run_id)
        kept = codec.checked(value, what=f"the signal `{topic}`")
        if not waits.put_signal(tx, run_id, topic, kept, dedupe_key):
            return False
        if any(wait.topic == topic for wait in waits.list_waits(tx, run_id)):
            # A paused run has no open waits: it finds the signal when it is resumed.
            self.wake(tx, run)
        return True

    def cancel(self, tx: Tx, run_id: RunId) -> bool:
        """Ask a run to stop; returns False if it has ended already.

        Its children are asked when it ends, one transaction each: a child that ends locks its own
        row and then its parent's, so nobody may lock them the other way round.
        """
        run = runs.request_cancel(tx, run_id)
        if run is None:
            return False
        self.wake(tx, run)
        return True

    def pause(self, tx: Tx, run_id: RunId) -> bool:
        """Let a run stand still, at the latest at its next operation, until it is resumed.

        What was sent is still recorded. Signals are kept for it; no time of its waits passes
        unseen. Returns False if it has ended, is paused, or was set aside already.
        """
        if self.stand_still(tx, run_id, from_states=(RunState.QUEUED, RunState.WAITING)):
            return True
        return runs.request_pause(tx, run_id) is not None

    def stand_still(self, tx: Tx, run_id: RunId, *, from_states: Collection[RunState]) -> bool:
        """Pause a run that is in one of these states, with the gates that it does not keep."""
        has_gates = gates.lock_of(tx, run_id)
        if runs.pause(tx, run_id, from_states=from_states) is None:
            return False
        if has_gates:
            self.leave(tx, run_id, with_kept=False)
        return True

    def resume(self, tx: Tx, run_id: RunId) -> bool:
        """Let a paused or dead-lettered run go on; returns False if it is neither."""
        run = runs.resume(tx, run_id)
        if run is not None and run.state is RunState.QUEUED:
            self._hints.give(tx, run_id, run.segment, priority=run.request.priority)
        return run is not None

    def wake(self, tx: Tx, run: Run) -> bool:
        """Queue a run that waits, with a hint; `run` is its row as locked in this transaction."""
        if run.state not in {RunState.WAITING, RunState.PAUSED, RunState.DEAD_LETTERED}:
            return False
        waits.close_all(tx, run.run_id)
        return self.requeue(tx, run)

    def requeue(self, tx: Tx, run: Run) -> bool:
        """Queue a run from the state and epoch that it is known to be in, with a hint."""
        queued = runs.requeue(tx, run.run_id, state=run.state, epoch=run.epoch)
        if queued is None:
            return False
        self._hints.give(tx, run.run_id, queued.segment, priority=run.request.priority)
        return True

    def ask(self, tx: Tx, wanted: gates.Ask) -> gates.FullGate | None:
        """Take gates or queue for them; return one that is full, None if the run has them all.

        Gates are locked in this transaction.
        """
        self._let_in(tx, gates.ask(tx, wanted))
        if gates.is_held(tx, wanted.run_id, wanted.name):
            return None
        return gates.list_full(tx, wanted.run_id)[0]

    def leave(
        self, tx: Tx, run_id: RunId, *, name: StepName | None = None, with_kept: bool = True
    ) -> None:
        """Free what a run holds (under a name) and wake who is next; gates are locked."""
        self._let_in(tx, gates.free(tx, run_id, name=name, with_kept=with_kept))

    def take_over(
        self, tx: Tx, dead: ExecutorId, *, max_recoveries: int, was_seen: bool = True
    ) -> list[Run]:
        """Fence the runs of a dead worker and queue them; return them as they are now.

        They keep their gates, but for those that are set aside as `dead_lettered`.
        """
        gates.lock(tx)
        found = leases.takeover(tx, dead, max_recoveries=max_recoveries, was_seen=was_seen)
        for run in found:
            if run.state is RunState.DEAD_LETTERED:
                self.leave(tx, run.run_id)
            self.hint(tx, run.run_id)
        return found

    def _let_in(self, tx: Tx, entered: Collection[RunId]) -> None:
        for run_id in entered:
            run = runs.lock_any(tx, run_id)
            if run.state is RunState.WAITING:
                self.wake(tx, run)

    def hint(self, tx: Tx, run_id: RunId) -> None:
        """Give a new hint for a run whose hint may be lost, if it is queued."""
        run = runs.find(tx, run_id)
        if run is not None and run.state is RunState.QUEUED:
            self._hints.give(tx, run_id, run.segment, priority=run.request.priority)
