"""Pages of approvals: the inbox, and one card with what will be sent and the answers to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from interlock.app import Interlock
from interlock.calls import approve
from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.errors import ConflictError, ForbiddenError, InputError
from interlock.domain.principal import Principal, Role
from interlock.serve.auth import App, Caller, SignedIn
from interlock.serve.card import Card, card_of
from interlock.serve.console.page import Form, PageRoute, field, form_needs, page, render
from interlock.serve.console.run_pages import chrome_of, first_of_plans
from interlock.serve.routes.approvals import own_approval
from interlock.serve.routes.runs import Reader
from interlock.serve.status import status_of
from interlock.serve.stream import Live, follow
from interlock.serve.strict import TEXT_MOST
from interlock.store import approvals, runs, versions
from interlock.store.tx import Tx

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Approver = Annotated[Principal, Depends(form_needs(Role.APPROVER))]

ANSWERED: Final = (ApprovalState.APPROVED, ApprovalState.REJECTED, ApprovalState.EXPIRED)
ANSWERED_SHOWN: Final = 10


@router.get("/approvals")
def inbox(app: App, caller: SignedIn, reader: Reader) -> HTMLResponse:
    """Show what waits for people, riskiest first, and what was answered last."""
    with app.db.reading() as tx:
        values = _inbox_values(app, tx, reader)
        values |= chrome_of(tx, caller) | {"mark": versions.of_inbox(tx, reader.tenant)}
    return page("approvals.html", values, caller=caller)


@router.get("/approvals/live", response_class=EventSourceResponse)
async def follow_inbox(
    request: Request, app: App, reader: Reader, *, after: str = ""
) -> AsyncIterator[ServerSentEvent]:
    """Stream the inbox whenever an approval is asked, answered or expires."""
    live = Live(
        mark=lambda tx: versions.of_inbox(tx, reader.tenant),
        fragment=lambda tx: render("_approvals.html", _inbox_values(app, tx, reader)),
    )
    async for event in follow(request, live, after=after):
        yield event


@router.get("/approvals/{approval_id}")
def show_approval(app: App, caller: SignedIn, reader: Reader, approval_id: str) -> HTMLResponse:
    """Show the card of one approval; the answers are there for those who may give them."""
    return _card_page(app, caller, reader, approval_id)


def found_approval(app: App, reader: Reader, approval_id: str) -> Approval:
    """Return the approval of an address before its stream begins."""
    with app.db.reading() as tx:
        return own_approval(tx, reader, approval_id)


@router.get("/approvals/{approval_id}/live", response_class=EventSourceResponse)
async def follow_approval(
    request: Request,
    approval: Annotated[Approval, Depends(found_approval)],
    *,
    after: str = "",
) -> AsyncIterator[ServerSentEvent]:
    """Stream only that the card has changed: nothing that is half written is ever replaced."""
    live = Live(
        mark=lambda tx: versions.of_approval(tx, approval.approval_id),
        fragment=lambda _tx: render("_changed.html", {}),
    )
    async for event in follow(request, live, after=after):
        yield event


@router.post("/approvals/{approval_id}/answer")
def answer(
    app: App, caller: SignedIn, approver: Approver, form: Form, approval_id: str
) -> Response:
    """Approve or reject exactly the call whose digest was shown, once."""
    try:
        with app.db.reading() as tx:
            approval = own_approval(tx, approver, approval_id)
        approve.answer(
            app.db,
            app.dispatch,
            approval.approval_id,
            by=approver,
            answer=_answer(form),
            digest=field(form, "digest"),
            reason=_reason(form),
        )
    except (ConflictError, ForbiddenError, InputError) as error:
        return _card_page(app, caller, approver, approval_id, error=error)
    return RedirectResponse(f"/approvals/{approval.approval_id}", 303)


def _answer(form: dict[str, str]) -> Literal["approve", "reject"]:
    match form.get("answer"):
        case "approve":
            return "approve"
        case "reject":
            return "reject"
        case _:
            raise InputError("answer with `approve` or `reject`")


def _reason(form: dict[str, str]) -> str | None:
    reason = field(form, "reason")
    if len(reason) > TEXT_MOST:
        raise InputError(f"a reason has at most {TEXT_MOST} characters")
    return reason or None


def _inbox_values(app: Interlock, tx: Tx, reader: Principal) -> dict[str, object]:
    release = app.release(tx)
    opened = approvals.list_open(tx, tenant=reader.tenant)
    asked = [(a, card_of(tx, release, a)) for a in first_of_plans(opened)]
    answered = approvals.list_approvals(
        tx, tenant=reader.tenant, states=ANSWERED, limit=ANSWERED_SHOWN
    )
    return {
        "environment": app.config.environment,
        "asked": sorted(asked, key=_urgency),
        "answered": [(a, card_of(tx, release, a)) for a in answered],
        "groups": reader.groups,
        "now_us": tx.now_us,
    }


def _urgency(item: tuple[Approval, Card]) -> tuple[int, int]:
    approval, card = item
    return -card.risk, approval.expires_us


def _card_page(
    app: Interlock,
    caller: Caller,
    reader: Principal,
    approval_id: str,
    *,
    error: ConflictError | ForbiddenError | InputError | None = None,
) -> HTMLResponse:
    with app.db.reading() as tx:
        approval = own_approval(tx, reader, approval_id)
        values: dict[str, object] = {
            "environment": app.config.environment,
            "approval": approval,
            "card": card_of(tx, app.release(tx), approval),
            "digest": approve.shown_digest(tx, approval),
            "refusal": _refusal(tx, approval, reader),
            "error": error,
            "mark": versions.of_approval(tx, approval.approval_id),
            "now_us": tx.now_us,
        }
        values |= chrome_of(tx, caller)
    status_code = 200 if error is None else status_of(error)
    return page("approval.html", values, caller=caller, status_code=status_code)


def _refusal(tx: Tx, approval: Approval, reader: Principal) -> str | None:
    """Return why this person cannot answer, None if they can."""
    if approval.expires_us <= tx.now_us:
        return "the time to answer has run out, which counts as a refusal"
    try:
        approve.check_person(tx, approval, runs.get(tx, approval.run_id), reader)
    except ForbiddenError as error:
        return error.message
    return None
