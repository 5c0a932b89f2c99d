"""A real console: an installation on SQLite with seeded rows, a server on loopback, a browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from interlock.app import Interlock
from interlock.config import Config
from interlock.domain.principal import PrincipalKind, Role
from interlock.serve.auth import mint_key, mint_link
from interlock.serve.http import create_app
from interlock.store.tx import Tx
from interlock.testing.clock import ManualClock
from tests.console import seed

START_LIMIT_S = 20
WAIT_MS = 10_000


@dataclass(kw_only=True)
class Console:
    """A running server, its clock and database, and how people come in."""

    interlock: Interlock
    clock: ManualClock
    url: str

    def link(
        self, name: str, *roles: Role, groups: frozenset[str] = frozenset({"desk-leads"})
    ) -> str:
        """Return a one-time sign-in link of a new person."""

        def mint(tx: Tx) -> str:
            key_id, _ = mint_key(
                tx,
                name=name,
                kind=PrincipalKind.USER,
                roles=frozenset(roles or {Role.VIEWER, Role.APPROVER}),
                groups=groups,
                by="test",
            )
            return mint_link(tx, key_id)

        return f"{self.url}/sign-in?link={self.interlock.db.run('test.link', mint)}"


@dataclass(kw_only=True)
class Visit:
    """A signed-in person's browser window, with what the browser complained about."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def listen(self, message: ConsoleMessage) -> None:
        """Keep errors and warnings; violations of the content policy are errors too."""
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    """A server with an applied project and no runs."""
    clock = ManualClock()
    interlock = Interlock.open(Config(data_dir=tmp_path / "data", port=0), clock=clock)
    seed.apply(interlock.db)
    config = uvicorn.Config(
        create_app(interlock),
        port=0,
        log_level="critical",
        lifespan="off",
        timeout_graceful_shutdown=0,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    ready = threading.Event()
    while not server.started and thread.is_alive():
        ready.wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Console(interlock=interlock, clock=clock, url=f"http://127.0.0.1:{port}")
    server.should_exit = True
    thread.join(START_LIMIT_S)
    interlock.close()


@pytest.fixture(scope="module")
def browser(chromium_path: Path) -> Iterator[Browser]:
    """A headless browser, one a module: while it is open its thread runs no other event loop."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium_path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture
def visit(console: Console, browser: Browser) -> Iterator[Visit]:
    """Ada of the desk leads, signed in."""
    context = browser.new_context()
    yield sign_in(context, console.link("ada"))
    context.close()


def sign_in(context: BrowserContext, link: str) -> Visit:
    """Open a window and sign in with a link."""
    context.set_default_timeout(WAIT_MS)
    visit = Visit(page=context.new_page())
    visit.page.on("console", visit.listen)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.goto(link)
    visit.page.get_by_role("button", name="Sign in").click()
    visit.page.wait_for_url("**/runs")
    return visit
