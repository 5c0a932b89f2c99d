"""Fixtures that tests of several rooms share: databases and a browser."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import pytest
import structlog

from interlock.tools.functions import ENTRY_POINTS
from scripts import browser, postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Where the URL of a server to test against is kept once the product's own settings are cleared.
GIVEN_SERVER = "TEST_DATABASE_URL"


def pytest_configure() -> None:
    """Clear the caller's settings of the product: tests, and processes they start, set their own.

    The one that is honoured is INTERLOCK_DATABASE_URL: databases are created on its server, and
    `default_database_url` is one of them.
    """
    url = os.environ.get(postgres.VARIABLE, "")
    if url.startswith("postgres"):
        os.environ[GIVEN_SERVER] = url
    for name in [name for name in os.environ if name.startswith("INTERLOCK_")]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Take back what a command did to the log: its stream is closed when its test ends."""
    # The engine's library keeps a handler of its own, made at its first start.
    kept = [(log, log.handlers[:], log.level) for log in (logging.root, logging.getLogger("dbos"))]
    yield
    structlog.reset_defaults()
    for log, handlers, level in kept:
        log.handlers[:] = handlers
        log.setLevel(level)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A real Postgres: the one named by INTERLOCK_DATABASE_URL, else one of this test process."""
    url = os.environ.get(GIVEN_SERVER)
    if url:
        yield postgres.server_at(url)
        return
    with postgres.running_server() as server:
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of an empty SQLite database of this test's own."""
    return f"sqlite:///{tmp_path / 'interlock.db'}"


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> Iterator[str]:
    """URL of an empty Postgres database of this test's own."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database; the test runs once on each kind of database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def default_database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database: Postgres if INTERLOCK_DATABASE_URL names one, else SQLite."""
    kind = "postgres" if os.environ.get(GIVEN_SERVER) else "sqlite"
    url: str = request.getfixturevalue(f"{kind}_url")
    return url


@pytest.fixture
def install_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """Install, until the test ends, a package `shop_tools` that offers one function.

    Called with the line of its entry point and the text of its module.
    """

    def install(entry: str, source: str) -> None:
        site = tmp_path / "site-packages"
        info = site / "shop_tools-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-tools\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{entry}\n")
        (site / "shop_tools.py").write_text(source)
        monkeypatch.syspath_prepend(site)

    yield install
    sys.modules.pop("shop_tools", None)


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """Path of a Chromium or Chrome that starts."""
    found = browser.find_browser()
    if found is None:
        pytest.fail("no browser found; `make test` installs one")
    return found
