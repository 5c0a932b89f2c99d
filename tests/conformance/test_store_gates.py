"""Gates in the store: who gets in, who is passed over, and who is next."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from interlock.domain.ids import RunId, StepName, TenantId, WorkflowName
from interlock.store import gates, runs
from interlock.store.engine import Database
from interlock.store.gates import Ask, FullGate
from interlock.store.tx import Tx
from interlock.testing.clock import ManualClock
from tests.conformance.store_race import both
from tests.conformance.store_rows import accepted, running

GATE = StepName("#gate")


def asking(db: Database, key: str, *keys: str) -> Ask:
    """Return what a new run asks for: these keys, one place each."""
    return Ask(
        run_id=running(db, key).run_id,
        name=GATE,
        keys=dict.fromkeys(keys, 1),
        priority=4,
        tenant=TenantId("default"),
    )


def ask(db: Database, *wanted: Ask) -> list[list[RunId]]:
    """Ask one after the other; return who was let in each time."""
    return [db.run("ask", partial(gates.ask, wanted=each)) for each in wanted]


def free(db: Database, wanted: Ask) -> list[RunId]:
    """Let a run leave all its gates; return who was let in."""
    return db.run("free", lambda tx: gates.free(tx, wanted.run_id))


def test_first_gets_in_and_asking_again_changes_nothing(db: Database) -> None:
    """A second run waits for the first, and sees who that is."""
    one, two = asking(db, "1", "a"), asking(db, "2", "a")

    entered = ask(db, one, one, two, two)

    with db.reading() as tx:
        held = [gates.is_held(tx, each.run_id, GATE) for each in (one, two)]
        full = [gates.list_full(tx, each.run_id) for each in (one, two)]
    assert [[one.run_id], [one.run_id], [], []] == entered
    assert [True, False] == held
    assert [[], [FullGate(key="a", places=1, holders=(one.run_id,))]] == full


def test_leaving_lets_in_who_is_next(db: Database, clock: ManualClock) -> None:
    """Highest priority, then the tenant that waited longest for a turn, then who asked first."""
    holder = asking(db, "holder", "a")
    plan = [("x1", "x", 4), ("x2", "x", 4), ("y1", "y", 4), ("x3", "x", 9), ("y2", "y", 4)]
    queued = {
        name: replace(asking(db, name, "a"), tenant=TenantId(tenant), priority=priority)
        for name, tenant, priority in plan
    }
    names = {wanted.run_id: name for name, wanted in queued.items()}
    ask(db, holder)
    for wanted in queued.values():
        clock.advance(1)
        ask(db, wanted)

    order, leaving = [], holder
    while entered := free(db, leaving):
        order += [names[run_id] for run_id in entered]
        leaving = queued[order[-1]]

    assert ["x3", "y1", "x1", "y2", "x2"] == order


def test_who_needs_another_full_gate_is_passed_over(db: Database) -> None:
    """No run holds one of two keys while it waits for the other."""
    one, both_keys, two = asking(db, "1", "a"), asking(db, "2", "a", "b"), asking(db, "3", "b")

    entered = ask(db, one, both_keys, two)
    after = [free(db, one), free(db, two)]

    assert [[one.run_id], [], [two.run_id]] == entered
    assert [[], [both_keys.run_id]] == after


def test_newest_limit_counts_for_all_who_wait(db: Database) -> None:
    """A limit that is raised lets in who waits already."""
    one, two, three = (asking(db, name, "a") for name in "123")
    ask(db, one, two)

    entered = ask(db, replace(three, keys={"a": 3}))

    assert [[two.run_id, three.run_id]] == entered


def test_kept_gates_stay_when_the_rest_is_left(db: Database) -> None:
    """A pause frees what is not to be kept."""
    kept, left = asking(db, "1", "a"), asking(db, "2", "b")
    ask(db, replace(kept, is_kept=True), left)

    with db.transaction("leave") as tx:
        for each in (kept, left):
            gates.free(tx, each.run_id, with_kept=False)
        held = [gates.is_held(tx, each.run_id, GATE) for each in (kept, left)]

    assert [True, False] == held


def test_who_has_no_gates_locks_none(db: Database) -> None:
    """The end of a run without gates waits for no other run."""
    one, other = asking(db, "1", "a"), asking(db, "2", "a")
    ask(db, one)

    with db.transaction("lock") as tx:
        assert [True, False] == [gates.lock_of(tx, each.run_id) for each in (one, other)]


def test_last_place_is_given_once(db: Database) -> None:
    """Of two runs that ask at the same time one waits."""
    wanted = [asking(db, name, "a") for name in "12"]
    left = list(wanted)

    def take(tx: Tx) -> list[RunId]:
        gates.lock(tx)
        return gates.ask(tx, left.pop())

    entered = both(db, take)

    assert 1 == sum(len(each) for each in entered)


def test_queued_are_those_that_have_yet_to_begin(db: Database) -> None:
    """Runs that are queued or at a gate count; those that run or wait for a person do not."""
    going = [running(db, name) for name in ("runs", "waits", "at-gate")]
    for run in (going[0], going[2]):
        wanted = Ask(
            run_id=run.run_id,
            name=GATE,
            keys={"a": 1, "b": 1},
            priority=4,
            tenant=run.request.tenant,
        )
        ask(db, wanted)
    with db.transaction("stand") as tx:
        queued = accepted(tx, "queued")
        runs.park(tx, going[1].run_id, epoch=1, reason="approval/1")
        runs.park(tx, going[2].run_id, epoch=1, reason="gate/a")
        asked = partial(runs.has_queued, tx, queued.request.tenant)
        found = [asked(queued.request.workflow, more_than=most) for most in (1, 2)]
        other = asked(WorkflowName("other"), more_than=0)

    assert ([True, False], False) == (found, other)
