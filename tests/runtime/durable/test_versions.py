"""Which runs a worker can run, and what becomes of those that it cannot."""

from __future__ import annotations

from interlock.domain.ids import ExecutorId
from interlock.domain.run import Abilities, RunState
from interlock.runtime.durable.versions import Versions
from interlock.store import leases, runs, triggers
from interlock.store.engine import Database
from interlock.testing.clock import ManualClock
from tests.conformance import store_rows

NEEDED = Abilities(functions=frozenset({"find"}))
TTL_US = 100_000_000


def test_run_stays_queued_while_another_worker_can_run_it(db: Database, clock: ManualClock) -> None:
    """The minute counts from when the last worker that could was seen."""
    versions, able = Versions(), ExecutorId("able")
    run_id = db.run("test", lambda tx: triggers.accept(tx, store_rows.request(), body_digest="d"))[
        0
    ]
    db.run(
        "test",
        lambda tx: leases.register(
            tx, able, host="h", pid=1, pid_started="1", ttl_us=TTL_US, abilities=NEEDED
        ),
    )

    def give_up(after_s: float) -> bool:
        clock.advance(after_s)
        return db.run("test", lambda tx: versions._give_up(tx, run_id=run_id, needed=NEEDED))

    with_other = [give_up(0), give_up(61)]
    db.run("test", lambda tx: leases.remove(tx, able))
    alone = [give_up(59), give_up(1)]
    with db.reading() as tx:
        run = runs.get(tx, run_id)

    assert ([False, False], [False, True]) == (with_other, alone)
    assert (RunState.WAITING, "version.missing/function find") == (run.state, run.reason)
