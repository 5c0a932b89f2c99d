"""The port `Durable`: steps, commits, branches, children, and what the outside does to runs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial

import pytest

from interlock.calls.compensate import TODO
from interlock.calls.durable import Durable, Retry
from interlock.domain.canonical import MAX_DEPTH, Json
from interlock.domain.errors import (
    DedupeConflictError,
    InputError,
    StepFailedError,
    UnavailableError,
)
from interlock.domain.ids import RunId, StepName
from interlock.domain.label import Labels
from interlock.domain.run import UNDO, RunState
from interlock.store import journal, leases, runs
from interlock.store.tx import Tx
from tests.conformance.durable_world import DIGEST, Tally, World

ONCE = Retry(attempts=1)
DONE = {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}


# --- steps


def test_recorded_step_never_runs_again(world: World) -> None:
    """A step that is in the journal answers from it when the run goes on after a wait."""
    tally = Tally()

    async def body(durable: Durable) -> Json:
        async def work() -> Json:
            return tally.add("work")

        first = await durable.step(StepName("work"), work)
        await durable.wait(StepName("go"), "go", until_us=None)
        return [first, tally.count("work")]

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    world.signal(run_id, "go", None)

    assert [1, 1] == world.output(run_id)


def test_final_error_of_a_step_is_recorded(world: World) -> None:
    """A step that failed for good raises the same code and message on every replay."""
    tally = Tally()

    async def body(durable: Durable) -> Json:
        async def fail() -> Json:
            tally.add("fail")
            raise InputError("the ticket `7` is closed")

        try:
            await durable.step(StepName("fail"), fail)
        except StepFailedError as error:
            await durable.wait(StepName("go"), "go", until_us=None)
            return [error.error_code, error.message, tally.count("fail")]
        return None

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    world.signal(run_id, "go", None)

    assert ["input.invalid", "the ticket `7` is closed", 1] == world.output(run_id)


def test_retryable_error_is_tried_again_up_to_the_limit(world: World) -> None:
    """A step whose error may be retried runs as often as its policy says, then fails."""
    tally = Tally()

    async def body(durable: Durable) -> Json:
        async def fail() -> Json:
            tally.add("try")
            raise UnavailableError("the tracker is away")

        await durable.step(StepName("fail"), fail, retry=Retry(attempts=3, initial_s=0.1))
        return None

    run = world.until(world.begin(body), RunState.FAILED)

    assert (3, "unavailable") == (tally.count("try"), run.error_code)


def test_long_pause_between_attempts_lets_the_run_wait(world: World) -> None:
    """A pause above two seconds costs nothing while it lasts, and no attempt is repeated."""
    tally = Tally()

    async def body(durable: Durable) -> Json:
        async def flaky() -> Json:
            if tally.add("try") < 3:
                raise UnavailableError("the tracker is away")
            return "here"

        retry = Retry(attempts=3, initial_s=100.0, max_s=1000.0)
        return await durable.step(StepName("flaky"), flaky, retry=retry)

    run_id = world.begin(body)
    for _ in range(2):
        world.until(run_id, RunState.WAITING)
        world.advance(400)

    assert "here" == world.output(run_id)
    assert 3 == tally.count("try")


def test_step_that_takes_too_long_is_a_retryable_failure(world: World) -> None:
    """The time limit of a step counts as the upstream being away."""

    async def body(durable: Durable) -> Json:
        async def hang() -> Json:
            await asyncio.Event().wait()
            return None

        await durable.step(StepName("hang"), hang, retry=ONCE, timeout_s=0.01)
        return None

    run = world.until(world.begin(body), RunState.FAILED)

    assert "unavailable" == run.error_code


def test_value_that_is_not_json_fails_the_step_with_its_place(world: World) -> None:
    """A result that could not be replayed is refused, naming where it is not JSON."""

    async def body(durable: Durable) -> Json:
        async def odd() -> Json:
            return {"rows": [1, float("nan")]}

        await durable.step(StepName("odd"), odd, retry=ONCE)
        return None

    run = world.until(world.begin(body), RunState.FAILED)

    assert "the result of `odd` is not JSON at `/rows/1`: got a `float`" == run.error_message


def test_step_name_is_unique_in_its_run(world: World) -> None:
    """Two operations of one name end the run: replay could not tell them apart."""

    async def body(durable: Durable) -> Json:
        await durable.now_us(StepName("twice"))
        await durable.uuid(StepName("twice"))
        return None

    run = world.until(world.begin(body), RunState.FAILED)

    assert "step.name_reused" == run.error_code


def test_unexpected_exception_fails_the_run_as_internal(world: World) -> None:
    """A bug in the code of a run ends that run, with the type of the exception and no more."""

    async def body(_durable: Durable) -> Json:
        secret = {"password": "hunter2"}
        raise KeyError(secret["password"])

    run = world.until(world.begin(body), RunState.FAILED)

    assert ("internal", "its code raised a `KeyError`") == (run.error_code, run.error_message)


# --- commits


def test_commit_is_one_with_its_journal_row(world: World) -> None:
    """A commit whose function raises leaves neither its change nor a journal row."""

    async def body(durable: Durable) -> Json:
        def change_and_fail(tx: Tx) -> Json:
            runs.raise_labels(tx, durable.run.run_id, Labels(names=frozenset({"pii"})))
            raise InputError("no")

        try:
            await durable.commit(StepName("both"), change_and_fail)
        except InputError:
            return durable.recorded(StepName("both")) is None
        return False

    run_id = world.begin(body)

    assert world.output(run_id) is True
    assert Labels() == world.get(run_id).labels


def test_commit_runs_once_however_often_it_is_replayed(world: World) -> None:
    """The value of a commit, of `now_us` and of `uuid` is the one recorded at first use."""
    values: list[Json] = []

    async def body(durable: Durable) -> Json:
        values.append(
            [
                await durable.commit(StepName("id"), lambda tx: tx.new_id()),
                await durable.now_us(StepName("now")),
                await durable.uuid(StepName("uuid")),
            ]
        )
        await durable.wait(StepName("go"), "go", until_us=None)
        return None

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    world.clock.advance(5)
    world.signal(run_id, "go", None)
    world.until(run_id, RunState.SUCCEEDED)

    assert 2 == len(values)
    assert values[0] == values[1]


def test_fenced_owner_writes_nothing_and_the_new_owner_goes_on(world: World) -> None:
    """Once another worker owns the run, the old one's commit is refused and its run untouched."""
    tally = Tally()

    async def body(durable: Durable) -> Json:
        run_id, epoch = durable.run.run_id, durable.run.epoch
        if epoch == 1:
            # What the reaper does when it takes this worker for dead.
            def take_over(tx: Tx) -> None:
                owner = runs.get(tx, run_id).executor_id
                assert owner is not None
                leases.takeover(tx, owner, max_recoveries=3)
                world.engine.dispatch.hint(tx, run_id)

            await asyncio.to_thread(world.db.run, "test", take_over)
        return await durable.commit(StepName("owner"), lambda _tx: tally.add("commit") and epoch)

    run_id = world.begin(body)

    assert 3 == world.output(run_id)
    assert 1 == tally.count("commit")


# --- branches


def test_gather_returns_results_in_the_order_given(world: World) -> None:
    """Branches may end in any order; their results keep the order of the branches."""

    async def body(durable: Durable) -> Json:
        first_may_end = asyncio.Event()

        async def slow() -> Json:
            await first_may_end.wait()
            return await durable.commit(StepName("slow"), lambda _tx: "slow")

        async def fast() -> Json:
            value = await durable.commit(StepName("fast"), lambda _tx: "fast")
            first_may_end.set()
            return value

        return [str(result) for result in await durable.gather([slow, fast])]

    assert ["slow", "fast"] == world.output(world.begin(body))


def test_gather_runs_at_most_its_limit_at_once(world: World) -> None:
    """Of six branches with limit two, never more than two are inside."""
    inside, most = 0, 0

    async def body(durable: Durable) -> Json:
        async def branch(number: int) -> Json:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await durable.now_us(StepName(f"now/{number}"))
            inside -= 1
            return number

        branches = [partial(branch, n) for n in range(6)]
        return [int(str(n)) for n in await durable.gather(branches, limit=2)]

    assert [0, 1, 2, 3, 4, 5] == world.output(world.begin(body))
    assert 2 == most


def test_first_error_stops_the_other_branches_at_their_next_operation(world: World) -> None:
    """With `fail_fast`, a branch that waits or goes on is stopped and the error comes out."""
    tally = Tally()

    async def body(durable: Durable) -> Json:
        has_failed = asyncio.Event()

        async def fail() -> Json:
            has_failed.set()
            raise InputError("no")

        async def waits() -> Json:
            await durable.wait(StepName("never"), "never", until_us=None)
            tally.add("after the wait")
            return None

        async def goes_on() -> Json:
            await durable.now_us(StepName("before"))
            await has_failed.wait()
            await durable.now_us(StepName("at"))
            await durable.now_us(StepName("next"))
            tally.add("after the error")
            return None

        await durable.gather([fail, waits, goes_on])
        return None

    run = world.until(world.begin(body), RunState.FAILED)

    assert ("input.invalid", []) == (run.error_code, tally.seen)


def test_collected_errors_stand_in_the_place_of_results(world: World) -> None:
    """With `collect`, a failing branch is a result and the others run to their end."""

    async def body(durable: Durable) -> Json:
        async def fail() -> Json:
            raise InputError("no")

        async def work() -> Json:
            return await durable.commit(StepName("work"), lambda _tx: "done")

        results = await durable.gather([fail, work], on_error="collect")
        return [repr(results[0]), str(results[1])]

    assert ["InputError('no')", "done"] == world.output(world.begin(body))


def test_branches_wait_side_by_side(world: World) -> None:
    """Two branches that wait make one waiting run, and each gets the signal of its own topic."""

    async def body(durable: Durable) -> Json:
        async def hear(topic: str) -> Json:
            answer = await durable.wait(StepName(f"hear/{topic}"), topic, until_us=None)
            return str(answer)

        branches = [partial(hear, topic) for topic in ("a", "b")]
        return [str(answer) for answer in await durable.gather(branches)]

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    open_waits = world.waits(run_id)
    world.signal(run_id, "b", "second")
    world.until(run_id, RunState.WAITING)
    world.signal(run_id, "a", "first")

    assert ["first", "second"] == world.output(run_id)
    assert ["hear/a", "hear/b"] == open_waits


def test_wait_of_one_branch_does_not_end_what_is_in_flight_in_another(world: World) -> None:
    """The run waits only when the request that is going on outside has its outcome recorded."""
    tally = Tally()

    async def body(durable: Durable) -> Json:
        async def hear() -> Json:
            return str(await durable.wait(StepName("hear"), "go", until_us=None))

        async def send() -> Json:
            if durable.recorded(StepName("sent")) is not None:
                return None
            with durable.in_flight():
                tally.add("sent")
                await asyncio.sleep(0.2)  # outside, nothing tells us how long it takes
                return await durable.commit(StepName("sent"), lambda _tx: "outcome")

        await durable.gather([hear, send])
        return tally.count("sent")

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    world.signal(run_id, "go", None)

    assert 1 == world.output(run_id)


# --- children


def test_child_runs_once_and_its_outcome_comes_back(world: World) -> None:
    """A parent gets its child's result; replay does not start another child."""
    tally = Tally()

    async def child(durable: Durable) -> Json:
        return await durable.commit(
            StepName("work"), lambda _tx: [durable.run.request.depth, tally.add("child")]
        )

    request = world.request(child)

    async def parent(durable: Durable) -> Json:
        outcome = await durable.child(StepName("hand-off"), request)
        return [outcome.state, outcome.output]

    run_id = world.begin(parent)

    assert ["succeeded", [1, 1]] == world.output(run_id)


def test_failed_child_is_a_result_for_its_parent(world: World) -> None:
    """How a child failed comes back as code and message, and the parent goes on."""

    async def child(_durable: Durable) -> Json:
        raise InputError("no such ticket")

    request = world.request(child)

    async def parent(durable: Durable) -> Json:
        outcome = await durable.child(StepName("hand-off"), request)
        return [outcome.state, outcome.error_code, outcome.error_message]

    assert ["failed", "input.invalid", "no such ticket"] == world.output(world.begin(parent))


def test_child_whose_output_its_parent_cannot_be_sent_fails(world: World) -> None:
    """An output that may just be kept is too deep with the outcome around it: the child ends."""

    async def child(_durable: Durable) -> Json:
        deep: Json = None
        for _ in range(MAX_DEPTH):
            deep = [deep]
        return deep

    request = world.request(child)

    async def parent(durable: Durable) -> Json:
        outcome = await durable.child(StepName("hand-off"), request)
        return [outcome.state, outcome.error_code, outcome.output]

    alone = world.until(world.begin(child), *DONE).state

    assert RunState.SUCCEEDED is alone
    assert ["failed", "input.invalid", None] == world.output(world.begin(parent))


def test_child_inherits_root_and_labels(world: World) -> None:
    """A spawned child belongs to its parent's tree and is at least as sensitive."""

    async def child(_durable: Durable) -> Json:
        return None

    request = world.request(child, labels=Labels(names=frozenset({"hr"})))

    async def parent(durable: Durable) -> Json:
        return await durable.spawn(StepName("child"), request)

    run_id = world.begin(parent, labels=Labels(names=frozenset({"pii"})))
    spawned = world.until(RunId(str(world.output(run_id))), RunState.SUCCEEDED)

    assert frozenset({"hr", "pii"}) == spawned.labels.names
    assert (run_id, run_id) == (spawned.request.parent_id, spawned.request.root_id)


def test_hand_offs_end_at_five_deep(world: World) -> None:
    """A run five hand-offs below its root may not hand off again."""

    async def nested(durable: Durable) -> Json:
        outcome = await durable.child(StepName("deeper"), request)
        return outcome.output if outcome.error_message is None else outcome.error_message

    request = world.request(nested)

    assert "5 hand-offs deep already" in str(world.output(world.begin(nested)))


# --- from outside


def test_start_is_deduplicated_by_its_trigger_key(world: World) -> None:
    """The same key and body give the first run; another body is refused."""

    async def body(_durable: Durable) -> Json:
        return None

    request, dispatch = world.request(body), world.engine.dispatch

    def start(digest: str) -> tuple[RunId, bool]:
        return world.db.run("test", lambda tx: dispatch.start(tx, request, body_digest=digest))

    run_id, is_new = start(DIGEST)

    assert is_new
    assert (run_id, False) == start(DIGEST)
    with pytest.raises(DedupeConflictError):
        start("sha256:" + "1" * 64)
    world.until(run_id, RunState.SUCCEEDED)


def test_start_takes_effect_only_if_its_transaction_commits(world: World) -> None:
    """A start that is rolled back leaves no run, and its key is free again."""

    async def body(_durable: Durable) -> Json:
        return "ran"

    request, dispatch = world.request(body), world.engine.dispatch

    def start_and_fail(tx: Tx) -> None:
        dispatch.start(tx, request, body_digest=DIGEST)
        raise InputError("rolled back")

    with pytest.raises(InputError):
        world.db.run("test", start_and_fail)
    run_id, is_new = world.db.run(
        "test", lambda tx: dispatch.start(tx, request, body_digest=DIGEST)
    )

    assert is_new
    assert "ran" == world.output(run_id)


def test_stale_hint_does_nothing(world: World) -> None:
    """A hint that is delivered again after the run went on does not run anything."""
    tally = Tally()

    async def body(durable: Durable) -> Json:
        tally.add("segment")
        await durable.wait(StepName("go"), "go", until_us=None)
        return None

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    world.engine._loop.call(world.runner().run(run_id, 0))

    assert 1 == tally.count("segment")
    assert RunState.WAITING is world.get(run_id).state
    world.cancel(run_id)
    world.until(run_id, RunState.CANCELLED)


def test_cancel_stops_the_run_at_its_next_operation(world: World) -> None:
    """What has begun is recorded; nothing further starts, and the run is cancelled."""
    tally = Tally()

    async def body(durable: Durable) -> Json:
        async def work() -> Json:
            await asyncio.to_thread(world.cancel, durable.run.run_id)
            return "outcome"

        await durable.step(StepName("work"), work)
        await durable.now_us(StepName("next"))
        tally.add("went on")
        return None

    run_id = world.begin(body)
    run = world.until(run_id, *DONE)
    with world.db.reading() as tx:
        recorded = journal.load(tx, run_id)

    assert (RunState.CANCELLED, "run.cancelled") == (run.state, run.error_code)
    assert (["work"], []) == (list(recorded), tally.seen)


def test_cancel_keeps_the_outcome_of_what_is_in_flight(world: World) -> None:
    """A cancel during a request does not keep its outcome from being committed."""

    async def body(durable: Durable) -> Json:
        with durable.in_flight():
            await asyncio.to_thread(world.cancel, durable.run.run_id)
            await durable.commit(StepName("outcome"), lambda _tx: "kept")
        await durable.now_us(StepName("next"))
        return None

    run_id = world.begin(body)
    world.until(run_id, RunState.CANCELLED)
    with world.db.reading() as tx:
        recorded = journal.load(tx, run_id)

    assert ["outcome"] == list(recorded)


def test_cancel_cannot_be_caught(world: World) -> None:
    """Code that swallows every error is cancelled all the same."""

    async def body(durable: Durable) -> Json:
        await asyncio.to_thread(world.cancel, durable.run.run_id)
        for name in ("first", "second"):
            with contextlib.suppress(Exception):  # as badly behaved code does
                await durable.now_us(StepName(name))
        return "survived"

    assert RunState.CANCELLED is world.until(world.begin(body), *DONE).state


@pytest.mark.parametrize(
    ("kind", "state"), [("manual", RunState.SUCCEEDED), (UNDO, RunState.CANCELLED)]
)
def test_cancel_stops_no_failed_run_that_undoes_its_effects(
    world: World, kind: str, state: RunState
) -> None:
    """Half undone is worse than either; a run that a person started to undo another is stopped."""

    async def body(durable: Durable) -> Json:
        await durable.commit(TODO, lambda _tx: [])
        await durable.wait(StepName("undo/approval"), "approval", until_us=None)
        return await durable.commit(StepName("undo"), lambda _tx: "undone")

    plain = world.request(body)
    request = replace(plain, trigger=replace(plain.trigger, kind=kind))
    start = partial(world.engine.dispatch.start, request=request, body_digest=DIGEST)
    run_id, _ = world.db.run("test", start)
    world.until(run_id, RunState.WAITING)
    world.cancel(run_id)
    world.signal(run_id, "approval", "approve")

    assert state is world.until(run_id, *DONE).state


def test_cancel_of_a_waiting_parent_cancels_its_child(world: World) -> None:
    """Parent and child both end as cancelled, and a second cancel says there is nothing to do."""

    async def child(durable: Durable) -> Json:
        await durable.wait(StepName("never"), "never", until_us=None)
        return None

    request = world.request(child)

    async def parent(durable: Durable) -> Json:
        await durable.child(StepName("hand-off"), request)
        return None

    run_id = world.begin(parent)
    world.until(run_id, RunState.WAITING)
    with world.db.reading() as tx:
        child_id = runs.children(tx, run_id)[0].run_id
    world.until(child_id, RunState.WAITING)
    first = world.cancel(run_id)
    world.until(run_id, RunState.CANCELLED)
    world.until(child_id, RunState.CANCELLED)

    assert (True, False) == (first, world.cancel(run_id))


def test_restarted_worker_goes_on_with_what_it_finds(world: World) -> None:
    """A run that waits when its worker stops is finished by the next one."""

    async def body(durable: Durable) -> Json:
        before = await durable.uuid(StepName("before"))
        after = await durable.wait(StepName("go"), "go", until_us=None)
        return [before, str(after)]

    run_id = world.begin(body)
    world.until(run_id, RunState.WAITING)
    with world.db.reading() as tx:
        before = journal.load(tx, run_id)[StepName("before")].value
    world.restart()
    world.signal(run_id, "go", "on")

    assert [before, "on"] == world.output(run_id)


def test_stopping_worker_hands_its_runs_back(world: World) -> None:
    """A busy run is queued again at its next operation and finished by the next worker."""
    if world.kind == "memory":
        pytest.skip("nothing runs in it between two calls of a test")
    is_busy, may_go_on = asyncio.Event(), asyncio.Event()

    async def body(durable: Durable) -> Json:
        if durable.run.epoch > 1:
            return await durable.commit(StepName("done"), lambda _tx: "by the next")
        is_busy.set()
        await may_go_on.wait()
        await durable.now_us(StepName("refused"))
        return "by the first"

    async def drain_while_busy() -> None:
        await asyncio.wait_for(is_busy.wait(), 10)
        world.engine._runner.drain()
        may_go_on.set()

    run_id = world.begin(body)
    world.engine._loop.call(drain_while_busy())
    world.restart()

    assert "by the next" == world.output(run_id)
