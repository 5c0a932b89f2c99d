"""`workflow` and `trigger` of the live release."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import done, interlock


@pytest.fixture
def applied(project: Path) -> Path:
    """The sample project, live."""
    done("apply", "--yes")
    return project


@pytest.mark.usefixtures("applied")
def test_a_workflow_is_shown_whole() -> None:
    """What starts it, what it does, who approves, what follows a failure, how far it is trusted."""
    assert "look" in done("workflow", "list")
    assert (
        "look v1: Look at what comes in\n"
        "  owner        platform\n"
        "  department   it\n"
        "  triggers\n"
        "    delivery: webhook desk in dev\n"
        "    hourly: cron 0 * * * * in dev\n"
        "    by_hand: manual in dev\n"
        "  steps\n"
        "    hold: wait go\n"
        "  seats\n"
        "  approvals\n"
        "  if it fails\n"
        "    *: stop\n"
        "  success\n"
        "    ends in done, 0.9 of runs within 60 s\n"
        "  autonomy\n"
        "    level 0 in dev: drafts only; elsewhere see `interlock autonomy show`"
    ) == done("workflow", "show", "look")


@pytest.mark.usefixtures("applied")
def test_an_unknown_workflow_is_one_sentence() -> None:
    """Also with a name that is a path."""
    assert (1, "error: there is no workflow `lok`") == interlock("workflow", "show", "lok").refusal
    assert 1 == interlock("workflow", "show", "../../keys").code
