"""Two transactions at once, for tests of what must not happen twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import text

from interlock.store.engine import Database
from interlock.store.tx import Tx

T = TypeVar("T")
_BLOCKED = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def both(db: Database, fn: Callable[[Tx], T]) -> tuple[T, T]:
    """Run `fn` in two transactions of two threads that begin together; return both results."""
    together = threading.Barrier(2, timeout=30)

    def work() -> T:
        together.wait()
        return db.run("test.race", fn)

    with ThreadPoolExecutor(2) as threads:
        one, two = threads.submit(work), threads.submit(work)
        return one.result(30), two.result(30)


def wait_until_blocked(db: Database) -> None:
    """Return when some transaction of a Postgres database waits for a lock of another one."""
    deadline_s = time.monotonic() + 30
    with db.engine.connect() as plain:
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")
        while not connection.execute(_BLOCKED).scalar_one():
            assert time.monotonic() < deadline_s, "nothing is blocked"
