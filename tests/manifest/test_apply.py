from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from interlock.domain.errors import ConflictError, ManifestError
from interlock.domain.ids import ToolName
from interlock.manifest.apply import ASKED_US, apply, goes_back, plan
from interlock.manifest.load import load
from interlock.store import registry
from interlock.store.engine import Database
from interlock.store.migrate import upgrade
from interlock.testing.clock import ManualClock
from tests.manifest.sample import FILES, changed

DEV = '{server: desk-dev, credentials: "secret://desk/dev/bot"}'
CREATE = ToolName("desk.issue.create")


@pytest.fixture
def db(default_database_url: str) -> Iterator[Database]:
    """An empty database with its tables."""
    database = Database(default_database_url)
    upgrade(database)
    yield database
    database.close()


def _live(db: Database) -> int:
    with db.reading() as tx:
        return registry.live_number(tx)


def test_apply_stores_what_was_planned(db: Database) -> None:
    """The plan stores nothing; the apply makes release 1 of exactly the files."""
    planned = plan(db, FILES)
    before = _live(db)

    applied = apply(db, FILES, by="ann", expected_diff_digest=planned.diff.digest)

    assert (0, 1) == (before, _live(db))
    assert planned.diff == applied.diff
    with db.reading() as tx:
        assert replace(load(FILES), number=1) == registry.get_release(tx, 1)


def test_broken_project_changes_nothing(db: Database) -> None:
    """A problem in one file leaves the live release as it is."""
    apply(db, FILES, by="ann")

    with pytest.raises(ManifestError):
        apply(db, changed("tools/find.yaml", "class: read", "class: red"), by="ann")

    assert 1 == _live(db)


def test_stale_plan_is_refused(db: Database) -> None:
    """What is applied is what was shown, or nothing."""
    shown = plan(db, FILES).diff.digest
    other = changed("workflows/triage.yaml", "level: 2", "level: 1")

    with pytest.raises(ConflictError, match="plan again"):
        apply(db, other, by="ann", expected_diff_digest=shown)

    assert 0 == _live(db)


def test_unchanged_project_makes_no_release(db: Database) -> None:
    """Applying the same files again returns the live release."""
    apply(db, FILES, by="ann")

    again = apply(db, FILES, by="bob")

    assert (1, ()) == (again.release.number, again.diff.changes)
    assert 1 == _live(db)


def test_published_version_is_protected_by_the_live_release(db: Database) -> None:
    """The rule holds against what is stored, not only within the files."""
    apply(db, FILES, by="ann")

    with pytest.raises(ManifestError, match="published and cannot change"):
        apply(db, changed("agents/clerk.md", "clerk", "boss"), by="ann")


def test_replaced_tool_version_is_kept(db: Database) -> None:
    """The release that replaces a tool version still holds the old one."""
    apply(db, FILES, by="ann")

    release = apply(db, changed("tools/create.yaml", "version: 2", "version: 3"), by="ann").release

    assert ["desk.issue.create@2"] == list(release.old_tools)


def test_deprecation_is_judged_by_the_day_of_the_apply(db: Database) -> None:
    """By the time of the database: a plan says so too, and nothing is stored."""
    declared = "deprecated: {since: 2020-01-01, until: 2020-02-01, reason: slow}\n"
    files = {**FILES, "tools/find.yaml": FILES["tools/find.yaml"] + declared}

    with pytest.raises(ManifestError, match="after its last day"):
        plan(db, files)
    with pytest.raises(ManifestError, match="after its last day"):
        apply(db, files, by="ann")
    assert 0 == _live(db)


def test_what_takes_two_is_asked_for_twice(default_database_url: str) -> None:
    """By two people, for the same difference, within a day; the first ask changes nothing."""
    clock = ManualClock()
    db = Database(default_database_url, clock=clock)
    upgrade(db)
    apply(db, FILES, by="ann")
    other = changed("workflows/triage.yaml", "level: 2", "level: 1")

    first = apply(db, other, by="ann", takes_two=True)
    again = apply(db, other, by="ann", takes_two=True)
    clock.advance(ASKED_US / 1_000_000 + 1)
    late = apply(db, other, by="bob", takes_two=True)
    done = apply(db, other, by="ann", takes_two=True)

    assert ["ann", "ann", "bob"] == [each.waits and each.waits.by for each in (first, again, late)]
    assert {1} == {each.diff.base for each in (first, again, late)}
    assert (None, 2) == (done.waits, done.release.number)
    with db.reading() as tx:
        kept = registry.list_releases(tx)[0]
    assert ("ann", "bob") == (kept.applied_by, kept.asked_by)
    db.close()


def test_only_what_was_live_before_is_a_way_back(db: Database) -> None:
    """The same version on the same server; anything beside it is a change like any other."""
    third = changed("tools/create.yaml", "version: 2", "version: 3")
    both = {**third, "tools/create2.yaml": f"{FILES['tools/create.yaml']}"}
    apply(db, FILES, by="ann")
    forth = apply(db, both, by="ann").release
    back = {
        **both,
        "tools/create.yaml": third["tools/create.yaml"].replace(DEV, f"{DEV[:-1]}, past: true}}"),
    }
    more = {**back, "project.yaml": both["project.yaml"].replace("[pii]", "[pii, secret]")}
    moved = [plan(db, files).release for files in (back, more, both)]

    assert 3 == forth.tools[CREATE].version
    with db.reading() as tx:
        assert [True, False, False] == [goes_back(tx, release) for release in moved]
