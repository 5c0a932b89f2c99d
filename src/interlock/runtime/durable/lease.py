"""Which workers live: the lease of this one, and how the death of others is seen.

A worker beats every 5 s for a lease of 20 s of database time. One that could not renew for 10 s
sends nothing more, and leaves at 15 s, before others may take its runs. On SQLite there is one
worker; a lock on a file beside the database proves it, and frees itself when the process ends.
"""

from __future__ import annotations

import fcntl
import os
import platform
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import structlog

from interlock.calls.durable import LEASE_S
from interlock.domain.errors import ConflictError, UnavailableError
from interlock.domain.ids import ExecutorId
from interlock.domain.run import Abilities
from interlock.store import leases
from interlock.store.engine import Database
from interlock.store.leases import Executor
from interlock.store.tx import Tx

BEAT_S = 5.0
NO_SEND_AFTER_S = 10.0
LEAVE_AFTER_S = 15.0
_KILL_WAIT_S = 5.0
_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again.

_log = structlog.get_logger(__name__)


def leave_process(why: str) -> None:
    """End this process at once, without cleaning up: its runs may belong to others by now."""
    _log.critical("worker.left", why=why)
    os._exit(_EXIT_CODE)


class Lease:
    """Keeps one worker's row alive, from a thread of its own, so that busy loops do not matter."""

    def __init__(
        self,
        db: Database,
        executor_id: ExecutorId,
        *,
        abilities: Abilities | None = None,
        on_lost: Callable[[str], None] = leave_process,
    ) -> None:
        self._db = db
        self._abilities = abilities
        self._is_draining = False
        self._executor_id = executor_id
        self._on_lost = on_lost
        self._renewed_s = _uptime_s()
        self._is_stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock: BinaryIO | None = None

    def start(self) -> None:
        """Register this worker; raises `ConflictError` if another one serves this SQLite file."""
        if self._db.dialect == "sqlite":
            self._lock = _lock_beside(Path(str(self._db.engine.url.database)))
        self._db.run(
            "lease.register",
            lambda tx: leases.register(
                tx,
                self._executor_id,
                host=host_identity(),
                pid=os.getpid(),
                pid_started=pid_started(os.getpid()) or "",
                ttl_us=round(LEASE_S * 1_000_000),
                abilities=self._abilities,
            ),
        )
        self._renewed_s = _uptime_s()
        duties = [self._beat] if self._lock is not None else [self._beat, self._watch]
        for duty in duties:
            thread = threading.Thread(target=duty, name="interlock-lease", daemon=True)
            thread.start()
            self._threads.append(thread)

    def offer_nothing(self) -> None:
        """Let others hand nothing on to this worker: it takes only what comes to it."""
        self._abilities = None

    def may_send(self) -> bool:
        """Return whether nobody can have taken this worker's runs: ask right before each send."""
        return _uptime_s() - self._renewed_s < NO_SEND_AFTER_S

    def drain(self) -> None:
        """Say in the row that this worker takes nothing more and is about to leave."""
        self._is_draining = True
        try:
            with self._db.transaction("lease.renew") as tx:
                self._renew(tx)
        except UnavailableError as error:
            # The next beat says it.
            _log.warning("lease.not_renewed", reason=error.message)

    def stop(self, *, is_clean: bool) -> None:
        """Stop beating; a worker that handed all its runs back removes its row."""
        self._is_stopping.set()
        for thread in self._threads:
            thread.join()
        if is_clean:
            self._db.run("lease.remove", lambda tx: leases.remove(tx, self._executor_id))
        if self._lock is not None:
            self._lock.close()

    def _renew(self, tx: Tx) -> bool:
        ttl_us = round(LEASE_S * 1_000_000)
        return leases.renew(tx, self._executor_id, ttl_us=ttl_us, is_draining=self._is_draining)

    def _beat(self) -> None:
        pause_s = BEAT_S
        while not self._is_stopping.wait(pause_s):
            began_s = _uptime_s()
            try:
                with self._db.transaction("lease.renew") as tx:
                    is_mine = self._renew(tx)
            except UnavailableError as error:
                _log.warning("lease.not_renewed", reason=error.message)
                pause_s = 1.0
                continue
            if not is_mine:
                self._on_lost("another worker took it for dead")
                return
            # From before the transaction: the lease in the database ends no earlier.
            self._renewed_s, pause_s = began_s, BEAT_S

    def _watch(self) -> None:
        while not self._is_stopping.wait(1.0):
            if _uptime_s() - self._renewed_s > LEAVE_AFTER_S:
                self._on_lost(f"its lease was not renewed for {LEAVE_AFTER_S:.0f} s")
                return


def find_dead(db: Database, me: ExecutorId) -> dict[ExecutorId, bool]:
    """Return the workers whose runs may be taken over now, and whether each was seen to end.

    Known dead are, on SQLite, all others (this one holds the lock); on the same host, those whose
    process is gone; a stopped one past its lease is killed first. Elsewhere: past their lease. One
    that claimed a run after its row was removed, since it was paused meanwhile, is dead as well.
    """
    with db.reading() as tx:
        others = [e for e in leases.list_executors(tx) if e.executor_id != me]
        now_us = tx.now_us if others else 0
        orphaned = [executor_id for executor_id in leases.orphaned(tx) if executor_id != me]
    host = host_identity()
    is_alone = db.dialect == "sqlite"
    dead = {
        other.executor_id: is_alone or _is_here(other, host)
        for other in others
        if is_alone or _is_dead(other, host, is_over=other.lease_end_us < now_us)
    }
    return dead | dict.fromkeys(orphaned, is_alone)


def host_identity() -> str:
    """Return what tells two machines, two boots and two PID namespaces apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116  # a magic link
    except OSError:
        return platform.node()


def pid_started(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if it is gone or unseen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name of the program is in parentheses and may hold anything, also parentheses.
    state, *numbers = stat.rpartition(")")[2].split()
    return None if state in "ZX" else numbers[18]


def _is_here(other: Executor, host: str) -> bool:
    """Whether the process of a worker can be seen, and killed, from here."""
    return other.host == host and sys.platform == "linux"


def _is_dead(other: Executor, host: str, *, is_over: bool) -> bool:
    if not _is_here(other, host):
        return is_over
    if pid_started(other.pid) != other.pid_started:
        return True
    return is_over and _kill(other)


def _kill(other: Executor) -> bool:
    """Kill a worker that is stopped past its lease; return whether it was seen to end."""
    try:
        process = os.pidfd_open(other.pid)
    except OSError:
        return False
    try:
        if pid_started(other.pid) != other.pid_started:
            return True
        _log.warning("worker.killed", executor_id=other.executor_id, pid=other.pid)
        signal.pidfd_send_signal(process, signal.SIGKILL)
        return bool(select.select([process], [], [], _KILL_WAIT_S)[0])
    except OSError:
        return False
    finally:
        os.close(process)


def _lock_beside(database: Path) -> BinaryIO:
    lock = database.with_name(f"{database.name}.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ConflictError(
            f"another process serves `{database}`; stop it first, or use Postgres"
        ) from None
    return lock


def _uptime_s() -> float:
    """Return a clock that counts on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
