"""Where the locked versions of clients and rivals come from."""

from __future__ import annotations

import pytest

from scripts import clients


@pytest.mark.parametrize(
    ("name", "package"),
    [("fastmcp", "fastmcp"), ("contextforge", "mcp-contextforge-gateway")],
)
def test_versions_are_those_of_the_lock_file(name: str, package: str) -> None:
    """Clients are locked in a folder of their own, what is no client beside it."""
    assert clients.versions(name)[package][0].isdigit()


def test_every_lock_file_of_a_client_can_be_installed() -> None:
    """`stock-clients` installs what the folder holds, so a rival does not belong there."""
    assert {"adk", "fastmcp", "inspector", "langgraph", "openai"} == {
        lock.stem for lock in clients.LOCKS.glob("*.txt")
    }
