"""REST: plan, back-test and apply a project folder, sent as texts by path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from interlock.domain.canonical import JsonObject, canonical_text
from interlock.domain.errors import InterlockError
from interlock.domain.principal import Principal, Role
from interlock.serve.auth import App, needs
from interlock.serve.routes.operations import span_of
from interlock.serve.routes.runs import READERS
from interlock.serve.strict import Body, StrictRoute

router = APIRouter(prefix="/project", tags=["project"], route_class=StrictRoute)
Owner = Annotated[Principal, Depends(needs(Role.OWNER))]
Planner = Annotated[Principal, Depends(needs(*READERS))]


class PlanBody(Body):
    """The files of a project folder: path (with forward slashes) to text."""

    files: dict[str, str]


class BacktestBody(PlanBody):
    """`since` is a time span as 90s, 15m, 1h or 7d."""

    since: str = "7d"


class ApplyBody(PlanBody):
    """With `diff`, the digest of the difference that was shown, anything else is refused."""

    diff: str | None = None


@router.post("/plan")
def plan(app: App, _planner: Planner, body: PlanBody) -> JsonObject:
    """Say what applying these files would change, widenings of rights first; changes nothing."""
    return app.plan(body.files)


@router.post("/backtest")
def backtest(app: App, planner: Planner, body: BacktestBody) -> StreamingResponse:
    """Decide the recorded calls of a time again by these files, a line of JSON for each step.

    Each has `progress` (done, total), the last one the `report`, or the `error` that ended it.
    """
    told = app.backtest(body.files, tenant=planner.tenant, span_us=span_of(body.since))
    return StreamingResponse(_lines(told), media_type="application/x-ndjson")


def _lines(told: Iterator[JsonObject]) -> Iterator[str]:
    try:
        for each in told:
            yield f"{canonical_text(each)}\n"
    except InterlockError as error:
        yield f"{canonical_text({'error': {'code': error.code, 'message': error.message}})}\n"


@router.post("/apply")
def apply(app: App, owner: Owner, body: ApplyBody) -> JsonObject:
    """Apply these files as one release, whole or not at all."""
    return app.apply(body.files, by=owner, diff=body.diff)
