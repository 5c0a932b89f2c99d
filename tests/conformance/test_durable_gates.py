"""The port `Durable`: gates that runs hold, wait for, and leave, however they end."""

from __future__ import annotations

import pytest

from interlock.calls.durable import Durable
from interlock.domain.canonical import Json
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import RunState
from interlock.store import gates
from tests.conformance.durable_world import Body, Tally, World

GATE = StepName("gate")


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key of the test's own: the engine lasts for the module."""
    return str(request.node.name)


def holding(tally: Tally, what: str, *keys: str, places: int = 1, keeps: bool = False) -> Body:
    """Return code that holds these keys until it is told to end, noting when it got them."""

    async def body(durable: Durable) -> Json:
        await durable.hold(GATE, dict.fromkeys(keys, places), hold_while_waiting=keeps)
        tally.add(what)
        return str(await durable.wait(StepName("end"), "end", until_us=None))

    return body


def waiting_for(world: World, run_id: RunId) -> tuple[str | None, list[gates.FullGate]]:
    """Return why a run waits, and at which full gates."""
    reason = world.until(run_id, RunState.WAITING).reason
    with world.db.reading() as tx:
        return reason, gates.list_full(tx, run_id)


def end(world: World, *run_ids: RunId) -> None:
    """Tell runs to end, and wait until they have."""
    for run_id in run_ids:
        world.signal(run_id, "end", "told")
    for run_id in run_ids:
        world.until(run_id, RunState.SUCCEEDED)


def test_run_at_a_full_gate_waits_and_names_the_holder(world: World, key: str) -> None:
    """It costs nothing while it waits, and goes on when the holder has ended."""
    tally = Tally()
    first = world.begin(holding(tally, "first", key, keeps=True))
    world.until(first, RunState.WAITING)
    second = world.begin(holding(tally, "second", key))

    found = waiting_for(world, second)
    begun = tally.count("second")
    end(world, first, second)

    full = gates.FullGate(key=key, places=1, holders=(first,))
    assert ((f"gate/{key}", [full]), 0) == (found, begun)
    assert ["first", "second"] == sorted(set(tally.seen))


def test_as_many_hold_a_gate_as_it_has_places(world: World, key: str) -> None:
    """The limit is of the key, over all runs."""
    tally = Tally()
    runs = [world.begin(holding(tally, str(n), key, places=2, keeps=True)) for n in range(2)]
    for run_id in runs:
        world.until(run_id, RunState.WAITING)
    third = world.begin(holding(tally, "third", key, places=2, keeps=True))

    reason, (full,) = waiting_for(world, third)
    end(world, *runs, third)

    assert (f"gate/{key}", sorted(runs)) == (reason, sorted(full.holders))


def test_keys_are_held_all_or_none(world: World, key: str) -> None:
    """A run that waits for one key leaves the other to who needs no more."""
    tally = Tally()
    one, two = f"{key}/1", f"{key}/2"
    first = world.begin(holding(tally, "first", one, keeps=True))
    world.until(first, RunState.WAITING)
    both = world.begin(holding(tally, "both", two, one, keeps=True))
    waiting_for(world, both)
    other = world.begin(holding(tally, "other", two, keeps=True))

    _, found = waiting_for(world, other)
    held = tally.count("other")
    end(world, first)
    _, left = waiting_for(world, both)
    end(world, other, both)

    assert ([], 1) == (found, held)
    assert [(two, (other,))] == [(full.key, full.holders) for full in left]


def test_gate_of_a_cancelled_run_is_free(world: World, key: str) -> None:
    """Whichever way a run ends, who waits for it goes on; who waits can be cancelled too."""
    tally = Tally()
    first = world.begin(holding(tally, "first", key, keeps=True))
    world.until(first, RunState.WAITING)
    second, third = (world.begin(holding(tally, name, key)) for name in ("second", "third"))
    waiting_for(world, second)
    waiting_for(world, third)

    world.cancel(second)
    world.until(second, RunState.CANCELLED)
    world.cancel(first)
    end(world, third)

    assert 0 == tally.count("second")


def test_next_is_by_priority_then_by_turn_then_by_age(world: World, key: str) -> None:
    """One tenant's burst delays another by one turn; what is urgent goes before."""
    order = Tally()
    plan = [("a1", "a", 4), ("a2", "a", 4), ("b1", "b", 4), ("a3", "a", 4), ("urgent", "a", 9)]
    holder = world.begin(holding(Tally(), "holder", key, keeps=True))
    world.until(holder, RunState.WAITING)
    queued = []
    for name, tenant, priority in plan:
        body = holding(order, name, key, keeps=True)
        queued.append(world.begin(body, tenant=tenant, priority=priority))
        waiting_for(world, queued[-1])
        world.clock.advance(1)

    for run_id in queued:
        world.signal(run_id, "end", "told")
    end(world, holder)
    for run_id in queued:
        world.until(run_id, RunState.SUCCEEDED)

    assert ["urgent", "b1", "a1", "a2", "a3"] == list(dict.fromkeys(order.seen))


def test_gate_is_free_while_the_run_waits_for_a_person(world: World, key: str) -> None:
    """A run that left its gate takes it again before it goes on."""
    first = world.begin(holding(Tally(), "first", key))
    world.until(first, RunState.WAITING)
    second = world.begin(holding(Tally(), "second", key, keeps=True))

    reason = world.until(second, RunState.WAITING).reason
    world.signal(first, "end", "told")
    world.engine.wait_for(first, RunState.WAITING)
    end(world, second)
    ended = world.until(first, RunState.SUCCEEDED)

    assert ("end", "told") == (reason, ended.output)


def test_gate_is_kept_while_the_run_waits_for_a_time(world: World, key: str) -> None:
    """Between two attempts of a write nobody gets in."""

    async def body(durable: Durable) -> Json:
        await durable.hold(GATE, {key: 1})
        start_us = await durable.now_us(StepName("start"))
        await durable.sleep(StepName("nap"), start_us + 60_000_000)
        return None

    first = world.begin(body)
    world.until(first, RunState.WAITING)
    second = world.begin(holding(Tally(), "second", key))
    found = waiting_for(world, second)[1]
    world.advance(61)
    world.until(first, RunState.SUCCEEDED)
    end(world, second)

    assert [(first,)] == [full.holders for full in found]


def test_block_frees_its_gate_before_the_run_ends(world: World, key: str) -> None:
    """What follows the block holds nothing, also on replay, and also if the block failed."""

    async def body(durable: Durable) -> Json:
        async with durable.gate(GATE, {key: 1}):
            await durable.now_us(StepName("inside"))
        with pytest.raises(ValueError, match="planned"):
            async with durable.gate(StepName("again"), {key: 1}):
                raise ValueError("planned")
        return str(await durable.wait(StepName("end"), "end", until_us=None))

    first = world.begin(body)
    world.until(first, RunState.WAITING)
    second = world.begin(holding(Tally(), "second", key, keeps=True))
    world.until(second, RunState.WAITING)
    with world.db.reading() as tx:
        is_held = gates.is_held(tx, second, GATE)
    end(world, first, second)

    assert is_held


def test_paused_run_leaves_its_gate(world: World, key: str) -> None:
    """Who stands still keeps nobody waiting, and asks again when resumed."""
    tally = Tally()
    first = world.begin(holding(tally, "first", key, keeps=False))
    world.until(first, RunState.WAITING)
    second = world.begin(holding(tally, "second", key, keeps=True))
    world.until(second, RunState.WAITING)
    third = world.begin(holding(tally, "third", key))
    waiting_for(world, third)
    world.pause(third)
    end(world, second)
    with world.db.reading() as tx:
        is_held = gates.is_held(tx, third, GATE)
    world.resume(third)
    end(world, third, first)

    assert not is_held


def test_gate_outlives_its_worker(world: World, key: str) -> None:
    """A run whose worker is gone keeps its gate, and the next worker frees it with the run."""
    first = world.begin(holding(Tally(), "first", key, keeps=True))
    world.until(first, RunState.WAITING)
    second = world.begin(holding(Tally(), "second", key))
    waiting_for(world, second)

    world.restart()
    _, found = waiting_for(world, second)
    end(world, first, second)

    assert [(first,)] == [full.holders for full in found]
