"""Recorded histories are replayed strictly: no change may break runs that are under way."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import structlog

from interlock.domain.canonical import JsonObject, parse
from interlock.domain.errors import InputError
from interlock.domain.ids import StepName
from interlock.domain.run import RunOutcome
from interlock.runtime.durable.segment import Segment
from interlock.runtime.workflows import run_segment
from interlock.store.tables.runs import step as table
from interlock.testing import history
from tests.histories.record import FOLDER, SCENES, WAIT
from tests.runtime.plane import Plane, open_plane, release, workflow

FILES = sorted(FOLDER.glob("*.json"))
Wrap = Callable[[Segment], Awaitable[None]]


def read(name: str) -> JsonObject:
    """Return a recorded history."""
    value = parse((FOLDER / f"{name}.json").read_bytes())
    assert isinstance(value, dict)
    return value


def renamed(name: str, old: str, new: str) -> JsonObject:
    """Return a history in which a step has another name than the code gives it."""
    text = json.dumps(read(name)["step"])
    return {**read(name), "step": json.loads(text.replace(f'"name": "{old}', f'"name": "{new}'))}


async def replayed(
    tmp_path: Path, recorded: JsonObject, *, first: Wrap | None = None
) -> dict[str, tuple[str, ...]]:
    """Return how each run of a history diverges, by what it is; the outside is not reached."""
    with open_plane(tmp_path) as plane:

        async def code(segment: Segment) -> RunOutcome:
            if first is not None:
                await first(segment)
            return await run_segment(plane.services, segment)

        found = {}
        for run_id in history.load(plane.db, recorded):
            name = plane.get(run_id).request.agent or "root"
            found[str(name)] = await history.replay(plane.db, run_id, code)
        assert ([], [], []) == (plane.desk.titles, plane.desk.asked, plane.desk.retired)
        return found


def test_every_kind_of_run_has_a_history() -> None:
    """A new scene is recorded, and a file without a scene cannot be recorded again."""
    assert sorted(SCENES) == [file.stem for file in FILES]


@pytest.mark.parametrize("name", [file.stem for file in FILES])
async def test_a_recorded_history_replays_without_divergence(tmp_path: Path, name: str) -> None:
    """Interrupted anywhere, a run that was recorded earlier would go on with the code of today."""
    found = await replayed(tmp_path, read(name))

    assert dict.fromkeys(found, ()) == found
    assert ({"root", "solver"} if name == "handoff" else {"root"}) == found.keys()


async def test_a_renamed_step_diverges(tmp_path: Path) -> None:
    """The sentence names both: what the code asks for, and what it forgot."""
    found = await replayed(tmp_path, renamed("tool", "make", "file"))

    assert "`make#begin` is asked for, and was never recorded" in found["root"]


async def test_a_removed_step_diverges(tmp_path: Path) -> None:
    """A run that has it would do without what it recorded."""
    recorded = read("tool")
    steps = recorded["step"]
    assert isinstance(steps, list)
    extra = {**steps[-1], "name": "old#begin"} if isinstance(steps[-1], dict) else {}
    found = await replayed(tmp_path, {**recorded, "step": [*steps, extra]})

    assert ("`old#begin` was recorded, and is not asked for any more",) == found["root"]


async def test_a_new_operation_diverges(tmp_path: Path) -> None:
    """It would run late in runs that are past it."""

    async def first(segment: Segment) -> None:
        await segment.now_us(StepName("new"))

    found = await replayed(tmp_path, read("wait"), first=first)

    assert ("`new` is asked for, and was never recorded",) == found["root"]


async def test_another_input_diverges(tmp_path: Path) -> None:
    """The record wins in production; here it fails."""
    recorded = read("tool")
    text = json.dumps(recorded["run"]).replace("vpn", "mail")
    found = await replayed(tmp_path, {**recorded, "run": json.loads(text)})

    assert "`look/desk.issue.find` was recorded for another input" in found["root"]


async def test_another_end_diverges(tmp_path: Path) -> None:
    """So does what the run says in the end."""
    recorded = read("tool")
    rows = recorded["run"]
    assert isinstance(rows, list)
    assert isinstance(rows[0], dict)
    found = await replayed(tmp_path, {**recorded, "run": [{**rows[0], "end_state": "other"}]})

    assert ("its end_state was `other`, and is `done`",) == found["root"]


def test_only_what_has_ended_is_recorded(tmp_path: Path) -> None:
    """Half a run would replay as half a run."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT)))
        run_id = plane.start()

        with pytest.raises(InputError, match="has not ended"):
            history.record(plane.db, run_id)


def test_a_step_with_another_input_is_told_and_the_record_wins(tmp_path: Path) -> None:
    """The run goes on with what it recorded; the event says where it diverged."""
    with open_plane(tmp_path) as plane:
        plane.apply(SCENES["wait"].project)
        run_id = plane.start()
        _forge(plane)
        with structlog.testing.capture_logs() as events:
            plane.signal(run_id, "reply", "yes")

        assert {"look": {"found": "vpn"}, "reply": "yes", "make": {"id": "issue1"}} == (
            plane.get(run_id).output
        )
        assert [("replay.diverged", run_id)] == [
            (event["event"], event["run_id"]) for event in events if "diverged" in event["event"]
        ]


def _forge(plane: Plane) -> None:
    """Let recorded calls be of another input, and their steps not have ended."""
    plane.db.run(
        "test",
        lambda tx: [
            tx.connection.execute(table.delete().where(table.c.name == "look")),
            tx.connection.execute(
                table.update().where(table.c.input_digest.is_not(None)).values(input_digest="x")
            ),
        ],
    )
