from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.release import Release
from interlock.manifest.diff import Change, diff
from interlock.manifest.load import load
from interlock.testing.recorder_project import session_files
from tests.manifest.sample import FILES, FIND_2, FIND_IN_PROD, TWO_VERSIONS, changed

LIVE = replace(load(FILES), number=4)
GRANT = "policies/grants/desk.cedar"


def _changes(files: dict[str, str]) -> tuple[Change, ...]:
    return diff(LIVE, load(files)).changes


def test_equal_projects_have_no_changes() -> None:
    """Nothing changed, and the text says so."""
    found = diff(LIVE, load(FILES))

    assert () == found.changes
    assert "No changes to release 4." == found.to_text()


def test_new_right_is_listed_first_and_by_name() -> None:
    """A seat that gains a tool is widening; the change of its workflow is not."""
    files = changed("workflows/triage.yaml", "version: 1", "version: 2")
    text = files["workflows/triage.yaml"].replace(
        "\ntools: [desk.issue.find]", "\ntools: [desk.issue.find, desk.issue.create]"
    )

    found = diff(LIVE, load({**files, "workflows/triage.yaml": text}))

    gained = Change(
        kind="tools of seat",
        name="triage/workflow",
        action="added",
        is_widening=True,
        details=("desk.issue.create",),
    )
    assert [gained, ("workflow", "triage", "changed")] == [
        found.changes[0],
        *[(change.kind, change.name, change.action) for change in found.changes[1:]],
    ]
    assert found.to_text().startswith(
        "Changes to release 4:\n\nRights and risks\n  + tools of seat triage/workflow\n"
        "      desk.issue.create\n\nDefinitions\n  ~ workflow triage\n"
    )


def test_lost_right_is_no_widening() -> None:
    """A seat that loses a tool is listed among the definitions."""
    files = changed("workflows/triage.yaml", "version: 1", "version: 2")
    text = files["workflows/triage.yaml"].replace("version: 2", "version: 2", 1)
    fewer = text.replace("\ntools: [desk.issue.find]", "\ntools: []").replace(
        '  - {name: look, tool: desk.issue.find, args: {ref: "input:/ref"}, share: seen}\n', ""
    )
    fewer = fewer.replace(', input: {seen: "shared:seen/found"}', "")

    found = _changes({**files, "workflows/triage.yaml": fewer})

    assert [("tools of seat", "triage/workflow", "removed", False)] == [
        (c.kind, c.name, c.action, c.is_widening) for c in found if c.kind == "tools of seat"
    ]


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        ("risk: 2", "risk: 3", "risk: 2 -> 3"),
        ("risk: 2", "risk: 1", "risk: 2 -> 1"),
        (
            "sink: {accepts: [pii], external: false}",
            "sink: {accepts: [], external: false}",
            'sink: {"accepts":["pii"],"is_external":false} -> {"accepts":[],"is_external":false}',
        ),
        (
            "dev/bot",
            "dev/other",
            "dev: desk-dev with secret://desk/dev/bot -> desk-dev with secret://desk/dev/other",
        ),
        (
            '"secret://desk/dev/bot"',
            "{triage: secret://desk/dev/own}",
            (
                "dev: desk-dev with secret://desk/dev/bot -> "
                "desk-dev with secret://desk/dev/own for triage"
            ),
        ),
    ],
)
def test_what_a_tool_may_do_outside_is_listed_first(old: str, new: str, detail: str) -> None:
    """Changes of risk, group, class, labels and credentials come before all others."""
    files = changed("tools/create.yaml", old, new)
    text = files["tools/create.yaml"].replace("version: 2", "version: 3")

    found = _changes({**files, "tools/create.yaml": text})

    assert (
        Change(
            kind="risk of tool",
            name="desk.issue.create",
            action="changed",
            is_widening=True,
            details=(detail,),
        )
        == (found[0])
    )


def test_policies_are_compared_one_by_one() -> None:
    """A new grant and a lost guardrail widen; a new guardrail and a lost grant do not."""
    forbid = '@id("no") @why("no") forbid (principal, action in Action::"write", resource);\n'
    guarded = {**FILES, "policies/guardrails/a.cedar": forbid}
    ungranted = {path: text for path, text in guarded.items() if path != GRANT}

    forward = diff(load(guarded), load(FILES)).changes
    back = diff(load(FILES), load(guarded)).changes
    granted = diff(load(ungranted), load(guarded)).changes
    revoked = diff(load(guarded), load(ungranted)).changes

    lost, new = Change(kind="guardrail", name="no", action="removed"), "added"
    assert (replace(lost, is_widening=True, details=("no",)),) == forward
    assert (replace(lost, action="added", details=("no",)),) == back
    assert [("grant", "desk-writes", new, True)] == [_key(change) for change in granted]
    assert [("grant", "desk-writes", "removed", False)] == [_key(change) for change in revoked]


def test_raised_autonomy_is_widening_and_shows_its_reason() -> None:
    """Who raised it and why stands beside the level."""
    (change,) = [
        c
        for c in _changes(changed("workflows/triage.yaml", "level: 2", "level: 3"))
        if c.kind == "autonomy"
    ]

    assert ("triage in dev", True, ("level 2 -> 3", "by ann: test")) == (
        change.name,
        change.is_widening,
        change.details,
    )


BUDGET_PATH = "budgets/desk.yaml"
BUDGET = """\
interlock: v1
kind: Budget
name: desk
title: Calls of the desk
scope: department
of: it
period: day
unit: calls
limit: 100
soft: 80
"""


@pytest.mark.parametrize(
    ("old", "new", "is_widening"),
    [
        ("limit: 100", "limit: 101", True),
        ("limit: 100", "limit: 90", False),
        ("period: day", "period: hour", True),
        ("of: it", "of: it\ntimezone: Europe/Berlin", True),
        ("soft: 80", "soft: 70", False),
        ("Calls of", "All calls of", False),
    ],
)
def test_budget_that_holds_less_than_before_is_widening(
    old: str, new: str, *, is_widening: bool
) -> None:
    """In prod as well, if any tool is there: it counts in all environments."""
    before, after = {BUDGET_PATH: BUDGET}, {BUDGET_PATH: BUDGET.replace(old, new)}

    (change,) = diff(load(FILES | before), load(FILES | after)).changes
    (there,) = diff(load(FILES | TWO_VERSIONS | before), load(FILES | TWO_VERSIONS | after)).changes

    assert ("budget", "desk") == (change.kind, change.name)
    assert (is_widening, False) == (change.is_widening, change.in_prod)
    assert (is_widening, is_widening) == (there.is_widening, there.in_prod)


def test_budget_that_goes_is_widening_and_one_that_comes_is_not() -> None:
    """Where none stood nothing was refused."""
    without, with_it = load(FILES), load(FILES | {BUDGET_PATH: BUDGET})

    (gone,), (come,) = diff(with_it, without).changes, diff(without, with_it).changes

    assert (True, False) == (gone.is_widening, come.is_widening)


def test_digest_fixes_both_sides() -> None:
    """The same change of another release is another diff; a release's number does not matter."""
    first = diff(Release(), load(FILES))

    assert first.digest == diff(replace(Release(), number=7), load(FILES)).digest
    assert first.digest != diff(LIVE, load(FILES)).digest
    assert {"base", "digest", "changes", "notices"} == set(first.to_json())


def _key(change: Change) -> tuple[str, str, str, bool]:
    return change.kind, change.name, change.action, change.is_widening


def test_a_door_for_an_outside_agent_is_a_right() -> None:
    """Where an agent may come in from outside is listed among the rights; its end is none."""
    with_door = load(session_files("http://127.0.0.1:9"))

    opened, closed = (
        [change for change in diff(*sides).changes if change.kind == "sessions of"]
        for sides in ((Release(), with_door), (with_door, Release()))
    )

    name = "outside/helper in dev"
    assert [(name, "added", True), (name, "removed", False)] == [
        (change.name, change.action, change.is_widening) for change in (*opened, *closed)
    ]


def test_a_version_that_moves_names_the_workflows_that_call_it() -> None:
    """In its environment alone, with their owners; another environment keeps its version."""
    before = load({**FILES, **TWO_VERSIONS, "tools/find.v2.yaml": ""})
    after = load({**FILES, **TWO_VERSIONS})

    moved = [change for change in diff(before, after).changes if change.kind == "version of tool"]

    [change] = moved
    assert ("desk.issue.find in dev", True) == (change.name, change.is_widening)
    assert ("version 1 -> 2", "called by `triage` of `owners`") == change.details


def test_what_a_version_of_one_environment_changes_is_a_risk() -> None:
    """Although the newest version is the same: it is new there."""
    wide = FIND_2.replace("accepts: [pii]", "accepts: []")
    both = {**FILES, **TWO_VERSIONS, "tools/find.v2.yaml": wide}
    in_prod = wide + FIND_IN_PROD.splitlines()[-1] + "\n"

    found = diff(load(both), load({**both, "tools/find.v2.yaml": in_prod})).changes

    [risk] = [change for change in found if change.kind == "risk of tool"]
    assert any(line.startswith("sink: ") for line in risk.details)


def test_what_is_deprecated_and_still_called_is_told_with_every_plan() -> None:
    """Where it is live, until when, by whom it is called, and what to use instead."""
    declared = (
        "deprecated: {since: 2026-11-01, until: 2026-12-31, replace_with: desk.issue.find@2,"
        " reason: slow}\n"
    )
    release = load({**FILES, **TWO_VERSIONS, "tools/find.yaml": FIND_IN_PROD + declared})

    found = diff(release, release)

    line = "desk.issue.find@1 in prod until 2026-12-31, by `triage` of `owners`: slow;"
    assert (f"{line} use desk.issue.find@2",) == found.notices
    assert found.to_text().endswith(f"Deprecated and still called\n  {found.notices[0]}")
    assert () == found.changes


def test_a_change_of_an_older_version_is_a_change() -> None:
    """Where it goes and whether it is deprecated: else an apply would find nothing to do."""
    declared = "deprecated: {since: 2026-11-01, reason: slow}\n"
    texts = {**FILES, **TWO_VERSIONS}

    found = diff(load(texts), load({**texts, "tools/find.yaml": FIND_IN_PROD + declared}))

    [change] = found.changes
    assert ("tool", "desk.issue.find@1", "changed") == (change.kind, change.name, change.action)
    assert change.details[0].startswith("deprecation: null -> ")


def test_a_model_for_an_outside_agent_is_a_right() -> None:
    """What an outside agent may ask through the model proxy is listed among the rights."""
    without = session_files("http://127.0.0.1:9")
    path = "agents/helper.yaml"
    with_model = without | {path: without[path] + "models: [small]\n"}

    given = diff(load(without), load(with_model)).changes
    taken = diff(load(with_model), load(without)).changes

    kind = "models of outside agent"
    assert [(kind, "helper", "added", True), (kind, "helper", "removed", False)] == [
        _key(change) for change in (*given, *taken) if change.kind == kind
    ]
