"""What policy decides on, and what is refused before it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import pytest

from interlock.calls.road import Live, Proposal
from interlock.calls.validate import expect_facts, facts_of
from interlock.domain.effect import EffectState
from interlock.domain.ids import StepName, ToolName
from interlock.domain.release import Release
from interlock.domain.run import Run, RunState
from interlock.manifest.load import load
from interlock.store import effects, migrate, runs
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.calls.call_bench import CallBench
from tests.conformance.store_rows import intent, running

URL = "http://127.0.0.1:9"
CREDENTIALS = "secret://recorder/dev/one"
KEYED = load(files(URL)).tools[ToolName(TOOL_OF["keyed"])]


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


def test_a_workflow_without_credentials_is_refused_and_nothing_is_sent(sqlite_url: str) -> None:
    """Those of another workflow are not used for it; the other one goes on with its own."""
    with CallBench(sqlite_url, edits=_signed_in("keyed")) as bench:
        served, refused = bench.call("keyed"), bench.call("blind")

        assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(served)
        assert [CREDENTIALS] == [call.known_binding.credentials for call in bench.outside.sent]
        effect = bench.one(refused)
        assert (EffectState.DENIED, "tool.no_credentials") == (effect.state, effect.error_code)
        assert "for the workflow `call_blind` here" in (effect.error_message or "")


def test_credentials_taken_away_while_people_are_asked_are_not_used(sqlite_url: str) -> None:
    """The release that is live when a call would be sent counts, not that of its proposal."""
    edits = _signed_in("keyed")
    with CallBench(sqlite_url, approve=True, edits=edits) as bench:
        run_id = bench.call("keyed")
        [approval] = bench.asked(run_id)
        bench.apply({**files(URL, approve=True), **_signed_in("blind")})
        bench.approve(approval)

        assert "tool.no_credentials" == bench.one(run_id).error_code
        assert [] == bench.outside.sent


def _signed_in(effect_class: str) -> dict[str, str]:
    """Return the server and tools with credentials for the workflow of one class."""
    bound = f"{{server: recorder-dev, credentials: {{{WORKFLOW_OF[effect_class]}: {CREDENTIALS}}}}}"
    server = "servers/recorder-dev.yaml"
    return {server: f"{files(URL)[server]}auth: bearer\n"} | {
        path: text.replace("{server: recorder-dev}", bound)
        for path, text in files(URL).items()
        if path.startswith("tools/")
    }


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
    counted = facts_of(tx, Live(release=Release(), worlds={}), run, new, KEYED).calls_this_tool_1h
    effects.insert(tx, row)
    return counted
