"""The page of a tool: everything that the registry knows of it, in words."""

from __future__ import annotations

from pathlib import Path

from tests.cli.terminal import done
from tests.manifest.sample import FILES, FIND_IN_PROD, TWO_VERSIONS


def test_the_page_says_where_versions_go_what_is_deprecated_and_who_calls(folder: Path) -> None:
    """One line for each environment and each workflow; the older version is to go."""
    declared = (
        "deprecated: {since: 2026-01-01, until: 2999-12-31, replace_with: desk.issue.find@2,"
        " reason: slow}\n"
    )
    texts = {**FILES, **TWO_VERSIONS, "tools/find.yaml": FIND_IN_PROD + declared}
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    applied = done("apply", "--yes")

    shown = done("tool", "show", "desk.issue.find")

    lines = [line.split() for line in shown.splitlines()]
    assert "desk.issue.find@1 in prod until 2999-12-31, by `triage` of `owners`: slow" in applied
    assert "v1 since 2026-01-01 until 2999-12-31: slow; use desk.issue.find@2" in shown
    assert "promise        changes nothing; may run twice" in shown
    assert "result         trusted; labels: none" in shown
    assert ["dev", "2", "desk-dev", "http", "secret://desk/dev/bot", "-"] in lines
    assert ["prod", "1", "desk-prod", "http", "secret://desk/prod/bot", "-"] in lines
    assert ["triage", "owners", "yes", "-", "-", "0"] in lines
