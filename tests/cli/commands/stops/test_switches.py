"""`kill`: what is stopped is named in parts, shown with its reason, and lifted, also in stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import done, interlock


@pytest.fixture(autouse=True)
def applied(project: Path) -> Path:
    """The sample project, live."""
    done("apply", "--yes")
    return project


def test_calls_are_stopped_and_go_on_in_stages() -> None:
    """Each command says what holds after it."""
    stopped = done("kill", "set", "environment=dev", "--reason", "it doubles")
    switch = stopped.splitlines()[0].rpartition(" ")[2]
    listed = done("kill", "status")

    narrowed = done(
        "kill",
        "lift",
        switch,
        "--leave",
        "environment=dev",
        "--leave",
        "writes",
        "--reason",
        "reads are fine",
    )
    left = narrowed.splitlines()[1].rpartition(" ")[2]
    lifted = done("kill", "lift", left, "--reason", "mended")

    assert "stopped: environment `dev`, by kill switch " in stopped
    assert "no calls of it are under way" in stopped
    assert "it doubles" in listed
    assert "still stopped: writes of environment `dev`, by kill switch " in narrowed
    assert "lifted" == lifted.strip()
    assert "nothing is stopped" in done("kill", "status")
    past = done("kill", "status", "--past")
    assert (switch in past, left in past) == (True, True)
    assert "until: lifted " in done("kill", "show", switch)


def test_in_prod_one_person_is_not_enough() -> None:
    """The first is told what has to happen, and the switch shows that it was asked."""
    stopped = done("kill", "set", "everything", "--reason", "it doubles", "--for", "600")
    switch = stopped.splitlines()[0].rpartition(" ")[2]

    asked = done("kill", "lift", switch, "--reason", "mended")

    assert "not lifted yet" in asked
    assert "to be lifted, says " in done("kill", "show", switch)
    assert switch in done("kill", "status")


@pytest.mark.parametrize("parts", [["prod"], ["system="], ["writes", "=x"], ["tool=a", "tool=b"]])
def test_a_part_that_is_none_says_which_there_are(parts: list[str]) -> None:
    """Nothing is stopped by half a scope."""
    refused = interlock("kill", "set", *parts, "--reason", "it doubles")

    assert 0 != refused.code
    assert "`environment=NAME`" in refused.err
    assert "nothing is stopped" in done("kill", "status")
