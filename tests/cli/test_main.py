from __future__ import annotations

from importlib.metadata import version

import pytest

from tests.cli.terminal import done, interlock

GROUPS = ("run", "approval", "effect", "call", "eval", "policy", "tool", "workflow", "trigger")


def test_the_version_is_that_of_the_package() -> None:
    """And asks nothing else."""
    assert f"interlock {version('interlock')}" == done("--version")


@pytest.mark.parametrize("group", [*GROUPS, "key", "secret", "why"])
def test_a_group_alone_shows_its_commands(group: str) -> None:
    """As a usage error, with exit code 2."""
    said = interlock(group)

    assert 2 == said.code
    assert f"Usage: interlock {group} [OPTIONS] COMMAND" in said.out + said.err


@pytest.mark.parametrize("arguments", [("rnu",), ("run", "lst"), ("run", "show"), ("plan", "--x")])
def test_a_command_that_is_not_understood_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """Exit code 2, nothing on stdout, no traceback."""
    said = interlock(*arguments)

    assert (2, "") == (said.code, said.out)
    assert "Usage: interlock" in said.err
    assert "Traceback" not in said.err
