"""Fixtures of the conformance suites: a database of each kind, and an engine of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.store import migrate
from interlock.store.engine import Database
from interlock.testing.clock import ManualClock
from scripts import postgres
from tests.conformance.durable_world import KINDS, World, open_world


@pytest.fixture
def clock() -> ManualClock:
    """The clock of `db`."""
    return ManualClock()


@pytest.fixture
def db(store_url: str, clock: ManualClock) -> Iterator[Database]:
    """A migrated database on a clock that stands still; the test runs on each kind."""
    database = Database(store_url, clock=clock)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """URL of a migrated database of this test's own."""
    url: str = request.getfixturevalue(f"migrated_{request.param}_url")
    return url


@pytest.fixture
def migrated_sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """URL of a migrated SQLite database."""
    copy = tmp_path / "store.db"
    shutil.copy(sqlite_template, copy)
    return f"sqlite:///{copy}"


@pytest.fixture
def migrated_postgres_url(
    postgres_template: str, postgres_server: postgres.Server
) -> Iterator[str]:
    """URL of a migrated Postgres database."""
    url = postgres_server.create_database(template=postgres_template)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "store.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: postgres.Server) -> Iterator[str]:
    """A migrated Postgres database to copy."""
    url = postgres_server.create_database()
    _migrate(url)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="module", params=KINDS)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """An engine on a database of its own, once for each implementation of the port."""
    kind: str = request.param
    if kind != "dbos_postgres":
        folder = tmp_path_factory.mktemp(kind)
        with open_world(kind, f"sqlite:///{folder / 'interlock.db'}") as opened:
            yield opened
        return
    server = request.getfixturevalue("postgres_server")
    url = server.create_database()
    with open_world(kind, url) as opened:
        yield opened
    server.drop_database(url)


def _migrate(url: str) -> None:
    database = Database(url)
    migrate.upgrade(database)
    database.close()
