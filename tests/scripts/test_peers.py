"""Where the locked versions of peers and rivals come from."""

from __future__ import annotations

import pytest

from scripts import peers


@pytest.mark.parametrize(
    ("name", "package"),
    [("fastmcp", "fastmcp"), ("contextforge", "mcp-contextforge-gateway")],
)
def test_versions_are_those_of_the_lock_file(name: str, package: str) -> None:
    """Peers are locked in a folder of their own, what proofs compare with beside it."""
    assert peers.versions(name)[package][0].isdigit()
