"""What a run needs of the worker that runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from interlock.domain.errors import VersionMissingError
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.release import RELEASE_FORMAT
from interlock.domain.run import Abilities
from interlock.domain.workflow import Step
from interlock.runtime.versions import ReleaseNeeds
from interlock.store import registry
from interlock.store.tables.runs import release as table
from tests.runtime.plane import CREATE, FIND, RETIRE, Plane, open_plane, release, workflow

LOOK = Step(name="look", tool=FIND, args={"title": "input:/title"})
NEWER = RELEASE_FORMAT + 1


def needs(plane: Plane, run_id: RunId, **changes: object) -> Abilities:
    """Return what a run needs, or one that differs from it."""
    run = plane.get(run_id)
    # The names are those of the request's members.
    request = replace(run.request, **changes)  # type: ignore[arg-type]
    return plane.read(lambda tx: ReleaseNeeds()(tx, replace(run, request=request)))


def rewrite(plane: Plane, number: int) -> None:
    """Let a release be one that a newer program wrote."""
    statement = table.update().where(table.c.number == number).values(format=NEWER)
    plane.db.run("test", lambda tx: tx.connection.execute(statement))


def test_a_run_needs_the_functions_of_its_tools_where_it_runs(tmp_path: Path) -> None:
    """Those of the seats and of plain steps, if they are bound in its environment."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(LOOK)))
        run_id = plane.queue()

        functions = frozenset({FIND, CREATE, RETIRE})
        assert Abilities(release_format=1, functions=functions) == needs(plane, run_id)
        assert Abilities(release_format=1) == needs(plane, run_id, environment="prod")
        assert Abilities(release_format=1) == needs(plane, run_id, workflow=WorkflowName("gone"))


def test_untrusted_functions_come_with_the_release(tmp_path: Path) -> None:
    """A worker needs none of them installed."""
    with open_plane(tmp_path) as plane:
        plain = release(workflow(LOOK))
        servers = {
            name: replace(server, kind="python-sandbox", code={"m.py": ""})
            for name, server in plain.servers.items()
        }
        plane.apply(replace(plain, servers=servers))

        assert Abilities(release_format=1) == needs(plane, plane.queue())


def test_a_newer_release_is_not_read(tmp_path: Path) -> None:
    """Neither that of the run nor the live one, whose policies decide every call."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(LOOK)))
        pinned = plane.queue(key="pinned")
        known, run = ReleaseNeeds(), plane.get(pinned)
        first = plane.read(lambda tx: known(tx, run))
        plane.apply(release(workflow(LOOK, title="Newer")))
        rewrite(plane, 2)

        assert RELEASE_FORMAT == first.release_format
        assert replace(first, release_format=NEWER) == plane.read(lambda tx: known(tx, run))
        assert NEWER == needs(plane, pinned, release=2).release_format
        with pytest.raises(VersionMissingError, match="release 2 has the format 2"):
            plane.read(lambda tx: registry.get_release(tx, 2))
