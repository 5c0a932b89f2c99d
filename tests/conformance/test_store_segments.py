"""Journal, waits, signals and leases: what a run records, waits for, and who works on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from sqlalchemy import update

from interlock.domain.errors import NotFoundError, StepNameReusedError
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import Abilities, JournalEntry, Run, RunState
from interlock.store import journal, leases, runs, waits
from interlock.store.engine import Database
from interlock.store.leases import Executor
from interlock.store.tables.runs import wait
from interlock.store.tx import Tx
from interlock.store.waits import Signal, Wait
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.store_race import both
from tests.conformance.store_rows import OTHER_WORKER, SECOND_US, WORKER, running

FIRST, SECOND = StepName("first"), StepName("second")
TTL_US = 20 * SECOND_US
ABLE = Abilities(release_format=2, functions=frozenset({"find"}))


def entry(name: StepName = FIRST, *, epoch: int = 1, at_us: int = START_US) -> JournalEntry:
    """Return a recorded value."""
    return JournalEntry(
        name=name,
        kind="step",
        value={"n": [1, 2.5, None]},
        error=None,
        input_digest="sha256:in",
        epoch=epoch,
        at_us=at_us,
    )


def test_journal_gives_back_what_was_recorded(db: Database) -> None:
    """Values, null values and errors come back by name, in the order recorded."""
    run = running(db)
    null = replace(entry(SECOND, at_us=START_US + 1), value=None, input_digest=None)
    failed = replace(
        entry(StepName("third"), at_us=START_US + 2),
        value=None,
        error={"code": "x", "message": "y"},
    )

    with db.transaction("put") as tx:
        for each in (failed, null, entry()):
            journal.put(tx, run.run_id, each)

    with db.reading() as tx:
        loaded = journal.load(tx, run.run_id)
    assert [entry(), null, failed] == list(loaded.values())
    assert [FIRST, SECOND, StepName("third")] == list(loaded)


def test_journal_refuses_a_name_twice(db: Database) -> None:
    """The first record of a name stays; the second raises."""
    run = running(db)
    db.run("put", lambda tx: journal.put(tx, run.run_id, entry()))

    with pytest.raises(StepNameReusedError, match="`first`"):
        db.run("put", lambda tx: journal.put(tx, run.run_id, replace(entry(), value=2)))

    with db.reading() as tx:
        assert {FIRST: entry()} == journal.load(tx, run.run_id)


def test_waits_are_opened_and_closed(db: Database, clock: ManualClock) -> None:
    """An open wait stays as it was opened first; a closed one is gone."""
    run = running(db)

    with db.transaction("open") as tx:
        waits.open_wait(tx, run.run_id, SECOND, "b", None)
        waits.open_wait(tx, run.run_id, FIRST, "a", START_US + 1)
    clock.advance(1)
    with db.transaction("again") as tx:
        waits.open_wait(tx, run.run_id, FIRST, "a", START_US + 9)
        before = waits.list_waits(tx, run.run_id)
        waits.close_all(tx, run.run_id)
        after = waits.list_waits(tx, run.run_id)

    first = Wait(run_id=run.run_id, name=FIRST, topic="a", due_us=START_US + 1, opened_us=START_US)
    second = replace(first, name=SECOND, topic="b", due_us=None)
    assert ([first, second], []) == (before, after)


def wait_until(db: Database, dues_us: Mapping[str, tuple[int | None, ...]]) -> dict[str, Run]:
    """Let runs wait for these times, and return them as they are then, by the keys."""
    found: dict[str, Run] = {}
    for key, times_us in dues_us.items():
        run = running(db, key)
        with db.transaction("park") as tx:
            for number, due_us in enumerate(times_us):
                waits.open_wait(tx, run.run_id, StepName(f"w{number}"), "t", due_us)
            found[key] = runs.park(tx, run.run_id, epoch=1, reason=None)
    return found


def test_due_runs_are_the_longest_overdue(db: Database) -> None:
    """Only runs a time of which has come, oldest due time first, each once, up to the limit."""
    now = START_US
    parked = wait_until(
        db,
        {
            "c": (now,),
            "a": (now - 9, now + 9),
            "b": (now - 5, now - 8),
            "never": (None,),
            "later": (now + 1,),
        },
    )
    busy = running(db, "busy")
    with db.transaction("due") as tx:
        waits.open_wait(tx, busy.run_id, FIRST, "t", now - 99)
        found = runs.lock_due(tx, now, limit=10)
        cut = runs.lock_due(tx, now, limit=1)
        first_us = waits.next_due(tx)

    assert [parked[key] for key in "abc"] == found
    assert ([parked["a"]], now - 99) == (cut, first_us)


def test_due_leaves_out_what_another_worker_holds(migrated_postgres_url: str) -> None:
    """Two sweeps at once on Postgres share the due runs; none waits for the other."""
    one, two = Database(migrated_postgres_url), Database(migrated_postgres_url)
    parked = wait_until(one, {"a": (1,), "b": (2,), "c": (3,)})

    with one.transaction("due") as tx:
        held = runs.lock_due(tx, 3, limit=1)
        # As a breaker does, which locks no run.
        changed = wait.c.run_id == parked["b"].run_id
        tx.connection.execute(update(wait).where(changed).values(due_us=3))
        # Another Database, since transactions of one Database must not nest in a thread.
        free = two.run("due", lambda other: runs.lock_due(other, 3, limit=9))

    assert [[parked["a"]], [parked["c"]]] == [held, free]
    one.close()
    two.close()


def test_signals_are_taken_in_order_and_once(db: Database) -> None:
    """Each take gives the oldest signal of its topic that was not taken; null is a value."""
    run = running(db)
    with db.transaction("send") as tx:
        assert waits.put_signal(tx, run.run_id, "a", {"n": 1}, "1")
        assert waits.put_signal(tx, run.run_id, "b", 2, "2")
        assert waits.put_signal(tx, run.run_id, "a", None, "3")

    with db.transaction("take") as tx:
        has = waits.has_signal(tx, run.run_id, "a")
        taken = [waits.take_signal(tx, run.run_id, "a", by=FIRST) for _ in range(3)]
        has_more = waits.has_signal(tx, run.run_id, "a")
        other = waits.take_signal(tx, run.run_id, "b", by=SECOND)

    values = [None if signal is None else (signal.value,) for signal in [*taken, other]]
    assert [({"n": 1},), (None,), None, (2,)] == values
    assert (True, False) == (has, has_more)
    assert isinstance(taken[1], Signal)


def test_signal_is_sent_once_per_key(db: Database) -> None:
    """A second signal with the same key is refused and changes nothing."""
    run = running(db)

    with db.transaction("send") as tx:
        sent = [waits.put_signal(tx, run.run_id, "a", n, "same") for n in (1, 2)]
        taken = waits.take_signal(tx, run.run_id, "a", by=FIRST)

    assert ([True, False], 1) == (sent, taken and taken.value)


def test_a_key_stays_with_the_run_that_it_was_sent_to(db: Database) -> None:
    """Also after the signal was taken; the same key to another run is another signal."""
    run, other = running(db), running(db, "other")
    with db.transaction("send") as tx:
        waits.put_signal(tx, run.run_id, "a", 1, "taken")
        waits.put_signal(tx, run.run_id, "b", None, "kept")
        waits.put_signal(tx, other.run_id, "b", None, "kept")
        waits.take_signal(tx, run.run_id, "a", by=FIRST)

    asked = ["taken", "kept", "never"]
    with db.reading() as tx:
        sent = [waits.sent(tx, each.run_id, asked) for each in (run, other)]
    assert [{"taken", "kept"}, {"kept"}] == sent


def test_signal_goes_to_one_of_two_waits(db: Database) -> None:
    """Of two takes at once, under the lock of the run, one gets the signal."""
    run = running(db)
    db.run("send", lambda tx: waits.put_signal(tx, run.run_id, "a", 1, "k"))

    def take(tx: Tx) -> Signal | None:
        runs.lock(tx, run.run_id, epoch=1)
        return waits.take_signal(tx, run.run_id, "a", by=FIRST)

    taken = both(db, take)

    assert 1 == sum(signal is not None for signal in taken)


def register(tx: Tx) -> Executor:
    """Register the first worker."""
    return leases.register(
        tx, WORKER, host="h", pid=7, pid_started="123", ttl_us=TTL_US, abilities=ABLE
    )


def test_lease_is_renewed_from_now(db: Database, clock: ManualClock) -> None:
    """A worker's lease ends a fixed time after its last renewal; a removed worker cannot renew."""
    registered = db.run("register", register)
    clock.advance(5)

    with db.transaction("renew") as tx:
        is_renewed = leases.renew(tx, WORKER, ttl_us=TTL_US, is_draining=True)
        listed = leases.list_executors(tx)
        is_removed = [leases.remove(tx, WORKER) for _ in range(2)]
        is_renewed_later = leases.renew(tx, WORKER, ttl_us=TTL_US)

    first = Executor(
        executor_id=WORKER,
        host="h",
        pid=7,
        pid_started="123",
        started_us=START_US,
        lease_end_us=START_US + TTL_US,
        abilities=ABLE,
    )
    end_us = START_US + 5 * SECOND_US + TTL_US
    assert first == registered
    assert [replace(first, lease_end_us=end_us, is_draining=True)] == listed
    assert (True, [True, False], False) == (is_renewed, is_removed, is_renewed_later)


def test_workers_that_can_run_something_are_found(db: Database, clock: ManualClock) -> None:
    """One that lacks a part, is about to leave, or whose lease is over cannot."""
    needed = [
        ABLE,
        Abilities(release_format=2),
        Abilities(release_format=3),
        Abilities(functions=frozenset({"find", "make"})),
    ]

    def able() -> list[int]:
        with db.reading() as tx:
            return [len(leases.list_able(tx, each)) for each in needed]

    db.run("register", register)
    fresh = able()
    db.run("renew", lambda tx: leases.renew(tx, WORKER, ttl_us=TTL_US, is_draining=True))
    draining = able()
    db.run("renew", lambda tx: leases.renew(tx, WORKER, ttl_us=TTL_US))
    clock.advance(21)

    assert ([1, 1, 0, 0], [0] * 4, [0] * 4) == (fresh, draining, able())


def test_run_waits_for_a_version_only_from_the_queue(db: Database) -> None:
    """It is found by its reason, says what is missing, and keeps its segment for later."""
    run = running(db)
    with db.transaction("test") as tx:
        too_late = runs.miss_version(tx, run.run_id, what="x")
        runs.requeue(tx, run.run_id, state=RunState.RUNNING, epoch=run.epoch)
        waiting = runs.miss_version(tx, run.run_id, what="function find")
        found = runs.list_missing_version(tx)

    assert waiting is not None
    assert (None, [waiting], run.segment) == (too_late, found, waiting.segment)
    assert (RunState.WAITING, "version.missing/function find") == (waiting.state, waiting.reason)


def test_takeover_fences_and_queues_what_the_dead_owned(db: Database) -> None:
    """Each run of the dead worker gets a new epoch; its old owner is fenced; others are left."""
    run = running(db)
    ended = running(db, "k2")
    db.run("finish", lambda tx: runs.finish(tx, ended.run_id, epoch=1, state=RunState.SUCCEEDED))
    with db.reading() as tx:
        owned = leases.owned_runs(tx, WORKER)

    foreign = db.run("takeover", lambda tx: leases.takeover(tx, OTHER_WORKER, max_recoveries=3))
    taken = db.run("takeover", lambda tx: leases.takeover(tx, WORKER, max_recoveries=3))

    queued = replace(run, state=RunState.QUEUED, epoch=2, recoveries=1, executor_id=None)
    assert ([run], [], [queued]) == (owned, foreign, taken)


def test_takeover_from_an_owner_that_nobody_saw_end_is_remembered(db: Database) -> None:
    """When it was stays on the run, also when its next owner is seen to end."""
    run = running(db)

    with db.transaction("takeover") as tx:
        (lost,) = leases.takeover(tx, WORKER, max_recoveries=3, was_seen=False)
        now_us = tx.now_us
    db.run("claim", lambda tx: runs.claim(tx, run.run_id, segment=0, executor_id=WORKER))
    (again,) = db.run("takeover", lambda tx: leases.takeover(tx, WORKER, max_recoveries=3))

    assert (None, now_us, now_us) == (run.lost_us, lost.lost_us, again.lost_us)


def crash(db: Database, run_id: RunId) -> RunState:
    """Let the worker that owns a run die, and claim the run again if it is queued."""
    (run,) = db.run("takeover", lambda tx: leases.takeover(tx, WORKER, max_recoveries=3))
    db.run("claim", lambda tx: runs.claim(tx, run_id, segment=0, executor_id=WORKER))
    return run.state


def test_run_that_kills_its_workers_is_dead_lettered(db: Database) -> None:
    """After three recoveries without anything recorded, a run is set aside with the reason."""
    run = running(db)

    states = [crash(db, run.run_id) for _ in range(4)]

    assert [RunState.QUEUED] * 3 + [RunState.DEAD_LETTERED] == states
    with db.reading() as tx:
        dead = runs.get(tx, run.run_id)
    assert (RunState.DEAD_LETTERED, "recoveries", None) == (dead.state, dead.reason, dead.ended_us)


def test_recording_a_step_starts_the_count_anew(db: Database) -> None:
    """Recoveries count since the last recorded step."""
    run = running(db)
    for _ in range(3):
        crash(db, run.run_id)
    with db.transaction("put") as tx:
        now = runs.get(tx, run.run_id)
        journal.put(tx, run.run_id, entry(epoch=now.epoch))

    states = [crash(db, run.run_id) for _ in range(3)]

    assert [RunState.QUEUED] * 3 == states


def test_waiting_starts_the_count_anew(db: Database) -> None:
    """A run that got as far as to wait does not kill its workers."""
    run = running(db)
    for _ in range(3):
        crash(db, run.run_id)
    with db.transaction("park") as tx:
        now = runs.get(tx, run.run_id)
        runs.park(tx, run.run_id, epoch=now.epoch, reason=None)
        runs.requeue(tx, run.run_id, state=RunState.WAITING, epoch=now.epoch)
        runs.claim(tx, run.run_id, segment=1, executor_id=WORKER)

    (after,) = db.run("takeover", lambda tx: leases.takeover(tx, WORKER, max_recoveries=3))

    assert (RunState.QUEUED, 1) == (after.state, after.recoveries)


def test_only_one_leads(db: Database, clock: ManualClock) -> None:
    """A leader stays by renewing; another one leads once the lease is over."""

    def lead(worker: str) -> bool:
        executor_id = WORKER if worker == "one" else OTHER_WORKER
        return db.run("lead", lambda tx: leases.take_leadership(tx, "sweep", executor_id, TTL_US))

    got = [lead("one"), lead("two"), lead("one")]
    clock.advance(21)
    got += [lead("two"), lead("one")]

    assert [True, False, True, True, False] == got


def test_signal_needs_a_run(db: Database) -> None:
    """Whoever signals locks the run first, so a signal to no run is found out there."""
    with db.transaction("send") as tx, pytest.raises(NotFoundError):
        runs.lock_any(tx, RunId("absent"))
