"""Real processes: a worker is killed at one point after another, and its run ends all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.durable_worker import work
from tests.acceptance.workers import run_worker

POINTS = (
    "begin.after",  # the run is queued with its hint
    "run.claim.before",  # the hint is used up and the run still queued
    "step.before",  # it happened outside and is not recorded
    "commit.before",
    "run.start.after",  # the child is queued
    "run.finish.before",  # of the child
    "run.park.after",
    "wait.wake.after",
)


@pytest.mark.timeout(180)
def test_run_survives_a_kill_at_every_point(database_url: str, tmp_path: Path) -> None:
    """Killed with signal 9 eight times and started again, the run ends once, with one child."""
    armed, outside, result = tmp_path / "armed", tmp_path / "outside", tmp_path / "result"
    arguments = (database_url, str(armed), str(outside), str(result))

    for point in POINTS:
        armed.write_text(point)
        assert -9 == run_worker(work, *arguments), point
    assert 0 == run_worker(work, *arguments)

    expected = ["succeeded", ["happened", "committed", "child", True, "on"]]
    assert expected == json.loads(result.read_text())
    happened = outside.read_text().splitlines()
    assert 2 == happened.count("step")  # once more for `step.before`, and never again
    assert 1 == len({line for line in happened if line.startswith("child ")})
