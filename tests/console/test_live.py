from __future__ import annotations

import httpx2
from playwright.sync_api import expect

from interlock.domain.approval import ApprovalState
from interlock.serve.auth import SESSION_COOKIE, hash_secret
from interlock.store import approvals, keys
from tests.console import seed
from tests.console.conftest import Console, Visit


def test_new_run_appears_in_the_list(console: Console, visit: Visit) -> None:
    """An open list shows a run that starts, and then its new state, without a reload."""
    visit.page.goto(f"{console.url}/runs")
    expect(visit.page.get_by_text("Nothing has run yet.")).to_be_visible()

    story = seed.working(console.interlock.db, console.clock, "ticket-1")
    expect(visit.page.get_by_text("ticket-1")).to_be_visible()
    story.end(end_state="routed")

    expect(visit.page.locator("tbody").get_by_text("Succeeded")).to_be_visible()


def test_open_run_grows_and_keeps_what_is_open_and_focused(console: Console, visit: Visit) -> None:
    """New spans arrive in an open page; an open call stays open and keeps the focus."""
    story = seed.working(console.interlock.db, console.clock, "ticket-1")
    visit.page.goto(f"{console.url}/runs/{story.run_id}")
    call = visit.page.locator("summary")
    call.focus()
    visit.page.keyboard.press("Enter")

    story.close("classify/2/model")
    story.think("classify", 3, 0.5)
    expect(visit.page.locator(".wf-row")).to_have_count(6)

    expect(visit.page.locator(".stations")).to_be_visible()
    expect(call).to_be_focused()


def test_open_bar_grows_as_time_goes_by(console: Console, visit: Visit) -> None:
    """Nothing happens but time: the open span's length still moves on."""
    story = seed.working(console.interlock.db, console.clock, "ticket-1")
    visit.page.goto(f"{console.url}/runs/{story.run_id}")

    console.clock.advance(60)

    expect(visit.page.locator(".wf-row").last).to_contain_text("1 min 00 s")


def test_answered_approval_leaves_an_open_inbox(console: Console, visit: Visit) -> None:
    """An approval that is answered elsewhere disappears from the inbox."""
    _, approval = seed.waiting(console.interlock.db, console.clock, "t-1", {"share": "finance"})
    visit.page.goto(f"{console.url}/approvals")
    expect(visit.page.locator(".inbox li")).to_have_count(1)

    console.interlock.db.run(
        "test.answer",
        lambda tx: approvals.answer(
            tx, approval.approval_id, state=ApprovalState.APPROVED, by="bob", reason=None
        ),
    )

    expect(visit.page.locator(".inbox li")).to_have_count(0)
    expect(visit.page.get_by_text("Nothing waits for people.")).to_be_visible()


def test_pause_holds_and_resume_shows_the_newest(console: Console, visit: Visit) -> None:
    """A paused page stays as it is; resuming shows what is true by then."""
    story = seed.working(console.interlock.db, console.clock, "ticket-1")
    visit.page.goto(f"{console.url}/runs/{story.run_id}")
    rows = visit.page.locator(".wf-row")
    visit.page.keyboard.press("p")
    expect(visit.page.get_by_role("button", name="Resume live view")).to_be_visible()

    with visit.page.expect_event("console", lambda message: message.text == "held"):
        visit.page.evaluate(
            """() => document.addEventListener("htmx:sse:before:message",
                                              () => console.log("held"))"""
        )
        story.close("classify/2/model")
        story.think("classify", 3, 0.5)
    held = rows.count()
    visit.page.get_by_role("button", name="Resume live view").click()

    assert 5 == held
    expect(rows).to_have_count(6)


def test_stream_ends_with_the_session(console: Console, visit: Visit) -> None:
    """When a session ends, its open pages lead to sign in."""
    seed.working(console.interlock.db, console.clock, "ticket-1")
    visit.page.goto(f"{console.url}/runs")
    cookies = {c["name"]: c["value"] for c in visit.page.context.cookies()}

    console.interlock.db.run(
        "test.end", lambda tx: keys.end_session(tx, hash_secret(cookies[SESSION_COOKIE]))
    )

    visit.page.wait_for_url("**/sign-in")


def test_reconnecting_listener_gets_only_what_it_missed(console: Console, visit: Visit) -> None:
    """A stream that resumes at a mark sends the next fragment once, and none for the same mark."""
    story = seed.failed(console.interlock.db, console.clock, "ticket-1")
    visit.page.goto(f"{console.url}/runs/{story.run_id}")
    cookies = {c["name"]: c["value"] for c in visit.page.context.cookies()}
    headers = {"cookie": f"{SESSION_COOKIE}={cookies[SESSION_COOKIE]}"}
    address = f"{console.url}/runs/{story.run_id}/live"

    with httpx2.stream("GET", address, headers=headers, timeout=10) as first:
        lines = first.iter_lines()
        mark = next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")
    resumed = headers | {"last-event-id": mark}
    with httpx2.stream("GET", address, headers=resumed, timeout=10) as second:
        story.put(seed.open_step(story, "late"))
        seen = []
        for line in second.iter_lines():
            seen.append(line)
            if line.startswith("id: "):
                break

    assert 1 == sum(line.startswith("id: ") for line in seen)
    assert f"id: {mark}" not in seen
    assert any("late" in line for line in seen)


def test_fragments_hold_no_controls(console: Console, visit: Visit) -> None:
    """What a stream carries has no form, script or htmx attribute."""
    _, approval = seed.waiting(console.interlock.db, console.clock, "t-1", {"share": "finance"})
    visit.page.goto(f"{console.url}/runs")
    cookies = {c["name"]: c["value"] for c in visit.page.context.cookies()}
    headers = {"cookie": f"{SESSION_COOKIE}={cookies[SESSION_COOKIE]}"}
    fragments = []

    for page in ("/runs", f"/runs/{approval.run_id}", "/approvals"):
        address = f"{console.url}{page}/live"
        with httpx2.stream("GET", address, headers=headers, timeout=10) as stream:
            lines = []
            for line in stream.iter_lines():
                if line.startswith("id: "):
                    break
                lines.append(line)
            fragments.append("\n".join(lines))

    assert 3 == sum("<h1>" in fragment for fragment in fragments)
    assert [] == [f for f in fragments for word in ("<form", "<script", " hx-") if word in f]
