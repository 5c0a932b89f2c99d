from __future__ import annotations

from pathlib import Path

import pytest

from interlock.domain.run import RunState
from interlock.observe import trace
from interlock.serve.console import waterfall
from interlock.store import migrate
from interlock.store.engine import Database
from interlock.testing.clock import ManualClock
from tests.console import seed


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the seeded runs."""
    return ManualClock()


@pytest.fixture
def db(tmp_path: Path, clock: ManualClock) -> Database:
    """A database with the project applied."""
    database = Database(f"sqlite:///{tmp_path / 'interlock.db'}", clock=clock)
    migrate.upgrade(database)
    seed.apply(database)
    return database


def _drawn(db: Database, clock: ManualClock, story: seed.Story) -> waterfall.Waterfall:
    with db.reading() as tx:
        return waterfall.draw(trace.build(tx, story.run_id), clock.now_us())


def test_rows_follow_the_trace_with_calls_in_one_row(db: Database, clock: ManualClock) -> None:
    """A hand-off stands for its child run; decisions, approvals and sends are inside their call."""
    drawn = _drawn(db, clock, seed.routed(db, clock, "t-1"))

    assert [
        (0, "Workflow", "service-desk-triage"),
        (1, "Agent", "classifier"),
        (2, "Model request", "gpt-5-mini"),
        (2, "Tool call", "tracker.ticket.search"),
        (2, "Model request", "gpt-5-mini"),
        (1, "Hand-off", "resolver"),
        (2, "Model request", "gpt-5-mini"),
        (2, "Tool call", "tracker.ticket.update"),
        (2, "Tool call", "directory.share.grant"),
        (2, "Model request", "gpt-5-mini"),
    ] == [(row.depth, row.kind, row.title) for row in drawn.rows]
    assert ["span", "decide", "person", "decide", "send"] == [
        s.shape for s in drawn.rows[8].segments
    ]


def test_text_says_what_the_bar_shows(db: Database, clock: ManualClock) -> None:
    """The text of a bar names state, start, length and what happened inside."""
    drawn = _drawn(db, clock, seed.routed(db, clock, "t-1"))

    assert (
        "Tool call directory.share.grant, Succeeded: starts at 3.0 s, takes 12 min 34 s;"
        " Decision needs approval, 4 ms; Approval approved, 12 min 34 s;"
        " Decision allowed, 4 ms; Send succeeded, 310 ms"
    ) == drawn.rows[8].text


def test_waiting_for_people_is_said_and_drawn_short(db: Database, clock: ManualClock) -> None:
    """A call that waits says so, so does its agent, and the wait does not push the work aside."""
    story, _ = seed.waiting(db, clock, "t-1", {"share": "finance"})
    clock.advance(7200)

    drawn = _drawn(db, clock, story)

    assert ["Waiting", "Waiting", None, "Awaiting answer"] == [
        row.status and row.status.text for row in drawn.rows
    ]
    assert ["2 h 00 min"] == [label for *_, label in drawn.gaps]


def test_refused_call_shows_who_refused(db: Database, clock: ManualClock) -> None:
    """A denied call is a row with the state and no send."""
    drawn = _drawn(db, clock, seed.injected(db, clock, "t-1"))
    (row,) = [row for row in drawn.rows if row.kind == "Tool call"]

    assert "Denied" == (row.status and row.status.text)
    assert ["span", "decide"] == [segment.shape for segment in row.segments]


def test_open_spans_reach_to_now(db: Database, clock: ManualClock) -> None:
    """What is still at work ends at the right edge and is marked as growing."""
    story = seed.working(db, clock, "t-1")
    clock.advance(3)

    drawn = _drawn(db, clock, story)

    last = drawn.rows[-1]
    assert (True, "100.00%", "3.0 s") == (last.is_open, last.segments[0].end, last.length)


def test_run_that_has_not_started_has_one_row(db: Database, clock: ManualClock) -> None:
    """A run without any span is drawn as itself."""
    story = seed.Story.begin(db, clock, "t-1")
    story.end(RunState.CANCELLED)

    drawn = _drawn(db, clock, story)

    assert ["Cancelled"] == [row.status and row.status.text for row in drawn.rows]
