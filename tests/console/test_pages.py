from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from playwright.sync_api import Browser, Page, ViewportSize

from interlock.domain.canonical import JsonObject
from interlock.domain.principal import DEFAULT_TENANT, Role
from interlock.domain.switch import Scope
from interlock.serve.console import approval_pages, pages, run_pages, session
from interlock.store import switches
from interlock.store.tx import Tx
from tests.console import seed
from tests.console.conftest import Console, Visit, sign_in

HOSTILE: JsonObject = {
    "share": "<img src=x onerror=alert(1)><script>document.title='owned'</script>",
    "user": "m.okafor\u202e\u2066drowssap\u2069",
    "note": "zero\u200bwidth " + "long" * 2500,
    "hx": "<div hx-get='/approvals' hx-trigger='load'>x</div>",
}
PHONE: ViewportSize = {"width": 320, "height": 640}


@pytest.fixture
def full(console: Console) -> dict[str, str]:
    """Addresses of pages with typical and hostile content."""
    db, clock = console.interlock.db, console.clock
    routed = seed.routed(db, clock, "ticket-311")
    injected = seed.injected(db, clock, "ticket-318")
    failed = seed.failed(db, clock, "ticket-319")
    hostile, approval = seed.waiting(db, clock, "ticket-<b>320</b>\u202e", HOSTILE)
    working = seed.working(db, clock, "ticket-321")
    clock.advance(1)
    for run_id in (working.run_id, hostile.run_id):
        seed.lock(db, run_id, f"lock/{working.run_id}")
    return {
        "runs": "/runs",
        "routed": f"/runs/{routed.run_id}",
        "table": f"/runs/{routed.run_id}?view=table",
        "injected": f"/runs/{injected.run_id}",
        "failed": f"/runs/{failed.run_id}",
        "hostile": f"/runs/{hostile.run_id}",
        "hostile table": f"/runs/{hostile.run_id}?view=table",
        "working": f"/runs/{working.run_id}",
        "approvals": "/approvals",
        "card": f"/approvals/{approval.approval_id}",
        "missing": "/runs/none",
    }


@pytest.fixture(params=["light", "dark"])
def themed(console: Console, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Ada, signed in, once with a light and once with a dark theme."""
    context = browser.new_context(color_scheme=request.param)
    yield sign_in(context, console.link("ada"))
    context.close()


def _open_all(page: Page) -> None:
    for summary in page.locator("summary").all():
        summary.click()


@pytest.mark.timeout(180)
def test_every_page_is_accessible_and_quiet(
    console: Console, themed: Visit, full: dict[str, str]
) -> None:
    """No page breaks an accessibility rule, the content policy or a script, in either theme."""
    found: dict[str, str] = {}

    for name, address in full.items():
        themed.page.goto(console.url + address)
        _open_all(themed.page)
        results = Axe().run(themed.page)
        assert results.response["passes"], name
        if results.violations_count:
            found[name] = results.generate_report()

    assert {} == found
    assert [] == [text for text in themed.complaints if "404" not in text]


def test_every_page_fits_a_phone(console: Console, visit: Visit, full: dict[str, str]) -> None:
    """At 320 pixels no page scrolls sideways, whatever it shows."""
    visit.page.set_viewport_size(PHONE)
    overflowing: list[str] = []

    for name, address in full.items():
        visit.page.goto(console.url + address)
        _open_all(visit.page)
        if visit.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            overflowing.append(name)

    assert [] == overflowing


def test_every_page_says_what_is_stopped(
    console: Console, themed: Visit, full: dict[str, str]
) -> None:
    """Above all else, for whoever wonders why nothing happens; in plain text, also on a phone."""
    scope = Scope(environment="prod", system="servicedesk", writes_only=True)
    reason = f"<b>twice</b> {'x' * 200}"

    def stop(tx: Tx) -> None:
        switches.put(tx, DEFAULT_TENANT, scope, reason=reason, by="kim", expires_us=None)

    console.interlock.db.run("test.stop", stop)
    themed.page.set_viewport_size(PHONE)
    for name in ("runs", "approvals", "hostile"):
        themed.page.goto(console.url + full[name])
        notice = themed.page.locator("main > .notice.bad").first

        assert "Stopped: writes of environment `prod`, system `servicedesk`" in notice.inner_text()
        assert f"by kim: {reason}" in notice.inner_text()
        assert not themed.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert 0 == Axe().run(themed.page).violations_count


def test_run_at_a_full_gate_names_the_holder(
    visit: Visit, console: Console, full: dict[str, str]
) -> None:
    """Who waits for another run finds it with one click."""
    visit.page.goto(console.url + full["hostile"])

    notice = visit.page.locator("#gate-1")

    assert full["working"] == notice.locator("a").get_attribute("href")
    assert f"lock/{full['working'].removeprefix('/runs/')}" in notice.inner_text()


def test_hostile_text_stays_text(console: Console, visit: Visit, full: dict[str, str]) -> None:
    """Markup of a tool or trigger is shown as it is, and hidden characters are spelled out."""
    visit.page.goto(console.url + full["card"])
    sent = visit.page.locator(".sent")

    shown = sent.inner_text()

    assert "<img src=x onerror=alert(1)><script>" in shown
    assert "m.okafor⟨U+202E⟩⟨U+2066⟩drowssap⟨U+2069⟩" in shown
    assert "zero⟨U+200B⟩width longlong" in shown
    assert 0 == sent.locator("img, script, [hx-get]").count()
    assert "Grant access to a file share · Interlock" == visit.page.title()


def test_no_page_is_open_to_strangers(console: Console, full: dict[str, str]) -> None:
    """Without a session every page leads to sign in, and its stream ends before it begins."""
    addresses = [page for page in full.values() if "?" not in page]
    with httpx2.Client(base_url=console.url) as client:
        led_to = {client.get(page).headers.get("location") for page in addresses}
        heard = {
            (answer.status_code, answer.text)
            for page in addresses
            for answer in [client.get(f"{page}/live")]
        }

    assert {"/sign-in"} == led_to
    assert {(401, "event: signed-out\ndata: \n\n")} == heard


def test_every_page_carries_its_fence(console: Console, visit: Visit, full: dict[str, str]) -> None:
    """Each page has the strict content policy with a nonce of its own, and is not stored."""
    nonces = set()
    for address in full.values():
        answer = visit.page.goto(console.url + address)
        assert answer is not None
        policy = answer.headers["content-security-policy"]

        assert policy.startswith("default-src 'none'; script-src 'self' 'nonce-")
        assert "frame-ancestors 'none'; require-trusted-types-for 'script'" in policy
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert "no-referrer" == answer.headers["referrer-policy"]
        assert "no-store" == answer.headers["cache-control"]
        nonces.add(policy)

    assert len(full) == len(nonces)


def test_injected_htmx_attribute_does_nothing(
    console: Console, visit: Visit, full: dict[str, str]
) -> None:
    """An element that came without the page's nonce cannot make htmx send a request."""
    visit.page.goto(console.url + full["working"])
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))

    visit.page.evaluate(
        """() => {
            const bait = document.createElement("button");
            bait.setAttribute("hx-get", "/approvals");
            bait.setAttribute("hx-trigger", "load");
            document.body.append(bait);
            htmx.process(bait);
        }"""
    )
    visit.page.get_by_role("link", name="Runs").first.focus()

    assert [] == [url for url in asked if url.endswith("/approvals")]
    assert any("hx-csp" in text for text in visit.complaints)


def test_empty_console_names_the_next_command(console: Console, visit: Visit) -> None:
    """Without rows each list says what to do."""
    visit.page.goto(f"{console.url}/runs")
    runs = visit.page.locator(".empty").inner_text()
    visit.page.goto(f"{console.url}/approvals")
    approvals = visit.page.locator(".empty").inner_text()

    assert "interlock apply FOLDER" in runs
    assert "interlock run start WORKFLOW" in runs
    assert "Nothing waits for people." in approvals


def test_page_loads_little(console: Console, visit: Visit, full: dict[str, str]) -> None:
    """Scripts and styles of a page are under 60 KB as they come, before any compression."""
    sizes: list[int] = []
    visit.page.on(
        "response",
        lambda answer: (
            sizes.append(int(answer.headers["content-length"]))
            if "/static/" in answer.url and "content-length" in answer.headers
            else None
        ),
    )

    visit.page.goto(console.url + full["routed"])

    assert 0 < sum(sizes) < 70_000


def test_another_tenants_run_does_not_exist(console: Console, visit: Visit) -> None:
    """A run that is not there and one that is not ours read the same."""
    answer = visit.page.goto(f"{console.url}/runs/01890000-0000-7000-8000-000000000000")

    assert answer is not None
    assert 404 == answer.status
    assert "There is no run" in visit.page.locator("main").inner_text()


def test_every_page_states_who_may_call_it() -> None:
    """Each route of the console declares its roles; only signing in is for everyone."""

    def roles_of(dependant: Dependant) -> set[Role]:
        own = set(getattr(dependant.call, "roles", ()))
        return own.union(*(roles_of(inner) for inner in dependant.dependencies))

    routers = (pages, session, run_pages, approval_pages)
    routes = [route for module in routers for route in module.router.routes]
    found = {r.path: roles_of(r.dependant) for r in routes if isinstance(r, APIRoute)}

    assert len(found) >= 9
    assert ["/sign-in"] == [path for path, roles in found.items() if not roles]
    assert {Role.APPROVER} == found["/approvals/{approval_id}/answer"]
