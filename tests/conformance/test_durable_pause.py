"""The port `Durable`: runs that people pause and resume, wherever they are."""

from __future__ import annotations

import asyncio

from interlock.calls.durable import Durable
from interlock.domain.canonical import Json
from interlock.domain.ids import StepName
from interlock.domain.run import Expired, RunState
from interlock.store import journal, waits
from tests.conformance.durable_world import World


async def _hear(durable: Durable) -> Json:
    start_us = await durable.now_us(StepName("start"))
    answer = await durable.wait(StepName("hear"), "go", until_us=start_us + 60_000_000)
    return "expired" if isinstance(answer, Expired) else answer


def test_pause_stops_the_run_at_its_next_operation(world: World) -> None:
    """What has begun is recorded; nothing further starts until the run is resumed."""

    async def body(durable: Durable) -> Json:
        with durable.in_flight():
            if durable.recorded(StepName("outcome")) is None:
                await asyncio.to_thread(world.pause, durable.run.run_id)
            await durable.commit(StepName("outcome"), lambda _tx: "kept")
        return await durable.commit(StepName("next"), lambda _tx: "went on")

    run_id = world.begin(body)
    paused = world.until(run_id, RunState.PAUSED, RunState.SUCCEEDED)
    with world.db.reading() as tx:
        recorded = list(journal.load(tx, run_id))

    assert (RunState.PAUSED, None, ["outcome"]) == (paused.state, paused.executor_id, recorded)
    assert world.resume(run_id)
    assert "went on" == world.output(run_id)


def test_pause_cannot_be_caught(world: World) -> None:
    """Code that swallows every error is paused all the same, and runs again when resumed."""

    async def body(durable: Durable) -> Json:
        is_first = durable.run.segment == 0
        if is_first:
            await asyncio.to_thread(world.pause, durable.run.run_id)
        try:
            await durable.now_us(StepName("time"))
        except Exception:  # noqa: BLE001  # as badly behaved code does
            return "survived"
        return "resumed"

    run_id = world.begin(body)
    world.until(run_id, RunState.PAUSED)
    world.resume(run_id)

    assert "resumed" == world.output(run_id)


def test_paused_run_keeps_signals_and_wakes_for_none(world: World) -> None:
    """A signal to a run that was paused while it waited is found when it goes on."""
    run_id = world.begin(_hear)
    world.until(run_id, RunState.WAITING)

    assert world.pause(run_id)
    assert world.signal(run_id, "go", "heard")
    with world.db.reading() as tx:
        left = waits.list_waits(tx, run_id)
    world.engine.wake()

    assert (RunState.PAUSED, []) == (world.get(run_id).state, left)
    assert world.resume(run_id)
    assert "heard" == world.output(run_id)


def test_time_goes_on_for_a_paused_run(world: World) -> None:
    """A wait that ran out during the pause has expired when the run is resumed."""
    run_id = world.begin(_hear)
    world.until(run_id, RunState.WAITING)
    world.pause(run_id)
    world.advance(61)

    assert RunState.PAUSED is world.get(run_id).state
    world.resume(run_id)
    assert "expired" == world.output(run_id)


def test_paused_run_can_be_cancelled(world: World) -> None:
    """A cancel needs no resume before it."""
    run_id = world.begin(_hear)
    world.until(run_id, RunState.WAITING)
    world.pause(run_id)

    assert world.cancel(run_id)
    assert RunState.CANCELLED is world.until(run_id, RunState.CANCELLED).state


def test_pause_and_resume_say_whether_they_did_anything(world: World) -> None:
    """Only what is live can be paused, and only what stands still resumed."""
    run_id = world.begin(_hear)
    world.until(run_id, RunState.WAITING)

    found = [world.resume(run_id), world.pause(run_id), world.pause(run_id), world.resume(run_id)]
    world.signal(run_id, "go", "heard")
    world.until(run_id, RunState.SUCCEEDED)

    assert [False, True, False, True] == found
    assert (False, False) == (world.pause(run_id), world.resume(run_id))
