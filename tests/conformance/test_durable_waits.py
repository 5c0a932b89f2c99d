"""The port `Durable`: waits, signals and sleeps, which cost nothing and lose nothing."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from interlock.calls.durable import Durable
from interlock.domain.canonical import Json
from interlock.domain.errors import InputError, NotFoundError
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import Expired, RunState
from interlock.store.tx import Tx
from tests.conformance.durable_world import TIMEOUT_S, World


async def _hear_one(durable: Durable) -> Json:
    answer = await durable.wait(StepName("hear"), "go", until_us=None)
    return {"answer": None if isinstance(answer, Expired) else answer}


async def _hear_or_expire(durable: Durable) -> Json:
    start_us = await durable.now_us(StepName("start"))
    answer = await durable.wait(StepName("hear"), "go", until_us=start_us + 60_000_000)
    return "expired" if isinstance(answer, Expired) else answer


def test_wait_returns_what_was_sent(world: World) -> None:
    """A waiting run goes on with the value of the signal, which may be null."""
    run_id = world.begin(_hear_one)
    world.until(run_id, RunState.WAITING)

    assert world.signal(run_id, "go", None)
    assert {"answer": None} == world.output(run_id)


def test_signal_sent_before_the_wait_is_kept(world: World) -> None:
    """A run that has not come to its wait yet finds the signal when it does."""

    async def body(durable: Durable) -> Json:
        await durable.wait(StepName("first"), "first", until_us=None)
        return await _hear_one(durable)

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    world.signal(run_id, "go", "early")
    still = world.get(run_id).state
    world.signal(run_id, "first", None)

    assert {"answer": "early"} == world.output(run_id)
    assert RunState.WAITING is still


def test_waits_get_the_oldest_signal_first_and_each_its_own(world: World) -> None:
    """Signals of one topic are given out in the order they were sent, each to one wait."""

    async def body(durable: Durable) -> Json:
        await durable.wait(StepName("start"), "start", until_us=None)
        return [
            str(await durable.wait(StepName(f"hear/{n}"), "go", until_us=None)) for n in range(3)
        ]

    run_id = world.begin(body)
    for value in ("a", "b", "c"):
        world.signal(run_id, "go", value)
    world.signal(run_id, "start", None)

    assert ["a", "b", "c"] == world.output(run_id)


def test_signal_is_deduplicated_by_its_key(world: World) -> None:
    """The second signal with the same key is refused and never delivered."""

    async def body(durable: Durable) -> Json:
        first = await durable.wait(StepName("one"), "go", until_us=None)
        second = await durable.wait(StepName("two"), "go", until_us=None)
        return [str(first), str(second)]

    run_id = world.begin(body)
    sent = [
        world.signal(run_id, "go", "a", key="k1"),
        world.signal(run_id, "go", "again", key="k1"),
        world.signal(run_id, "go", "b", key="k2"),
    ]

    assert ["a", "b"] == world.output(run_id)
    assert [True, False, True] == sent


def test_signal_takes_effect_only_if_its_transaction_commits(world: World) -> None:
    """A signal that is rolled back neither wakes the run nor is found later."""
    run_id = world.begin(_hear_one)
    world.until(run_id, RunState.WAITING)

    def send_and_fail(tx: Tx) -> None:
        world.engine.dispatch.signal(tx, run_id, "go", "lost", dedupe_key="k")
        raise InputError("rolled back")

    with pytest.raises(InputError):
        world.db.run("test", send_and_fail)
    state = world.get(run_id).state
    world.signal(run_id, "go", "kept", key="k")

    assert RunState.WAITING is state
    assert {"answer": "kept"} == world.output(run_id)


def test_signal_to_an_unknown_run_is_refused(world: World) -> None:
    """There is nobody to keep it for."""
    with pytest.raises(NotFoundError):
        world.signal(RunId("no-such-run"), "go", None)


def test_wait_expires_at_its_time(world: World) -> None:
    """Nothing came until database time reached the limit, and not a second earlier."""
    run_id = world.begin(_hear_or_expire)
    world.until(run_id, RunState.WAITING)
    world.advance(59)
    before = world.get(run_id).state
    world.advance(1)

    assert RunState.WAITING is before
    assert "expired" == world.output(run_id)


def test_signal_before_the_time_is_over_wins(world: World) -> None:
    """A wait with a limit returns the signal, and its due time wakes nothing later."""
    run_id = world.begin(_hear_or_expire)
    world.until(run_id, RunState.WAITING)
    world.advance(30)
    world.signal(run_id, "go", "in time")
    output = world.output(run_id)
    world.advance(60)

    assert "in time" == output
    assert RunState.SUCCEEDED is world.get(run_id).state


def test_sleep_lasts_over_a_restart(world: World) -> None:
    """A run that sleeps goes on at its time though its worker was replaced meanwhile."""

    async def body(durable: Durable) -> Json:
        start_us = await durable.now_us(StepName("start"))
        await durable.sleep(StepName("sleep"), start_us + 3_600_000_000)
        return await durable.now_us(StepName("end")) - start_us >= 3_600_000_000

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    world.restart()
    world.advance(3600)

    assert world.output(run_id) is True


def test_short_sleep_does_not_end_the_segment(world: World) -> None:
    """A sleep of up to two seconds is held in memory."""

    async def body(durable: Durable) -> Json:
        start_us = await durable.now_us(StepName("start"))
        await durable.sleep(StepName("nap"), start_us + 1_500_000)
        return durable.run.segment

    assert 0 == world.output(world.begin(body))


def test_sleep_until_a_past_time_returns_at_once(world: World) -> None:
    """A time that is over is not waited for."""

    async def body(durable: Durable) -> Json:
        await durable.sleep(StepName("past"), 1)
        return durable.run.segment

    assert 0 == world.output(world.begin(body))


def test_waiting_run_is_rows_and_nothing_else(world: World) -> None:
    """While a run waits there is no task and no owner for it, only its waits."""

    async def body(durable: Durable) -> Json:
        async def hear(number: int) -> Json:
            return str(await durable.wait(StepName(f"hear/{number}"), "go", until_us=None))

        await durable.gather([partial(hear, n) for n in range(5)])
        return None

    async def count_tasks() -> int:
        return len(asyncio.all_tasks())

    async def settle() -> None:
        while world.engine._runner.active:  # noqa: ASYNC110  # the product needs no such event
            await asyncio.sleep(0)

    loop = world.engine._loop
    loop.call(settle(), timeout_s=10)
    tasks = loop.call(count_tasks())
    run_ids = [world.begin(body) for _ in range(10)]
    for run_id in run_ids:
        world.until(run_id, RunState.WAITING)
    loop.call(settle(), timeout_s=10)

    assert tasks == loop.call(count_tasks())
    assert {None} == {world.get(run_id).executor_id for run_id in run_ids}
    assert 5 == len(world.waits(run_ids[0]))
    for run_id in run_ids:
        world.cancel(run_id)
    for run_id in run_ids:
        world.until(run_id, RunState.CANCELLED)


def test_cleaning_up_after_a_wait_may_not_use_the_journal(world: World) -> None:
    """`finally` blocks run at every wait; an operation there is refused and records nothing."""

    async def body(durable: Durable) -> Json:
        try:
            return await _hear_one(durable)
        finally:
            await durable.now_us(StepName("cleanup"))

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    world.signal(run_id, "go", 1)

    assert {"answer": 1} == world.output(run_id)


def test_wait_inside_a_step_is_refused(world: World) -> None:
    """A step holds its segment, so a wait in it could never be parked."""

    async def body(durable: Durable) -> Json:
        async def inner() -> Json:
            await durable.wait(StepName("inner"), "go", until_us=None)
            return None

        await durable.step(StepName("outer"), inner)
        return None

    run = world.until(world.begin(body), RunState.FAILED)

    assert "invariant" == run.error_code


def test_no_signal_passes_the_wait_it_is_for(world: World) -> None:
    """Signals sent while runs are just about to wait are neither lost nor doubled."""

    async def body(durable: Durable) -> Json:
        heard = [
            str(await durable.wait(StepName(f"hear/{n}"), "go", until_us=None)) for n in range(3)
        ]
        return list(heard)

    run_ids = [world.begin(body) for _ in range(8)]
    for value in ("a", "b", "c"):
        senders = [
            threading.Thread(target=world.signal, args=(run_id, "go", value)) for run_id in run_ids
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    assert [["a", "b", "c"]] * 8 == [world.output(run_id) for run_id in run_ids]


def test_answer_is_heard_while_another_branch_goes_on(world: World) -> None:
    """A branch that waits does not have to wait for the others as well."""
    heard = threading.Event()

    async def body(durable: Durable) -> Json:
        async def waits() -> Json:
            said = await durable.wait(StepName("answer"), "go", until_us=None)
            heard.set()
            return str(said)

        async def is_busy() -> Json:
            async def until_heard() -> Json:
                await asyncio.to_thread(world.signal, durable.run.run_id, "go", "now")
                return await asyncio.to_thread(heard.wait, TIMEOUT_S)

            return await durable.step(StepName("busy"), until_heard)

        return [str(each) for each in await durable.gather([waits, is_busy])]

    assert ["now", "True"] == world.output(world.begin(body))
