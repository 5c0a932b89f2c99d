"""The road with tools that answer as a test has written down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.calls.call_bench import CallBench


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[CallBench]:
    """Run a plane whose writes pass by policy."""
    with CallBench(sqlite_url) as running:
        yield running


@pytest.fixture
def asking(sqlite_url: str) -> Iterator[CallBench]:
    """Run a plane whose writes wait for the group `data-owners`."""
    with CallBench(sqlite_url, approve=True) as running:
        yield running
