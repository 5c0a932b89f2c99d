from __future__ import annotations

from contextlib import suppress

from playwright.sync_api import Browser, Error

from interlock.serve.auth import SESSION_COOKIE, SESSION_IDLE_US, SESSION_LIFE_US
from tests.console.conftest import Console, Visit, sign_in


def test_looking_at_a_link_does_not_use_it(console: Console, browser: Browser) -> None:
    """A preview may fetch the link as often as it likes: only the button signs in."""
    link = console.link("ada")
    context = browser.new_context()
    page = context.new_page()
    page.goto(link)
    page.goto(link)

    visit = sign_in(context, link)

    assert "ada" in visit.page.locator("header").inner_text()
    context.close()


def test_link_works_once(console: Console, browser: Browser) -> None:
    """The second use of a link is refused with what to do."""
    link = console.link("ada")
    first, second = browser.new_context(), browser.new_context()
    sign_in(first, link)

    page = second.new_page()
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()

    assert "used before or is too old" in page.locator("main").inner_text()
    assert [] == second.cookies()
    first.close()
    second.close()


def test_cookie_is_for_this_host_and_out_of_reach_of_scripts(visit: Visit) -> None:
    """The session cookie is host-only, secure, HTTP-only and not sent across sites."""
    (cookie,) = visit.page.context.cookies()

    assert SESSION_COOKIE == cookie["name"]
    assert (True, True, "Lax", "/") == (
        cookie["httpOnly"],
        cookie["secure"],
        cookie["sameSite"],
        cookie["path"],
    )


def test_signing_out_ends_the_session(console: Console, visit: Visit) -> None:
    """After signing out the old cookie opens nothing."""
    (cookie,) = visit.page.context.cookies()
    visit.page.get_by_role("button", name="Sign out").click()
    visit.page.wait_for_url("**/sign-in")
    visit.page.context.add_cookies(
        [
            {
                "name": cookie["name"],
                "value": cookie["value"],
                "domain": cookie["domain"],
                "path": cookie["path"],
                "secure": cookie["secure"],
            }
        ]
    )

    visit.page.goto(f"{console.url}/runs")

    assert f"{console.url}/sign-in" == visit.page.url


def test_idle_session_ends(console: Console, visit: Visit) -> None:
    """Half an hour without a request ends the session; an open page does not count as one."""
    console.clock.advance(SESSION_IDLE_US / 1_000_000 + 1)

    # The open page looks for news, and may find first that its session has ended.
    with suppress(Error):
        visit.page.goto(f"{console.url}/runs")
    visit.page.wait_for_url("**/sign-in")


def test_session_in_use_ends_after_its_life(console: Console, visit: Visit) -> None:
    """Requests keep a session, but not beyond twelve hours."""
    step_s = SESSION_IDLE_US / 1_000_000 - 60
    reached: list[str] = []

    for _ in range(int(SESSION_LIFE_US / 1_000_000 // step_s) + 1):
        console.clock.advance(step_s)
        visit.page.goto(f"{console.url}/runs")
        reached.append(visit.page.url)

    assert f"{console.url}/sign-in" == reached[-1]
    assert {f"{console.url}/runs"} == set(reached[:-1])


def test_address_that_is_not_known_is_explained(console: Console, visit: Visit) -> None:
    """A state or moment that no run has gives a page that says so, not a stack trace."""
    for query in ("state=sleeping", f"before_us={'9' * 30}"):
        answer = visit.page.goto(f"{console.url}/runs?{query}")

        assert answer is not None
        assert 400 == answer.status
    assert "not one that we know" in visit.page.locator("main").inner_text()
