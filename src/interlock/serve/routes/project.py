"""REST: plan and apply a project folder, sent as texts by path."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from interlock.domain.canonical import JsonObject
from interlock.domain.principal import Principal, Role
from interlock.serve.auth import App, needs
from interlock.serve.routes.runs import READERS
from interlock.serve.strict import Body, StrictRoute

router = APIRouter(prefix="/project", tags=["project"], route_class=StrictRoute)
Owner = Annotated[Principal, Depends(needs(Role.OWNER))]
Planner = Annotated[Principal, Depends(needs(*READERS))]


class PlanBody(Body):
    """The files of a project folder: path (with forward slashes) to text."""

    files: dict[str, str]


class ApplyBody(PlanBody):
    """With `diff`, the digest of the difference that was shown, anything else is refused."""

    diff: str | None = None


@router.post("/plan")
def plan(app: App, _planner: Planner, body: PlanBody) -> JsonObject:
    """Say what applying these files would change, widenings of rights first; changes nothing."""
    return app.plan(body.files)


@router.post("/apply")
def apply(app: App, owner: Owner, body: ApplyBody) -> JsonObject:
    """Apply these files as one release, whole or not at all."""
    return app.apply(body.files, by=owner, diff=body.diff)
