from __future__ import annotations

from pathlib import Path

from interlock.agents.shared import read_shared, share
from interlock.domain.ids import AgentName
from interlock.domain.label import Labels
from interlock.domain.workflow import Step
from interlock.store import blackboard, runs
from tests.runtime.plane import agent, open_plane, release, text, workflow

STEP = Step(name="solve", agent=AgentName("solver"))
PII = Labels(names=frozenset({"pii"}))


def test_reading_raises_the_labels_of_the_reader(tmp_path: Path) -> None:
    """Whoever reads a shared value is bound by what its writer had read."""
    with open_plane(tmp_path, solver=lambda _messages, _info: text("done")) as plane:
        plane.apply(release(workflow(STEP), agent("solver")))
        writer, reader = plane.get(plane.start()), plane.get(plane.start())
        with plane.db.transaction("test") as tx:
            runs.raise_labels(tx, writer.run_id, PII)
            share(tx, writer, "notes", {"a": 1}, writer="triage/solver")
            blackboard.write(
                tx,
                reader.run_id,
                "notes",
                {"b": 2},
                expected_version=0,
                labels=PII,
                writer="triage/solver",
                run_id=reader.run_id,
            )

            values = read_shared(tx, reader, ["notes", "absent"])

            assert {"notes": {"b": 2}} == values
            assert PII == runs.get(tx, reader.run_id).labels


def test_sharing_again_adds_a_version(tmp_path: Path) -> None:
    """The newest version is read, the history is kept."""
    with open_plane(tmp_path, solver=lambda _messages, _info: text("done")) as plane:
        plane.apply(release(workflow(STEP), agent("solver")))
        run = plane.get(plane.start())
        with plane.db.transaction("test") as tx:
            versions = [share(tx, run, "notes", n, writer="triage/solver") for n in range(3)]

            assert [1, 2, 3] == versions
            assert {"notes": 2} == read_shared(tx, run, ["notes"])
            assert [0, 1, 2] == [note.value for note in blackboard.history(tx, run.run_id)]
