"""Notes, rows of the journal that nobody waits for, and rows put away, on every engine."""

from __future__ import annotations

import asyncio
from functools import partial

from interlock.calls.durable import Durable
from interlock.domain.canonical import Json
from interlock.domain.errors import InputError
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import RunState
from interlock.store import journal, leases, runs
from interlock.store.tx import Tx
from tests.conformance.durable_world import World

ONE, TWO, NEXT = StepName("one"), StepName("two"), StepName("next")


def recorded(world: World, run_id: RunId) -> list[StepName]:
    """Return the names in the journal of a run, sorted."""
    with world.db.reading() as tx:
        return sorted(journal.load(tx, run_id))


def test_a_note_commits_with_the_next_write(world: World) -> None:
    """It has no transaction of its own, is in the order of its time, and is there at once after."""

    async def body(durable: Durable) -> Json:
        durable.note(ONE, lambda _tx: 1, kind="noted")

        def count(tx: Tx) -> Json:
            return len(journal.load(tx, durable.run.run_id))

        before = await durable.read(count)
        seen = await durable.commit(NEXT, count)
        entry = durable.recorded(ONE)
        return [before, seen, None if entry is None else entry.value]

    run_id = world.begin(body)

    assert [0, 1, 1] == world.output(run_id)
    assert [NEXT, ONE] == recorded(world, run_id)


def test_a_note_commits_at_the_latest_with_the_end(world: World) -> None:
    """What was noted last is in the transaction that ends the run, also of one that fails."""

    async def good(durable: Durable) -> Json:
        durable.note(ONE, lambda _tx: "kept", kind="noted")
        return None

    async def bad(durable: Durable) -> Json:
        durable.note(ONE, lambda _tx: "kept", kind="noted")
        raise InputError("no")

    ended, failed = world.begin(good), world.begin(bad)
    world.until(ended, RunState.SUCCEEDED)
    world.until(failed, RunState.FAILED)

    assert [[ONE], [ONE]] == [recorded(world, ended), recorded(world, failed)]


def test_a_note_outlives_a_write_that_fails(world: World) -> None:
    """Rolled back with it, the note goes with the write after that."""

    async def body(durable: Durable) -> Json:
        def fail(_tx: Tx) -> Json:
            raise InputError("no")

        durable.note(ONE, lambda _tx: 1, kind="noted")
        try:
            await durable.commit(TWO, fail)
        except InputError:
            await durable.commit(NEXT, lambda _tx: None)
        return None

    run_id = world.begin(body)
    world.until(run_id, RunState.SUCCEEDED)

    assert [NEXT, ONE] == recorded(world, run_id)


def test_a_fenced_owner_leaves_no_note(world: World) -> None:
    """The note of who lost the run is lost with it, and the next owner writes its own."""

    async def body(durable: Durable) -> Json:
        run_id, epoch = durable.run.run_id, durable.run.epoch
        durable.note(ONE, lambda _tx: epoch, kind="noted")
        if epoch == 1:

            def take_over(tx: Tx) -> None:
                owner = runs.get(tx, run_id).executor_id
                assert owner is not None
                leases.takeover(tx, owner, max_recoveries=3)
                world.engine.dispatch.hint(tx, run_id)

            await asyncio.to_thread(world.db.run, "test", take_over)
        await durable.commit(NEXT, lambda _tx: None)
        entry = durable.recorded(ONE)
        return None if entry is None else entry.value

    assert 3 == world.output(world.begin(body))


def test_notes_of_branches_are_each_written_once(world: World) -> None:
    """Writes of parallel branches take what others noted with them, and no row is written twice."""

    async def body(durable: Durable) -> Json:
        async def branch(number: int) -> Json:
            for turn in range(5):
                durable.note(StepName(f"note-{number}-{turn}"), lambda _tx: number, kind="noted")
                await durable.commit(StepName(f"write-{number}-{turn}"), lambda _tx: None)
            return number

        found = await durable.gather([partial(branch, number) for number in range(6)])
        return [item for item in found if isinstance(item, int)]

    run_id = world.begin(body)

    assert [0, 1, 2, 3, 4, 5] == world.output(run_id)
    assert 60 == len(recorded(world, run_id))


def test_what_was_put_away_is_kept_and_not_loaded(world: World) -> None:
    """With all below it, and only that; no later segment of the run reads it."""
    names = [ONE, StepName("one#below"), StepName("one-more"), TWO]

    async def body(durable: Durable) -> Json:
        for name in names:
            await durable.commit(name, lambda _tx: 1)
        await durable.put_away([ONE])
        return [name for name in names if durable.recorded(name) is not None]

    run_id = world.begin(body)

    assert ["one-more", "two"] == world.output(run_id)
    assert ["one-more", "two"] == recorded(world, run_id)
    with world.db.reading() as tx:
        assert set(names) == set(journal.find(tx, run_id, names))
        assert 1 == journal.count_past(tx, run_id, ending="#below")
