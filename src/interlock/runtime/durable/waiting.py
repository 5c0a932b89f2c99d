"""How a run waits without costing anything: taking signals, parking, and waking what is due.

Also how long it pauses before a step is tried again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from interlock.calls.durable import Retry
from interlock.domain import breaker
from interlock.domain.canonical import Json
from interlock.domain.clock import Clock
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import Expired, JournalEntry, Run
from interlock.runtime.durable.dispatch import StoreDispatch
from interlock.store import gates, journal, runs, waits
from interlock.store.engine import Database
from interlock.store.tx import Tx

_MARGIN_US = 1_000_000
"""How wrong this process's idea of database time may be, at most."""
HOLD_S = 2.0
"""Waits and pauses up to this many seconds are held in memory; longer ones let the run wait."""

LOOK_S = 1.0
"""How long nobody looks for times that have come; only what is parked in between is late."""
_TOGETHER_S = 0.1
"""Times that come within so many seconds are noticed together."""
_DUE_BATCH = 50
"""How many runs one transaction wakes; whoever signals one of them waits for it."""
_GATE = "gate/"
_NOT_PEOPLE = (_GATE, breaker.TOPIC, "time/", "child/")
_EXPIRED: Json = {"expired": True}


class DatabaseTime:
    """What a segment knows of database time without asking: what it was last told, and since."""

    def __init__(self, clock: Clock | None, now_us: int | None) -> None:
        self._clock = clock
        self._told = None if now_us is None else (now_us, time.monotonic())

    def learn(self, now_us: int) -> None:
        """Take the time of a transaction that has just ended."""
        self._told = now_us, time.monotonic()

    def is_surely_before(self, at_us: int) -> bool:
        """Return whether it is before a moment; False if nobody knows, or it is close."""
        if self._clock is not None:
            return self._clock.now_us() < at_us
        if self._told is None:
            return False
        told_us, then_s = self._told
        passed_us = round((time.monotonic() - then_s) * 1_000_000)
        return told_us + passed_us + _MARGIN_US < at_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What one branch waits for: a signal of `topic`, at most until `until_us`, or its gates."""

    topic: str
    until_us: int | None
    is_gate: bool = False


def gate_topic(key: str) -> str:
    """Return the topic of a wait for a full gate; it is the reason of a run that waits there."""
    return f"{_GATE}{key}"


def is_for_people(open_waits: Mapping[StepName, Wait]) -> bool:
    """Return whether all that a run waits for are answers or signals, which are for people."""
    return not any(wait.topic.startswith(_NOT_PEOPLE) for wait in open_waits.values())


def take(tx: Tx, run: Run, name: StepName, wait: Wait) -> JournalEntry | None:
    """Record and return the end of a wait: a signal that is there, or its time that is over.

    None if neither is the case. The run's row is locked in this transaction.
    """
    signal = waits.take_signal(tx, run.run_id, wait.topic, by=name)
    if signal is not None:
        value: Json = {"signal": signal.value}
    elif wait.until_us is not None and wait.until_us <= tx.now_us:
        value = _EXPIRED
    else:
        return None
    entry = JournalEntry(
        name=name,
        kind="wait",
        value=value,
        error=None,
        input_digest=None,
        epoch=run.epoch,
        at_us=tx.now_us,
    )
    journal.put(tx, run.run_id, entry)
    return entry


def answer_of(entry: JournalEntry) -> Json | Expired:
    """Return what the wait of a journal row returned."""
    # INVARIANT: `take` writes the rows of waits, and always an object.
    assert isinstance(entry.value, dict)
    return entry.value["signal"] if "signal" in entry.value else Expired()


def ready(tx: Tx, run_id: RunId, open_waits: Mapping[StepName, Wait]) -> list[StepName]:
    """Return the waits that can end now."""
    return [
        name
        for name, wait in open_waits.items()
        if waits.has_signal(tx, run_id, wait.topic)
        or (wait.until_us is not None and wait.until_us <= tx.now_us)
        or (wait.is_gate and gates.is_held(tx, run_id, name))
    ]


def park(tx: Tx, run: Run, open_waits: Mapping[StepName, Wait]) -> list[StepName]:
    """Let the run wait, unless some of its waits can end now; return those and change nothing then.

    The run's row is locked in this transaction, so no signal can pass unseen.
    """
    if found := ready(tx, run.run_id, open_waits):
        return found
    for name, wait in open_waits.items():
        waits.open_wait(tx, run.run_id, name, wait.topic, wait.until_us)
    topics = sorted({wait.topic for wait in open_waits.values()})
    runs.park(tx, run.run_id, epoch=run.epoch, reason=", ".join(topics))
    return []


def wake_all_due(db: Database, dispatch: StoreDispatch) -> float:
    """Queue every run whose time has come; return in how many seconds to look again."""
    while not (pause_s := wake_due(db, dispatch)):
        pass
    return pause_s


def wake_due(db: Database, dispatch: StoreDispatch) -> float:
    """Queue some runs whose time has come; return in how many seconds to look again, 0 for at once.

    Time is the database's. Costs one read if nothing is due, however many runs wait.
    """
    with db.reading() as tx:
        next_us = waits.next_due(tx)
        left_s = LOOK_S if next_us is None else (next_us - tx.now_us) / 1_000_000
    if left_s > 0:
        return min(max(left_s, _TOGETHER_S), LOOK_S)
    woken = db.run("wait.wake", lambda tx: _wake_some(tx, dispatch))
    # If there was none, somebody else has them in hand.
    return 0.0 if woken else LOOK_S


def _wake_some(tx: Tx, dispatch: StoreDispatch) -> int:
    # No run is waited for with another in hand: others lock a run and then its parent. A breaker
    # may be, which changes a wait of another branch; should it want one of these, both try again.
    due = runs.lock_due(tx, tx.now_us, limit=_DUE_BATCH)
    return sum(dispatch.wake(tx, run) for run in due)


def pause_s(retry: Retry, failures: int) -> float:
    """Return the pause in seconds after the given number of failed attempts (1 or more).

    `min(max, initial * 2^(failures - 1))` times a factor drawn from 0.5 to 1.5, so that many runs
    that failed together do not come back together.
    """
    longest = min(retry.max_s, retry.initial_s * 2.0 ** min(failures - 1, 60))
    return longest * random.uniform(0.5, 1.5)  # noqa: S311  # spreads load, keeps no secret
