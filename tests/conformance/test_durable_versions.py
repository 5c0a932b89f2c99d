"""The port `Durable`: a run is never run by a worker that cannot run it."""

from __future__ import annotations

from interlock.calls.durable import Durable
from interlock.domain.canonical import Json
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import Run, RunState
from interlock.runtime.durable.engine import DbosEngine
from interlock.runtime.durable.versions import PATIENCE_S
from tests.conformance.durable_world import TIMEOUT_S, World

NEWER = 2


async def _say(durable: Durable) -> Json:
    return await durable.commit(StepName("say"), lambda _tx: "ran")


def given_up(world: World) -> Run:
    """Return a run that needs a newer worker than there is, once that was found out."""
    run_id = world.begin(_say, release=NEWER)
    if isinstance(world.engine, DbosEngine):
        with world.engine._moved:
            world.engine._moved.wait_for(lambda: is_refused(world, run_id), TIMEOUT_S)
        world.advance(PATIENCE_S)
    return world.until(run_id, RunState.WAITING)


def is_refused(world: World, run_id: RunId) -> bool:
    """Return whether the worker has looked at the run."""
    return run_id in world.versions._refused_us


def test_run_that_no_worker_can_run_waits_and_says_why(world: World) -> None:
    """Nothing of it runs; others are not held up."""
    waiting = given_up(world)

    assert (0, None, "version.missing/release format 2") == (
        waiting.epoch,
        waiting.executor_id,
        waiting.reason,
    )
    assert "ran" == world.output(world.begin(_say))


def test_run_goes_on_when_a_worker_starts_that_can_run_it(world: World) -> None:
    """Nobody has to wake it."""
    waiting = given_up(world)

    world.restart(release_format=NEWER)
    try:
        assert "ran" == world.output(waiting.run_id)
    finally:
        world.restart()


def test_run_that_no_worker_can_run_can_be_cancelled(world: World) -> None:
    """Ending a run takes none of what running it takes."""
    waiting = given_up(world)

    assert world.cancel(waiting.run_id)
    assert RunState.CANCELLED is world.until(waiting.run_id, RunState.CANCELLED).state
