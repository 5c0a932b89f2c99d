from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect

from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.principal import Role
from interlock.serve.auth import SESSION_COOKIE
from interlock.store import approvals
from tests.console import seed
from tests.console.conftest import Console, Visit, sign_in

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def asked(console: Console) -> Approval:
    """A call that waits for the desk leads; mallory requested it, grace sponsors the agent."""
    _, approval = seed.waiting(
        console.interlock.db, console.clock, "ticket-320", {"share": "finance-q3", "days": 30}
    )
    return approval


@pytest.fixture
def plain(console: Console, browser: Browser) -> Iterator[Page]:
    """Ada's window with scripts switched off."""
    context = browser.new_context(java_script_enabled=False)
    yield sign_in(context, console.link("ada")).page
    context.close()


def _now(console: Console, approval: Approval) -> Approval:
    with console.interlock.db.reading() as tx:
        return approvals.get(tx, approval.approval_id)


def _address(console: Console, approval: Approval) -> str:
    return f"{console.url}/approvals/{approval.approval_id}"


def test_approval_is_given_without_scripts(console: Console, plain: Page, asked: Approval) -> None:
    """From the inbox to the receipt, an approval needs no script."""
    plain.goto(f"{console.url}/approvals")
    plain.get_by_role("link", name="Grant access to a file share").click()
    plain.get_by_role("button", name="Approve this call").click()

    assert "Approved by ada of desk-leads" in plain.locator("article").inner_text()
    answered = _now(console, asked)
    assert (ApprovalState.APPROVED, "ada") == (answered.state, answered.answered_by)


def test_rejection_is_given_by_keyboard_with_its_reason(
    console: Console, visit: Visit, asked: Approval
) -> None:
    """A rejection carries the reason that was typed; no pointer is needed."""
    visit.page.goto(_address(console, asked))

    visit.page.get_by_label("Reason, which the agent is told").focus()
    visit.page.keyboard.type("ask the share's owner first")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_text("Rejected by ada of desk-leads")).to_be_visible()

    answered = _now(console, asked)
    assert (ApprovalState.REJECTED, "ask the share's owner first") == (
        answered.state,
        answered.answer_reason,
    )


def test_rejection_without_reason_is_refused(
    console: Console, plain: Page, asked: Approval
) -> None:
    """The server refuses a rejection whose reason is only spaces, and changes nothing."""
    plain.goto(_address(console, asked))
    plain.get_by_label("Reason, which the agent is told").fill("   ")
    plain.get_by_role("button", name="Reject this call").click()

    assert "a rejection needs a reason" in plain.get_by_role("alert").inner_text()
    assert ApprovalState.PENDING is _now(console, asked).state


def test_second_answer_is_refused_and_the_receipt_shown(
    console: Console, plain: Page, asked: Approval
) -> None:
    """A card that was answered elsewhere takes no second answer."""
    plain.goto(_address(console, asked))
    console.interlock.db.run(
        "test.answer",
        lambda tx: approvals.answer(
            tx, asked.approval_id, state=ApprovalState.REJECTED, by="bob", reason="no"
        ),
    )

    plain.get_by_role("button", name="Approve this call").click()

    assert "already" in plain.get_by_role("alert").inner_text()
    assert "Rejected by bob" in plain.locator("article").inner_text()
    assert 0 == plain.get_by_role("button", name="Approve this call").count()


def test_expired_approval_cannot_be_answered(
    console: Console, plain: Page, asked: Approval
) -> None:
    """When the time is over the card says so and has no buttons; an old form is refused."""
    plain.goto(_address(console, asked))
    console.interlock.db.run("test.expire", lambda tx: approvals.expire(tx, asked.approval_id))

    plain.get_by_role("button", name="Approve this call").click()

    assert "expired" in plain.get_by_role("alert").inner_text()
    assert ApprovalState.EXPIRED is _now(console, asked).state


@pytest.mark.parametrize(
    ("name", "roles", "groups", "why"),
    [
        ("mallory", {Role.APPROVER}, {"desk-leads"}, "requested this call"),
        ("grace", {Role.APPROVER}, {"desk-leads"}, "sponsors its agent"),
        ("bob", {Role.APPROVER}, {"finance"}, "is not in the group `desk-leads`"),
        ("carol", {Role.OPERATOR}, {"desk-leads"}, "is not an approver"),
    ],
)
def test_wrong_person_sees_the_card_without_buttons(
    console: Console,
    browser: Browser,
    asked: Approval,
    *,
    name: str,
    roles: set[Role],
    groups: set[str],
    why: str,
) -> None:
    """Requester, sponsor, outsiders and those without the role read why they cannot answer."""
    context = browser.new_context()
    link = console.link(name, *roles, groups=frozenset(groups))
    page = sign_in(context, link).page

    page.goto(_address(console, asked))

    assert why in page.locator("article").inner_text()
    assert 0 == page.locator("article button").count()
    context.close()


@dataclass(frozen=True, kw_only=True)
class _Post:
    """A form as a program would send it."""

    cookie: str
    csrf: str
    digest: str


@pytest.fixture
def post(console: Console, visit: Visit, asked: Approval) -> _Post:
    """Ada's session and the fields of the card."""
    visit.page.goto(_address(console, asked))
    cookies = {c["name"]: c["value"] for c in visit.page.context.cookies()}
    form = visit.page.locator(
        "form", has=visit.page.get_by_role("button", name="Approve this call")
    )
    return _Post(
        cookie=f"{SESSION_COOKIE}={cookies[SESSION_COOKIE]}",
        csrf=form.locator("[name=csrf]").input_value(),
        digest=form.locator("[name=digest]").input_value(),
    )


@pytest.mark.parametrize(
    ("changes", "headers", "status"),
    [
        ({"csrf": "forged"}, {}, 403),
        ({"csrf": ""}, {}, 403),
        ({"csrf": "%C3%A9"}, {}, 403),
        ({}, {"sec-fetch-site": "cross-site"}, 403),
        ({}, {"sec-fetch-site": "same-site"}, 403),
        ({}, {"sec-fetch-site": "", "origin": "http://evil.example"}, 403),
        ({"digest": "sha256:" + "0" * 64}, {}, 409),
        ({"answer": "modify"}, {}, 400),
        ({}, {"content-type": "text/plain"}, 400),
        ({}, {"cookie": ""}, 303),
    ],
)
def test_forged_or_stale_answer_is_refused(
    console: Console,
    asked: Approval,
    post: _Post,
    *,
    changes: dict[str, str],
    headers: dict[str, str],
    status: int,
) -> None:
    """A form from elsewhere, of another session or for another digest answers nothing."""
    fields = {"csrf": post.csrf, "digest": post.digest, "answer": "approve"} | changes
    sent = {"cookie": post.cookie, "sec-fetch-site": "same-origin", "content-type": FORM} | headers

    answer = httpx2.post(
        f"{_address(console, asked)}/answer",
        content="&".join(f"{name}={value}" for name, value in fields.items()),
        headers={name: value for name, value in sent.items() if value},
    )

    assert status == answer.status_code
    assert ApprovalState.PENDING is _now(console, asked).state


def test_half_written_reason_survives_a_change(
    console: Console, visit: Visit, asked: Approval
) -> None:
    """A card that changes says so, and leaves the form and its focus alone."""
    visit.page.goto(_address(console, asked))
    reason = visit.page.get_by_label("Reason, which the agent is told")
    reason.fill("because")

    console.interlock.db.run("test.expire", lambda tx: approvals.expire(tx, asked.approval_id))
    expect(visit.page.get_by_text("This approval has changed.")).to_be_visible()

    assert "because" == reason.input_value()
    expect(reason).to_be_focused()
