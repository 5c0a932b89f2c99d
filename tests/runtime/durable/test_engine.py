"""What is particular to the engine on DBOS: the pickle ban, hints, and one worker per process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
from dbos import WorkflowSerializationFormat
from dbos._serialization import DefaultSerializer

from interlock.calls.durable import Durable
from interlock.domain.errors import ConflictError, InputError, InvariantError
from interlock.domain.ids import ExecutorId, RunId, StepName, TenantId, WorkflowName
from interlock.domain.run import Run, RunOutcome, RunState, StartRequest, TriggerRef
from interlock.runtime.durable.engine import DbosEngine
from interlock.runtime.durable.lease import Lease
from interlock.store import gates, leases, migrate, runs, triggers
from interlock.store.engine import Database
from interlock.store.tx import Tx

DIGEST = "sha256:" + "0" * 64
HAS_SPRUNG = threading.Event()


class Trap:
    """Something whose pickle calls a function when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        """Name the function."""
        return spring, ()


def spring() -> None:
    """Tell that a pickle was loaded."""
    HAS_SPRUNG.set()


def request(key: str) -> StartRequest:
    """Return the request for a run."""
    return StartRequest(
        workflow=WorkflowName("w"),
        workflow_version=1,
        release=1,
        environment="dev",
        tenant=TenantId("default"),
        department="it",
        trigger=TriggerRef(kind="manual", source="test", key=key),
        input=None,
    )


async def nothing(_durable: Durable) -> RunOutcome:
    """Do nothing and succeed."""
    return RunOutcome(state=RunState.SUCCEEDED)


@pytest.fixture
def db(sqlite_url: str) -> Iterator[Database]:
    """An empty SQLite database."""
    database = Database(sqlite_url)
    migrate.upgrade(database)
    yield database
    database.close()


@contextmanager
def running(engine: DbosEngine) -> Iterator[DbosEngine]:
    """Run an engine for a block."""
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def begin(db: Database, engine: DbosEngine, key: str) -> RunId:
    """Start a run."""
    return db.run("test", lambda tx: engine.dispatch.start(tx, request(key), body_digest=DIGEST))[0]


def test_pickled_row_is_refused_by_whoever_reads_it(db: Database) -> None:
    """A row that names the pickle codec comes back unread, and nothing in it was run."""
    HAS_SPRUNG.clear()
    with running(DbosEngine(db, nothing)) as engine:
        client = engine._hints.client
        client.enqueue(
            {
                "queue_name": "nobody",
                "workflow_name": "planted",
                "workflow_id": "planted",
                "serialization_type": WorkflowSerializationFormat.NATIVE,
            },
            Trap(),
        )
        read: list[object] = [row.input for row in client.list_workflows(workflow_ids=["planted"])]

    assert [str] == [type(value) for value in read]
    assert not HAS_SPRUNG.is_set()


def test_worker_that_would_unpickle_does_not_start(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check at the start plants a row and fails if reading it runs it."""

    def unpickle(_self: object, _text: str) -> object:
        # As the codec did before it was replaced: load the pickle of the engine's own trap.
        monkeypatch.setattr("interlock.runtime.durable.engine._Trap.has_sprung", True)
        return None

    monkeypatch.setattr(DefaultSerializer, "deserialize", unpickle)
    engine = DbosEngine(db, nothing)

    with pytest.raises(InvariantError, match="pickled row was run"):
        engine.start()


def test_engine_holds_no_payload(db: Database) -> None:
    """What DBOS keeps of a run is its id and the number of its segment."""
    with running(DbosEngine(db, nothing)) as engine:
        run_id = begin(db, engine, "k")
        engine.wait_for(run_id, RunState.SUCCEEDED)
        (hint,) = engine._hints.client.list_workflows(queue_name="runs")

    assert {"args": (run_id, 0), "kwargs": {}} == hint.input


def test_second_engine_in_one_process_is_refused(db: Database) -> None:
    """DBOS is one per process, so a second engine would silently be the first."""
    with (
        running(DbosEngine(db, nothing)),
        pytest.raises(InvariantError, match="runs an engine already"),
    ):
        DbosEngine(db, nothing).start()


def test_engine_does_not_start_on_a_file_that_is_served(db: Database) -> None:
    """Start-up refuses a live duplicate, and works once that has stopped."""
    other = Lease(db, ExecutorId("other"))
    other.start()
    engine = DbosEngine(db, nothing)

    with pytest.raises(ConflictError):
        engine.start()
    other.stop(is_clean=True)
    with running(engine):
        engine.wait_for(begin(db, engine, "k"), RunState.SUCCEEDED)


def test_queued_run_without_a_hint_gets_a_new_one(db: Database) -> None:
    """A run whose hint vanished is found when no hints are left."""
    run_id = db.run("test", lambda tx: triggers.accept(tx, request("k"), body_digest=DIGEST))[0]
    with running(DbosEngine(db, nothing)) as engine:
        engine._hints_due_s = 0.0
        engine.wake()

        assert RunState.SUCCEEDED is engine.wait_for(run_id, RunState.SUCCEEDED).state


def test_new_hints_are_for_those_that_have_none(db: Database) -> None:
    """A backlog of hints does not hide a lost one; the oldest run is hinted at first."""
    engine = DbosEngine(db, nothing)
    engine.install()
    hinted = begin(db, engine, "hinted")
    lost = [
        db.run("test", partial(triggers.accept, request=request(key), body_digest=DIGEST))[0]
        for key in ("old", "new")
    ]

    for _ in range(2):
        engine._renew_hints()
    hints = engine._hints.client.list_workflows(queue_name="runs")

    assert [hinted, *lost] == [hint.workflow_id.partition(":")[0] for hint in hints]


def test_run_that_could_not_be_handed_back_is_queued_again(db: Database) -> None:
    """A run that this worker owns but does not run is handed back by its duties."""
    with running(DbosEngine(db, nothing)) as engine:

        def own(tx: Tx) -> RunId:
            run_id, _ = triggers.accept(tx, request("k"), body_digest=DIGEST)
            runs.claim(tx, run_id, segment=0, executor_id=engine.executor_id)
            return run_id

        run_id = db.run("test", own)
        engine._hints_due_s = 0.0
        engine.wake()

        assert 2 == engine.wait_for(run_id, RunState.SUCCEEDED).epoch


def test_run_that_keeps_killing_its_workers_is_dead_lettered(db: Database) -> None:
    """After three recoveries without a new journal row a run is left to people."""

    def own(tx: Tx) -> RunId:
        leases.register(tx, ExecutorId("dead"), host="elsewhere", pid=1, pid_started="1", ttl_us=1)
        run_id = triggers.accept(tx, request("k"), body_digest=DIGEST)[0]
        runs.claim(tx, run_id, segment=0, executor_id=ExecutorId("dead"))
        return run_id

    def die_again(tx: Tx) -> None:
        runs.claim(tx, run_id, segment=0, executor_id=ExecutorId("dead"))

    run_id = db.run("test", own)
    with_hints = DbosEngine(db, nothing)
    with_hints.install()
    for _ in range(3):
        with_hints.recover_executor(ExecutorId("dead"))
        db.run("test", die_again)
    with_hints.recover_executor(ExecutorId("dead"))
    with db.reading() as tx:
        run = runs.get(tx, run_id)

    assert (RunState.DEAD_LETTERED, "recoveries") == (run.state, run.reason)


def test_run_that_is_set_aside_leaves_its_gates(db: Database) -> None:
    """It blocks no other run while nobody looks at it; one that is taken over keeps them."""

    def begin(tx: Tx, *, key: str) -> RunId:
        run_id = triggers.accept(tx, request(key), body_digest=DIGEST)[0]
        runs.claim(tx, run_id, segment=0, executor_id=ExecutorId("dead"))
        gates.ask(
            tx,
            gates.Ask(
                run_id=run_id,
                name=StepName("#gate"),
                keys={"lock": 1},
                priority=4,
                tenant=TenantId("default"),
            ),
        )
        return run_id

    first = db.run("test", partial(begin, key="first"))
    second = db.run("test", partial(begin, key="second"))
    engine = DbosEngine(db, nothing)
    engine.install()
    db.run("test", lambda tx: runs.park(tx, second, epoch=1, reason="gate/lock"))

    holders = []
    for most in (1, 0):
        take_over = partial(engine.dispatch.take_over, dead=ExecutorId("dead"), max_recoveries=most)
        db.run("test", take_over)
        with db.reading() as tx:
            holders.append(
                [gates.is_held(tx, run_id, StepName("#gate")) for run_id in (first, second)]
            )
        db.run(
            "test",
            lambda tx: runs.claim(tx, first, segment=0, executor_id=ExecutorId("dead")),
        )

    with db.reading() as tx:
        states = [runs.get(tx, run_id).state for run_id in (first, second)]
    assert [[True, False], [False, True]] == holders
    assert [RunState.DEAD_LETTERED, RunState.QUEUED] == states


def test_hint_of_the_highest_priority_is_followed_first(db: Database) -> None:
    """Of the runs that are queued an urgent one begins before older ones."""
    order = list[str]()

    async def note(durable: Durable) -> RunOutcome:
        order.append(durable.run.request.trigger.key)
        return RunOutcome(state=RunState.SUCCEEDED)

    engine = DbosEngine(db, note, concurrency=1)
    engine.install()
    run_ids = []
    for key, priority in (("usual", 4), ("idle", 0), ("urgent", 9)):
        wanted = replace(request(key), priority=priority)
        start = partial(engine.dispatch.start, request=wanted, body_digest=DIGEST)
        run_ids.append(db.run("test", start)[0])
    engine.start()
    for run_id in run_ids:
        engine.wait_for(run_id, RunState.SUCCEEDED)
    engine.stop()

    assert ["urgent", "usual", "idle"] == order


def test_run_whose_owner_is_not_registered_is_taken_over(db: Database) -> None:
    """A worker that was paused may claim after its row was removed; its run is not lost."""

    def own(tx: Tx) -> RunId:
        run_id = triggers.accept(tx, request("k"), body_digest=DIGEST)[0]
        runs.claim(tx, run_id, segment=0, executor_id=ExecutorId("gone"))
        return run_id

    run_id = db.run("test", own)

    with running(DbosEngine(db, nothing)) as engine:
        assert 3 == engine.wait_for(run_id, RunState.SUCCEEDED).epoch


def test_end_of_a_run_is_one_transaction_with_what_belongs_to_it(db: Database) -> None:
    """If what is added at the end of a run fails, the run has not ended."""
    seen: list[RunState] = []

    def on_end(_tx: Tx, run: Run, outcome: RunOutcome) -> None:
        seen.append(run.state)
        if len(seen) == 1:
            raise RuntimeError("not yet")
        assert outcome.state is RunState.SUCCEEDED

    with running(DbosEngine(db, nothing, on_end=on_end)) as engine:
        run_id = begin(db, engine, "k")
        while not seen or engine._runner.active:
            with engine._moved:
                engine._moved.wait(0.1)
        engine._hints_due_s = 0.0
        engine.wake()
        engine.wait_for(run_id, RunState.SUCCEEDED)

    assert [RunState.SUCCEEDED, RunState.SUCCEEDED] == seen


def test_run_whose_end_is_refused_fails_with_the_reason(db: Database) -> None:
    """What can never be written would be tried for ever; the run ends without its output."""

    def on_end(_tx: Tx, run: Run, _outcome: RunOutcome) -> None:
        if run.state is RunState.SUCCEEDED:
            raise InputError("it cannot be told")

    async def code(_durable: Durable) -> RunOutcome:
        return RunOutcome(state=RunState.SUCCEEDED, output="result")

    with running(DbosEngine(db, code, on_end=on_end)) as engine:
        run = engine.wait_for(begin(db, engine, "k"), RunState.FAILED)

    assert ("input.invalid", "it cannot be told", None) == (
        run.error_code,
        run.error_message,
        run.output,
    )


def test_stop_runs_what_belongs_to_the_loop(db: Database) -> None:
    """Connections that were opened on the loop of the runs are closed on it."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def code(_durable: Durable) -> RunOutcome:
        loops.append(asyncio.get_running_loop())
        return RunOutcome(state=RunState.SUCCEEDED)

    async def close() -> None:
        loops.append(asyncio.get_running_loop())

    with running(DbosEngine(db, code, on_stop=close)) as engine:
        engine.wait_for(begin(db, engine, "k"), RunState.SUCCEEDED)

    assert 2 == len(loops)
    assert loops[0] is loops[1]


def test_hints_that_were_followed_long_ago_are_deleted(db: Database) -> None:
    """At most so many at once, and none that is young or still to be followed."""
    with running(DbosEngine(db, nothing)) as engine:
        ended = [begin(db, engine, key) for key in "abc"]
        for run_id in ended:
            engine.wait_for(run_id, RunState.SUCCEEDED)
        client = engine._hints.client
        while len(client.list_workflows(queue_name="runs", status="SUCCESS")) < len(ended):
            with engine._moved:
                engine._moved.wait(0.1)
        deleted = [engine.clear_hints(older_than_s, 2) for older_than_s in (3600, -1, -1, -1)]
    begin(db, engine, "queued")

    assert [0, 2, 1, 0] == deleted
    assert 0 == engine.clear_hints(-1, 2)


def test_clean_stop_leaves_no_worker_behind(db: Database) -> None:
    """Nobody has to wait for the lease of a worker that stopped in order."""
    with running(DbosEngine(db, nothing)) as engine, db.reading() as tx:
        during = [e.executor_id for e in leases.list_executors(tx)]

    with db.reading() as tx:
        assert ([engine.executor_id], []) == (during, leases.list_executors(tx))
