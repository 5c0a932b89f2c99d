"""Deletes what nobody needs any more: hints of segments that ended, old counts, and old runs.

By one process at a time, in transactions so small that nobody waits for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import structlog

from interlock.domain.errors import UnavailableError
from interlock.domain.ids import ExecutorId, RunId
from interlock.store import counts, leases, retention
from interlock.store.engine import Database
from interlock.store.tx import Tx

ROLE = "retention"
EVERY_S = 600.0
_FIRST_S = 10.0
HINTS_KEPT_S = 86_400.0
COUNTS_KEPT_US = 7_200_000_000
DAY_US = 86_400_000_000
MOST_ROWS = 500
_FEWEST_ROWS = 10
_SLOW_S = 0.05
"""Half of what a writer may be kept waiting: from then on fewer rows at once."""
_TREES = 100
_BREATH_S = 0.01

_log = structlog.get_logger(__name__)

Clear = Callable[[int], int]
"""Deletes at most so many rows in one transaction and returns how many; 0 if nothing is left."""


class Retention:
    """A thread that looks every ten minutes, if it leads.

    `clear_hints(older_than_s, limit)` deletes hints of segments that ended. Runs are kept for
    `days` after their whole tree has ended, for ever if that is None.
    """

    def __init__(
        self,
        db: Database,
        executor_id: ExecutorId,
        *,
        clear_hints: Callable[[float, int], int],
        days: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._executor_id = executor_id
        self._clear_hints = clear_hints
        self._days = days
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interlock-retention", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; a transaction under way is finished first."""
        self._stop.set()
        self._thread.join()

    def run_once(self) -> bool:
        """Delete all that may be deleted now; False if another process leads."""
        if not self._leads():
            return False
        self._clear(lambda limit: self._clear_hints(HINTS_KEPT_S, limit))
        self._clear(self._delete_counts)
        while self._days is not None and not self._stop.is_set() and self._leads():
            with self._db.reading() as tx:
                before_us = tx.now_us - self._days * DAY_US
                trees = retention.list_expired(tx, before_us=before_us, limit=_TREES)
            for root_id in trees:
                begin = partial(retention.begin, root_id=root_id, before_us=before_us)
                if self._db.run("retention.begin", begin):
                    self._clear(partial(self._delete_some, root_id))
            if not trees:
                break
            _log.info("retention.deleted", runs=len(trees))
        return True

    def _leads(self) -> bool:
        def take(tx: Tx) -> bool:
            ttl_us = round(2 * EVERY_S * 1_000_000)
            return leases.take_leadership(tx, ROLE, self._executor_id, ttl_us)

        return self._db.run("retention.lead", take)

    def _delete_counts(self, limit: int) -> int:
        def delete(tx: Tx) -> int:
            return counts.delete_some(tx, before_us=tx.now_us - COUNTS_KEPT_US, limit=limit)

        return self._db.run("retention.delete", delete)

    def _delete_some(self, root_id: RunId, limit: int) -> int:
        delete = partial(retention.delete_some, root_id=root_id, limit=limit)
        return self._db.run("retention.delete", delete)

    def _clear(self, clear: Clear) -> None:
        """Delete until nothing is left, fewer rows at once if it takes too long."""
        limit = MOST_ROWS
        while not self._stop.is_set():
            began_s = self._clock()
            if not clear(limit):
                return
            if self._clock() - began_s > _SLOW_S:
                limit = max(_FEWEST_ROWS, limit // 4)
            # Whoever waits to write comes first.
            self._stop.wait(_BREATH_S)

    def _run(self) -> None:
        pause_s = _FIRST_S
        while not self._stop.wait(pause_s):
            pause_s = EVERY_S
            try:
                self.run_once()
            except UnavailableError as error:
                _log.warning("retention.unavailable", reason=error.message)
            except Exception:  # noqa: BLE001  # tried again later; nothing depends on it
                _log.exception("retention.failed")
