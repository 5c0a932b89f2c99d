"""Which workers live, and how the death of others is seen."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.domain.errors import ConflictError
from interlock.domain.ids import ExecutorId
from interlock.runtime.durable.lease import Lease, find_dead, host_identity, pid_started
from interlock.store import leases, migrate
from interlock.store.engine import Database
from interlock.testing.clock import ManualClock
from tests.conformance import store_rows

ME, OTHER = ExecutorId("me"), ExecutorId("other")
TTL_US = 20_000_000

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and pidfd")


@pytest.fixture
def postgres(postgres_url: str, clock: ManualClock) -> Iterator[Database]:
    """A Postgres database, on which several workers may live."""
    db = Database(postgres_url, clock=clock)
    migrate.upgrade(db)
    yield db
    db.close()


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Database]:
    """An SQLite database, on which one worker may live."""
    db = Database(sqlite_url)
    migrate.upgrade(db)
    yield db
    db.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which lives until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        yield child
        child.kill()


def _register(db: Database, process: subprocess.Popen[bytes], *, host: str | None = None) -> None:
    started = pid_started(process.pid) or ""
    db.run(
        "test",
        lambda tx: leases.register(
            tx,
            OTHER,
            host=host or host_identity(),
            pid=process.pid,
            pid_started=started,
            ttl_us=TTL_US,
        ),
    )


@linux_only
def test_worker_whose_process_is_gone_is_dead_at_once(
    postgres: Database, process: subprocess.Popen[bytes]
) -> None:
    """On the same host nobody waits for the lease of a process that has ended."""
    _register(postgres, process)
    alive = find_dead(postgres, ME)
    process.kill()
    process.wait()

    assert ({}, {OTHER: True}) == (alive, find_dead(postgres, ME))


@linux_only
def test_stopped_worker_past_its_lease_is_killed_first(
    postgres: Database, process: subprocess.Popen[bytes], clock: ManualClock
) -> None:
    """A process that lives but did not renew is seen to end before its runs are taken."""
    _register(postgres, process)
    clock.advance(21)

    dead = find_dead(postgres, ME)

    assert {OTHER: True} == dead
    assert -9 == process.wait(timeout=10)


def test_worker_of_another_host_is_dead_when_its_lease_is_over(
    postgres: Database, process: subprocess.Popen[bytes], clock: ManualClock
) -> None:
    """Where its process cannot be seen, only database time decides; nobody saw it end."""
    _register(postgres, process, host="elsewhere")
    before = find_dead(postgres, ME)
    clock.advance(21)

    assert ({}, {OTHER: False}) == (before, find_dead(postgres, ME))
    assert process.poll() is None


def test_reused_pid_is_not_mistaken_for_the_worker(
    postgres: Database, process: subprocess.Popen[bytes]
) -> None:
    """A process with the pid of a worker but another start time is somebody else: left alone."""
    postgres.run(
        "test",
        lambda tx: leases.register(
            tx, OTHER, host=host_identity(), pid=process.pid, pid_started="1", ttl_us=TTL_US
        ),
    )

    assert {OTHER: True} == find_dead(postgres, ME)
    assert process.poll() is None


def test_owner_that_is_not_registered_is_dead(postgres: Database) -> None:
    """A worker that claimed after its row was removed has lost its run; nobody is itself dead."""
    store_rows.running(postgres)
    unregistered = find_dead(postgres, ME)
    by_itself = find_dead(postgres, store_rows.WORKER)
    postgres.run(
        "test",
        lambda tx: leases.register(
            tx, store_rows.WORKER, host="elsewhere", pid=1, pid_started="1", ttl_us=TTL_US
        ),
    )

    registered = find_dead(postgres, ME)
    assert ({store_rows.WORKER: False}, {}, {}) == (unregistered, by_itself, registered)


def test_second_worker_on_one_sqlite_file_is_refused(sqlite: Database) -> None:
    """The first holds the file until it stops."""
    first, second = Lease(sqlite, ME), Lease(sqlite, OTHER)
    first.start()

    with pytest.raises(ConflictError, match="another process serves"):
        second.start()
    first.stop(is_clean=True)
    second.start()
    second.stop(is_clean=True)

    with sqlite.reading() as tx:
        assert [] == leases.list_executors(tx)


def test_unclean_stop_leaves_the_row_for_the_takeover(sqlite: Database) -> None:
    """A worker that could not hand its runs back is found by the next one."""
    first = Lease(sqlite, ME)
    first.start()
    first.stop(is_clean=False)

    assert {ME: True} == find_dead(sqlite, OTHER)


def test_worker_that_is_to_stop_says_so(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and with every beat from then on."""
    monkeypatch.setattr("interlock.runtime.durable.lease.BEAT_S", 0.01)
    renewed = threading.Event()
    lease = Lease(sqlite, ME)
    lease.start()
    lease.drain()
    with sqlite.reading() as tx:
        at_once = [one.is_draining for one in leases.list_executors(tx)]
    renew = leases.renew

    def seen(*arguments: object, **options: object) -> bool:
        is_mine = renew(*arguments, **options)  # type: ignore[arg-type]  # those of `renew`
        renewed.set()
        return is_mine

    monkeypatch.setattr("interlock.store.leases.renew", seen)
    assert renewed.wait(timeout=10)
    lease.stop(is_clean=False)
    with sqlite.reading() as tx:
        later = [one.is_draining for one in leases.list_executors(tx)]

    assert ([True], [True]) == (at_once, later)


def test_worker_that_was_taken_over_leaves(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat that finds its row gone ends the process instead of going on as a second owner."""
    monkeypatch.setattr("interlock.runtime.durable.lease.BEAT_S", 0.01)
    has_left, reasons = threading.Event(), list[str]()

    def leave(why: str) -> None:
        reasons.append(why)
        has_left.set()

    lease = Lease(postgres, ME, on_lost=leave)
    lease.start()
    postgres.run("test", lambda tx: leases.remove(tx, ME))
    has_left.wait(timeout=10)
    lease.stop(is_clean=True)

    assert ["another worker took it for dead"] == reasons


def test_fresh_lease_may_send(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may send for ten seconds after its last renewal, and no longer."""
    lease = Lease(sqlite, ME)
    lease.start()
    fresh = lease.may_send()
    monkeypatch.setattr("interlock.runtime.durable.lease.NO_SEND_AFTER_S", 0.0)

    assert (True, False) == (fresh, lease.may_send())
    lease.stop(is_clean=True)


@linux_only
def test_start_time_tells_a_process_from_one_that_is_gone() -> None:
    """A live process has a start time in ticks; a pid that nobody has, none."""
    assert (pid_started(1) or "").isdigit()
    assert pid_started(int(Path("/proc/sys/kernel/pid_max").read_text())) is None
