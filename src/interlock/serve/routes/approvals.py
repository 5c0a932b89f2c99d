"""REST: approvals as an approver sees them, and their answers."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import Field

from interlock.calls import approve
from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import ApprovalId
from interlock.domain.principal import Principal, Role
from interlock.domain.record import object_to_json
from interlock.domain.release import Release
from interlock.serve.auth import App, needs
from interlock.serve.card import card_of
from interlock.serve.routes.runs import Reader
from interlock.serve.strict import TEXT_MOST, Body, StrictRoute
from interlock.store import approvals, runs
from interlock.store.tx import Tx

router = APIRouter(prefix="/approvals", tags=["approvals"], route_class=StrictRoute)
Approver = Annotated[Principal, Depends(needs(Role.APPROVER))]


class AnswerBody(Body):
    """An answer to the call, or the plan, whose digest was shown; a rejection needs a reason."""

    answer: Literal["approve", "reject"]
    digest: str
    reason: str | None = Field(default=None, max_length=TEXT_MOST)


@router.get("")
def list_approvals(
    app: App, reader: Reader, *, state: ApprovalState = ApprovalState.PENDING
) -> JsonObject:
    """List approvals of one state, asked last first, each with the call that it is about."""
    with app.db.reading() as tx:
        found = approvals.list_approvals(tx, tenant=reader.tenant, states=(state,))
        return {"approvals": [_shown(app.release(tx), tx, approval) for approval in found]}


@router.get("/{approval_id}")
def show_approval(app: App, reader: Reader, approval_id: str) -> JsonObject:
    """Return an approval with exactly the call that it binds to, and the plan of the call."""
    with app.db.reading() as tx:
        return _shown(app.release(tx), tx, own_approval(tx, reader, approval_id))


@router.post("/{approval_id}/answer")
def answer_approval(app: App, approver: Approver, approval_id: str, body: AnswerBody) -> JsonObject:
    """Approve or reject a call, or what a plan asks; works once, for the digest that was shown."""
    with app.db.reading() as tx:
        approval = own_approval(tx, approver, approval_id)
    answered = approve.answer(
        app.db,
        app.dispatch,
        approval.approval_id,
        by=approver,
        answer=body.answer,
        digest=body.digest,
        reason=body.reason,
    )
    return object_to_json(answered)


def own_approval(tx: Tx, reader: Principal, approval_id: str) -> Approval:
    """Return an approval of the reader's tenant; raises `NotFoundError`."""
    approval = approvals.get(tx, ApprovalId(approval_id))
    run = runs.find(tx, approval.run_id)
    if run is None or run.request.tenant != reader.tenant:
        raise NotFoundError(f"there is no approval `{approval_id}`")
    return approval


def _shown(release: Release, tx: Tx, approval: Approval) -> JsonObject:
    card = object_to_json(card_of(tx, release, approval))
    shown: JsonObject = {"digest": approve.shown_digest(tx, approval), "call": card}
    return object_to_json(approval) | shown
