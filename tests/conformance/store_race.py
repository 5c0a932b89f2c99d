"""Two transactions at once, for tests of what must not happen twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from interlock.store.engine import Database, Tx

T = TypeVar("T")


def both(db: Database, fn: Callable[[Tx], T]) -> tuple[T, T]:
    """Run `fn` in two transactions of two threads that begin together; return both results."""
    together = threading.Barrier(2, timeout=30)

    def work() -> T:
        together.wait()
        return db.run("test.race", fn)

    with ThreadPoolExecutor(2) as threads:
        one, two = threads.submit(work), threads.submit(work)
        return one.result(30), two.result(30)
