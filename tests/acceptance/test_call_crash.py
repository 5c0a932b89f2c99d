"""Kill -9 at every named point of a call, restart, compare the ledger with what was received."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from interlock.domain.canonical import JsonObject
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF
from tests.acceptance.road_worker import work
from tests.acceptance.workers import run_worker

POINTS = (
    "call.intent.before",
    "call.intent.after",
    "send.before",
    "send.after",
    "reply.read",
    "call.outcome.before",
    "call.outcome.after",
)
NEVER_SENT = frozenset({"call.intent.after", "send.before"})
UNKNOWN = NEVER_SENT | {"send.after", "reply.read", "call.outcome.before"}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Run a recording tool server, which is never killed."""
    with Recorder(tmp_path) as running:
        yield running


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Where the workers of one test find everything."""

    folder: Path
    database_url: str
    recorder_url: str
    effect_class: str

    def work(self, *, finish: str, start: str) -> int | None:
        """Run one worker process to its end or its death and return its exit code."""
        workflow = WORKFLOW_OF[self.effect_class]
        where = (str(self.folder), self.database_url, self.recorder_url, workflow)
        return run_worker(work, *where, finish, start)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("effect_class", ["keyed", "conditional", "blind"])
def test_killed_at_every_point_of_a_call(
    database_url: str, recorder: Recorder, tmp_path: Path, effect_class: str
) -> None:
    """Keyed and conditional: one effect. Blind: never a second call, a person if in doubt."""
    plane = Plane(
        folder=tmp_path,
        database_url=database_url,
        recorder_url=recorder.url,
        effect_class=effect_class,
    )
    ended: dict[str, JsonObject] = {}
    before = "-"
    for point in (*POINTS, "-"):
        (tmp_path / "armed").write_text(f"{point} {TOOL_OF[effect_class]}")
        expected = 0 if point == "-" else -signal.SIGKILL
        assert expected == plane.work(finish=before, start=point), point
        if before != "-":
            ended[before] = json.loads((tmp_path / "ended.json").read_text())
        before = point

    for point, run in ended.items():
        _check(point, run, recorder, effect_class)


def _check(point: str, run: JsonObject, recorder: Recorder, effect_class: str) -> None:
    effect = _effect(run, TOOL_OF[effect_class])
    log = recorder.log()
    received = [r for r in log.requests if r.reference == effect["effect_id"] and r.body]
    applied = [a for a in log.effects if a.reference == effect["effect_id"]]
    if effect_class != "blind":
        assert ("succeeded", "succeeded", 1) == (run["run"], effect["state"], len(applied)), point
        return
    if point in UNKNOWN:
        assert ("waiting", "parked") == (run["run"], effect["state"]), point
    else:
        assert ("succeeded", "succeeded") == (run["run"], effect["state"]), point
    assert (0 if point in NEVER_SENT else 1) == len(received) == len(applied), point


def _effect(run: JsonObject, tool: str) -> JsonObject:
    effects = run["effects"]
    assert isinstance(effects, list)
    found = [effect for effect in effects if isinstance(effect, dict) and effect["tool"] == tool]
    assert 1 == len(found)
    return found[0]
