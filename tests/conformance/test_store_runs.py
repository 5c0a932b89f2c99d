"""Triggers and runs: one event one run, and every change of a run by compare-and-set."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from interlock.domain.errors import DedupeConflictError, FencedError, NotFoundError
from interlock.domain.ids import RunId, TenantId
from interlock.domain.label import Labels
from interlock.domain.run import Run, RunState
from interlock.store import runs, triggers, waits
from interlock.store.engine import Database
from interlock.store.triggers import Schedule, TriggerEvent
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.store_race import both
from tests.conformance.store_rows import (
    HOUR_US,
    OTHER_WORKER,
    SECOND_US,
    TENANT,
    WORKER,
    WORKFLOW,
    accepted,
    request,
    running,
)

ABSENT = RunId("absent")


def test_accepted_event_becomes_a_queued_run(db: Database) -> None:
    """The run keeps everything of its request; its root is itself; nobody owns it."""
    run_id, is_new = db.run(
        "accept", lambda tx: triggers.accept(tx, request(), body_digest="sha256:1")
    )

    with db.reading() as tx:
        run, event = runs.get(tx, run_id), triggers.get_event(tx, "desk", "k1")
    expected = Run(
        run_id=run_id,
        request=replace(request(), root_id=run_id),
        state=RunState.QUEUED,
        epoch=0,
        segment=0,
        recoveries=0,
        created_us=START_US,
        labels=Labels(names=frozenset({"internal"})),
    )
    assert (True, expected) == (is_new, run)
    assert event == TriggerEvent(
        source="desk",
        dedupe_key="k1",
        kind="webhook",
        body_digest="sha256:1",
        run_id=run_id,
        at_us=START_US,
    )


def test_same_event_again_gives_the_first_run(db: Database) -> None:
    """A redelivery starts nothing and is told the first run's id."""
    first, _ = db.run("accept", lambda tx: triggers.accept(tx, request(), body_digest="d"))

    again = db.run("accept", lambda tx: triggers.accept(tx, request(), body_digest="d"))

    assert (first, False) == again
    with db.reading() as tx:
        assert [first] == [run.run_id for run in runs.list_runs(tx)]


def test_same_key_with_another_body_is_refused(db: Database) -> None:
    """A key that came before with another body raises, and no run starts."""
    db.run("accept", lambda tx: triggers.accept(tx, request(), body_digest="d"))

    with pytest.raises(DedupeConflictError, match="another body"):
        db.run("accept", lambda tx: triggers.accept(tx, request(), body_digest="e"))

    with db.reading() as tx:
        assert 1 == len(runs.list_runs(tx))


def test_event_delivered_twice_at_once_starts_one_run(db: Database) -> None:
    """Two deliveries that race give the same run, new for exactly one of them."""
    (one, is_new_one), (two, is_new_two) = both(
        db, lambda tx: triggers.accept(tx, request(), body_digest="d")
    )

    assert (one, {True, False}) == (two, {is_new_one, is_new_two})


def test_unknown_event_is_not_found(db: Database) -> None:
    """`get_event` raises and `find_event` is None for what never came."""
    with db.reading() as tx:
        assert triggers.find_event(tx, "desk", "k1") is None
        with pytest.raises(NotFoundError):
            triggers.get_event(tx, "desk", "k1")


def test_schedule_is_kept(db: Database) -> None:
    """A schedule starts now, as it was declared, and is then as it was put last."""
    look = partial(triggers.lock_schedule, workflow=WORKFLOW, trigger="nightly", is_paused=True)
    before = db.run("look", look)

    for is_paused in (False, True):
        with db.transaction("put") as tx:
            triggers.put_schedule(tx, WORKFLOW, "nightly", is_paused=is_paused, last_tick_us=5)

    first = Schedule(workflow=WORKFLOW, trigger="nightly", is_paused=True, last_tick_us=START_US)
    after = replace(first, last_tick_us=5)
    with db.reading() as tx:
        listed = triggers.list_schedules(tx)
    assert (first, after, [after]) == (before, db.run("look", look), listed)


def test_unknown_run_is_not_found(db: Database) -> None:
    """`find` gives None for a run that does not exist; the others raise."""
    with db.transaction("read") as tx:
        assert runs.find(tx, ABSENT) is None
        for ask in (runs.get, runs.lock_any):
            with pytest.raises(NotFoundError):
                ask(tx, ABSENT)
        with pytest.raises(NotFoundError):
            runs.lock(tx, ABSENT, epoch=1)


def test_claim_gives_a_new_epoch(db: Database, clock: ManualClock) -> None:
    """A claim owns a queued run; a later claim of a later segment keeps the first start."""
    run = db.run("accept", accepted)
    first = db.run("claim", lambda tx: runs.claim(tx, run.run_id, segment=0, executor_id=WORKER))
    assert first is not None
    db.run("park", lambda tx: runs.park(tx, run.run_id, epoch=1, reason="approval"))
    clock.advance(1)
    db.run("wake", lambda tx: runs.requeue(tx, run.run_id, state=RunState.WAITING, epoch=1))

    second = db.run(
        "claim", lambda tx: runs.claim(tx, run.run_id, segment=1, executor_id=OTHER_WORKER)
    )

    claimed = replace(run, state=RunState.RUNNING, epoch=1, executor_id=WORKER, started_us=START_US)
    assert claimed == first
    assert replace(claimed, epoch=2, segment=1, executor_id=OTHER_WORKER) == second


def test_stale_hint_claims_nothing(db: Database) -> None:
    """A hint for another segment, or for a run that is owned already, is None."""
    run = running(db)
    queued = db.run("accept", lambda tx: accepted(tx, "k2"))

    with db.transaction("claim") as tx:
        assert runs.claim(tx, run.run_id, segment=0, executor_id=OTHER_WORKER) is None
        assert runs.claim(tx, queued.run_id, segment=1, executor_id=OTHER_WORKER) is None


def test_two_workers_cannot_claim_one_run(db: Database) -> None:
    """Of two claims at once exactly one owns the run."""
    run = db.run("accept", accepted)

    claims = both(db, lambda tx: runs.claim(tx, run.run_id, segment=0, executor_id=WORKER))

    assert 1 == sum(claim is not None for claim in claims)


def test_only_the_owner_may_lock(db: Database) -> None:
    """A run is locked with its own epoch while it runs; anything else is fenced."""
    run = running(db)

    with db.transaction("lock") as tx:
        assert run == runs.lock(tx, run.run_id, epoch=1)
        with pytest.raises(FencedError, match="epoch 2"):
            runs.lock(tx, run.run_id, epoch=2)
    db.run("park", lambda tx: runs.park(tx, run.run_id, epoch=1, reason=None))
    with db.transaction("lock") as tx, pytest.raises(FencedError):
        runs.lock(tx, run.run_id, epoch=1)


@pytest.mark.parametrize("epoch", [0, 2])
def test_fenced_owner_changes_nothing(db: Database, epoch: int) -> None:
    """Each change by an owner of another epoch raises `FencedError` and leaves the row."""
    run = running(db)
    id_ = run.run_id

    def finish(tx: Tx) -> Run:
        return runs.finish(tx, id_, epoch=epoch, state=RunState.FAILED)

    for change in (
        finish,
        lambda tx: runs.park(tx, id_, epoch=epoch, reason="x"),
        lambda tx: runs.begin_compensating(tx, id_, epoch=epoch),
    ):
        with pytest.raises(FencedError):
            db.run("change", change)

    with db.reading() as tx:
        assert run == runs.get(tx, id_)


def test_finished_run_keeps_how_it_ended(db: Database, clock: ManualClock) -> None:
    """The end has state, output, end state, error and time; owner, reason and waits are gone."""
    run = running(db)
    clock.advance(1)

    def finish(tx: Tx) -> Run:
        waits.open_wait(tx, run.run_id, "w", "topic", None)  # type: ignore[arg-type]
        runs.begin_compensating(tx, run.run_id, epoch=1)
        return runs.finish(
            tx,
            run.run_id,
            epoch=1,
            state=RunState.FAILED,
            output={"n": 1},
            end_state="routed",
            error_code="x.y",
            error_message="why",
        )

    ended = db.run("finish", finish)

    assert ended == replace(
        run,
        state=RunState.FAILED,
        executor_id=None,
        ended_us=START_US + SECOND_US,
        output={"n": 1},
        end_state="routed",
        error_code="x.y",
        error_message="why",
    )
    with db.reading() as tx:
        assert (ended, []) == (runs.get(tx, run.run_id), waits.list_waits(tx, run.run_id))


def test_parked_run_waits_in_its_next_segment(db: Database) -> None:
    """Parking frees the run from its worker and raises the segment."""
    run = running(db)

    parked = db.run("park", lambda tx: runs.park(tx, run.run_id, epoch=1, reason="approval"))

    expected = replace(run, state=RunState.WAITING, segment=1, executor_id=None, reason="approval")
    assert expected == parked


def test_requeue_needs_the_state_and_the_epoch(db: Database) -> None:
    """A run is queued again only from a named state, and only in the named epoch."""
    run = running(db)

    with db.transaction("requeue") as tx:
        wrong_state = runs.requeue(tx, run.run_id, state=RunState.WAITING, epoch=1)
        wrong_epoch = runs.requeue(tx, run.run_id, state=RunState.RUNNING, epoch=2)
        queued = runs.requeue(tx, run.run_id, state=RunState.RUNNING, epoch=1)

    assert (None, None) == (wrong_state, wrong_epoch)
    assert replace(run, state=RunState.QUEUED, executor_id=None) == queued


def test_labels_are_only_raised(db: Database) -> None:
    """New labels join those that the run has."""
    run = running(db)
    pii = Labels(names=frozenset({"pii"}), tenants=frozenset({"acme"}), is_untrusted=True)

    with db.transaction("labels") as tx:
        runs.raise_labels(tx, run.run_id, pii)
        union = runs.raise_labels(tx, run.run_id, Labels())

    expected = Labels(
        names=frozenset({"internal", "pii"}), tenants=frozenset({"acme"}), is_untrusted=True
    )
    assert expected == union
    with db.reading() as tx:
        assert expected == runs.get(tx, run.run_id).labels


def test_labels_raised_at_once_are_all_kept(db: Database) -> None:
    """Two transactions that raise different labels do not overwrite each other."""
    run = running(db)
    names = iter(["pii", "secret"])

    both(db, lambda tx: runs.raise_labels(tx, run.run_id, Labels(names=frozenset({next(names)}))))

    with db.reading() as tx:
        assert {"internal", "pii", "secret"} == runs.get(tx, run.run_id).labels.names


def test_cancel_is_asked_of_live_runs_only(db: Database) -> None:
    """A live run is marked; one that has ended gives None."""
    run = running(db)

    asked = db.run("cancel", lambda tx: runs.request_cancel(tx, run.run_id))
    db.run("finish", lambda tx: runs.finish(tx, run.run_id, epoch=1, state=RunState.CANCELLED))
    again = db.run("cancel", lambda tx: runs.request_cancel(tx, run.run_id))

    assert (replace(run, is_cancel_requested=True), None) == (asked, again)


def test_runs_are_listed_newest_first(db: Database, clock: ManualClock) -> None:
    """Filters by tenant, workflow, state and time narrow the list; the limit cuts it."""
    made = []
    for key in ("k1", "k2", "k3"):
        made.append(running(db, key).run_id)
        clock.advance(1)
    db.run("finish", lambda tx: runs.finish(tx, made[0], epoch=1, state=RunState.SUCCEEDED))

    with db.reading() as tx:
        lists = {
            "all": runs.list_runs(tx, tenant=TENANT, workflow=WORKFLOW),
            "running": runs.list_runs(tx, states=(RunState.RUNNING,)),
            "ended": runs.list_runs(tx, states=(RunState.SUCCEEDED, RunState.FAILED)),
            "before": runs.list_runs(tx, before_us=START_US + 2 * SECOND_US),
            "limit": runs.list_runs(tx, limit=1),
            "foreign": runs.list_runs(tx, tenant=TenantId("other")),
        }
        counts = runs.count_by_state(tx)

    one, two, three = made
    assert {name: [run.run_id for run in found] for name, found in lists.items()} == {
        "all": [three, two, one],
        "running": [three, two],
        "ended": [one],
        "before": [two, one],
        "limit": [three],
        "foreign": [],
    }
    assert {RunState.RUNNING: 2, RunState.SUCCEEDED: 1} == counts


def test_run_tree_is_read_from_any_side(db: Database, clock: ManualClock) -> None:
    """Children, descendants, ancestors (nearest first) and the whole tree, oldest first."""
    root = running(db)
    clock.advance(1)
    child = running(db, "k2", parent=root)
    clock.advance(1)
    grandchild = running(db, "k3", parent=child)
    running(db, "k4")

    with db.reading() as tx:
        assert [child] == runs.children(tx, root.run_id)
        assert [child, grandchild] == runs.descendants(tx, root.run_id)
        assert [child.run_id, root.run_id] == runs.ancestors(tx, grandchild.run_id)
        assert [] == runs.ancestors(tx, root.run_id)
        assert [root, child, grandchild] == runs.tree(tx, root.run_id)
    assert (root.run_id, 2) == (grandchild.request.root_id, grandchild.request.depth)
    assert grandchild.request.deadline_us == START_US + HOUR_US
