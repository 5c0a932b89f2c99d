"""Facts that policy decides on, read in transactions that run at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import pytest

from interlock.calls.road import Proposal
from interlock.calls.validate import expect_facts, facts_of
from interlock.domain.effect import EffectState
from interlock.domain.ids import StepName, ToolName
from interlock.domain.run import Run
from interlock.manifest.load import load
from interlock.store import effects, migrate, runs
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.recorder_project import TOOL_OF, files
from tests.conformance.store_rows import intent, running

KEYED = load(files("http://127.0.0.1:9")).tools[ToolName(TOOL_OF["keyed"])]


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A migrated database; the test runs on each kind."""
    database = Database(database_url)
    migrate.upgrade(database)
    yield database
    database.close()


def test_parallel_runs_see_each_others_calls_of_an_hour(db: Database) -> None:
    """The second is decided when the first is written, and counts it: limits hold over all runs."""
    one, two = running(db, "one"), running(db, "two")

    with ThreadPoolExecutor(1) as thread:
        with db.transaction("first") as tx:
            first = _decide(tx, one)
            second = thread.submit(db.run, "second", lambda tx: _decide(tx, two))
            wait([second], timeout=1)

        assert (0, 1) == (first, second.result(30))


def _decide(tx: Tx, run: Run) -> int:
    """Count a workflow's calls of a tool in an hour, and write one more."""
    proposal = Proposal(
        step_name=StepName("file"), tool=KEYED.name, arguments={}, seats=(), parent_span=""
    )
    expect_facts(tx, run, proposal)
    # What is asked with this was true before others were locked out.
    runs.lock_again(tx, run)
    row = replace(intent(run.run_id, at_us=tx.now_us), tool=KEYED.name, key_hash=None)
    new = replace(row, state=EffectState.PROPOSED, intent_us=None)
    counted = facts_of(tx, run, new, KEYED).calls_this_tool_1h
    effects.insert(tx, row)
    return counted
