"""Real processes: a worker is killed at one point of a plan after another, and repeats nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.plan_worker import work
from tests.acceptance.workers import run_worker

POINTS = (
    "model.outcome.after",  # the planner has answered; nothing is checked
    "plan.check.before",
    "plan.check.after",  # checked; nobody has been asked
    "plan.answer.after",
    "send.after desk.issue.find",  # a read, which may run again
    "call.outcome.after desk.issue.find",
    "call.intent.before desk.issue.create",
    "call.outcome.after desk.issue.create",  # in the middle: one of two writes is done
    "plan.end.before",
    "plan.end.after",
)


@pytest.mark.timeout(180)
def test_plan_repeats_nothing_after_a_kill_at_any_point(tmp_path: Path) -> None:
    """Killed ten times and started again, it is proposed once and each write happens once."""
    for point in POINTS:
        (tmp_path / "armed").write_text(point)
        assert -9 == run_worker(work, str(tmp_path)), point
    assert 0 == run_worker(work, str(tmp_path))

    happened = (tmp_path / "outside").read_text().splitlines()
    ended = json.loads((tmp_path / "result").read_text())["act"]["calls"]
    assert ["planned", "find vpn", "find vpn", "create vpn", "create after vpn"] == happened
    assert {"look": "succeeded", "first": "succeeded", "second": "succeeded"} == {
        name: end["state"] for name, end in ended.items()
    }
