"""What tests of runs share: a database whose time stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from interlock.store import migrate
from interlock.store.engine import Database
from interlock.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Database time, which stands still."""
    return ManualClock()


@pytest.fixture
def db(sqlite_url: str, clock: ManualClock) -> Iterator[Database]:
    """An empty database."""
    database = Database(sqlite_url, clock=clock)
    migrate.upgrade(database)
    yield database
    database.close()
