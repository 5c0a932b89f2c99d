"""Fixtures of the tests of tools."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools import outside


@pytest.fixture
def site() -> Iterator[outside.Site]:
    """A plain HTTP server on a loopback port."""
    with outside.site() as opened:
        yield opened
