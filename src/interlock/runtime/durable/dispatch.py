"""What the outside does to runs, each in the caller's transaction: start, signal, stop, resume.

Both sides of every wake-up lock the run's row: a signal and the wait for it cannot pass each other.
"""

from __future__ import annotations

from typing import Protocol

from interlock.domain.canonical import Json
from interlock.domain.ids import RunId
from interlock.domain.run import Run, RunState, StartRequest
from interlock.runtime.durable import codec
from interlock.store import runs, triggers, waits
from interlock.store.engine import Tx


class Hints(Protocol):
    """Tells the workers of an engine that a run is queued.

    A hint may be delivered twice, late or never; the claim decides, and lost hints are renewed.
    """

    def give(self, tx: Tx, run_id: RunId, segment: int) -> None:
        """Make some worker try to claim this segment, if and only if `tx` commits."""
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
            self._hints.give(tx, run_id, 0)
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
        if runs.pause(tx, run_id, from_states=(RunState.QUEUED, RunState.WAITING)) is not None:
            return True
        return runs.request_pause(tx, run_id) is not None

    def resume(self, tx: Tx, run_id: RunId) -> bool:
        """Let a paused or dead-lettered run go on; returns False if it is neither."""
        run = runs.resume(tx, run_id)
        if run is not None and run.state is RunState.QUEUED:
            self._hints.give(tx, run_id, run.segment)
        return run is not None

    def wake(self, tx: Tx, run: Run) -> bool:
        """Queue a run that waits, with a hint; `run` is its row as locked in this transaction."""
        if run.state not in {RunState.WAITING, RunState.PAUSED, RunState.DEAD_LETTERED}:
            return False
        waits.close_all(tx, run.run_id)
        return self.requeue(tx, run)

    def requeue(self, tx: Tx, run: Run) -> bool:
        """Queue a run from the state and epoch that it is known to be in, with a hint."""
        queued = runs.requeue(tx, run.run_id, from_states=(run.state,), epoch=run.epoch)
        if queued is None:
            return False
        self._hints.give(tx, run.run_id, queued.segment)
        return True

    def hint(self, tx: Tx, run_id: RunId) -> None:
        """Give a new hint for a run whose hint may be lost, if it is queued."""
        run = runs.find(tx, run_id)
        if run is not None and run.state is RunState.QUEUED:
            self._hints.give(tx, run_id, run.segment)
