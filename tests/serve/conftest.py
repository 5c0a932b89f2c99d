"""Fixtures of the front doors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.testing.clock import ManualClock
from tests.serve.plane import Plane


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until it is moved."""
    return ManualClock()


@pytest.fixture
def plane(tmp_path: Path, clock: ManualClock) -> Iterator[Plane]:
    """An installation in which nothing is applied."""
    with Plane(tmp_path, clock=clock) as opened:
        yield opened
