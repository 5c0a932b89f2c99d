"""How often a run is written: exact, so that a slower road shows before anybody measures time."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from interlock.app import Interlock
from proofs import plane

MOST_COMMITS = 16
_TRIES = 5
_ENOUGH_S = 60.0


def test_a_run_of_five_reads_takes_few_commits(tmp_path: Path, postgres_url: str) -> None:
    """From trigger to end, the dispatcher's own included: two for each call, and six beside."""
    with plane.installed(tmp_path, postgres_url) as interlock:
        interlock.start()

        # The least of some: now and then a heartbeat, or a sweep, comes in between.
        commits = min(_commits_of_a_run(interlock) for _ in range(_TRIES))

    assert commits <= MOST_COMMITS


def _commits_of_a_run(interlock: Interlock) -> int:
    before = _transactions(interlock)
    run_ids = plane.begin(interlock, plane.FIVE_READS, 1)
    plane.check_succeeded(plane.ended(interlock, run_ids, timeout_s=_ENOUGH_S))
    # Both questions are transactions as well.
    return _transactions(interlock) - before - 1


def _transactions(interlock: Interlock) -> int:
    """Return how many transactions the server has seen that could write anything."""
    with interlock.db.engine.begin() as connection:
        return int(connection.execute(text("SELECT pg_current_xact_id()::text")).scalar_one())
