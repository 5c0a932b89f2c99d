"""REST: how far workflows act by themselves, what they have shown for more, and who signs it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from interlock.domain.autonomy import EARNED_IN, HIGHEST, LEVELS, rung_key
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import EffectId, WorkflowName
from interlock.domain.principal import Principal, Role
from interlock.domain.record import object_to_json, to_json
from interlock.domain.release import Release
from interlock.domain.tool import ENVIRONMENTS, Environment
from interlock.domain.workflow import WorkflowSpec
from interlock.runtime.registry import ladder as climb
from interlock.serve.auth import App, needs
from interlock.serve.routes.runs import Reader
from interlock.serve.strict import Body, StrictRoute
from interlock.store import ladder

router = APIRouter(prefix="/autonomy", tags=["autonomy"], route_class=StrictRoute)
Owner = Annotated[Principal, Depends(needs(Role.OWNER))]
Stopper = Annotated[Principal, Depends(needs(Role.OPERATOR, Role.OWNER))]
Reviewer = Annotated[Principal, Depends(needs(Role.APPROVER))]
Reason = Annotated[str, Field(min_length=1, max_length=500)]


class PromoteBody(Body):
    """Why a workflow is to do more by itself."""

    reason: Reason


class DemoteBody(PromoteBody):
    """The level that it has at most from now on."""

    level: int = Field(ge=0, lt=HIGHEST)


class ReviewBody(Body):
    """Whether a person would have left it as it is; who would not says why."""

    effect_id: str = Field(max_length=64)
    is_agreed: bool
    note: Annotated[str, Field(max_length=500)] | None = None


@router.get("")
def list_levels(app: App, reader: Reader) -> JsonObject:
    """List the level of each workflow of the reader's tenant in each environment."""
    with app.db.reading() as tx:
        release = app.release(tx)
        rows = [
            _row(release, spec, environment)
            for _, spec in sorted(release.workflows.items())
            if spec.tenant == reader.tenant
            for environment in ENVIRONMENTS
            if environment == "dev" or rung_key(spec.name, environment) in release.ladder
        ]
    return {"levels": [*rows]}


@router.get("/{workflow}")
def show_level(app: App, reader: Reader, workflow: str) -> JsonObject:
    """Return the levels of a workflow, how they changed, and who waits for a second person."""
    with app.db.reading() as tx:
        release = app.release(tx)
        spec = _own(release, reader, workflow)
        earned: list[Json] = []
        for environment in EARNED_IN:
            if rung_key(workflow, environment) in release.ladder:
                asked = ladder.find_asked(tx, workflow, environment)
                earned.append(
                    _row(release, spec, environment)
                    | {
                        "asked": to_json(asked),
                        "history": to_json(ladder.history(tx, workflow, environment)),
                    }
                )
    return {"workflow": workflow, "levels": [_row(release, spec, "dev"), *earned]}


@router.get("/{workflow}/{environment}/evidence")
def show_evidence(app: App, reader: Reader, workflow: str, environment: Environment) -> JsonObject:
    """Return what a workflow has shown for its next step, and what is missing."""
    with app.db.reading() as tx:
        release = app.release(tx)
        spec = _own(release, reader, workflow)
        return object_to_json(climb.evidence_of(tx, release, spec.name, environment))


@router.post("/{workflow}/{environment}/promote")
def promote(
    app: App, owner: Owner, workflow: str, environment: Environment, body: PromoteBody
) -> JsonObject:
    """Raise a level by one step, once a second person has asked for the same within a day."""
    name = _known(app, owner, workflow)
    done = climb.promote(app.db, name, environment, by=owner, reason=body.reason)
    return object_to_json(done)


@router.post("/{workflow}/{environment}/demote")
def demote(
    app: App, stopper: Stopper, workflow: str, environment: Environment, body: DemoteBody
) -> JsonObject:
    """Lower a level at once."""
    name = _known(app, stopper, workflow)
    change = climb.demote(
        app.db, name, environment, level=body.level, by=stopper, reason=body.reason
    )
    return object_to_json(change)


@router.post("/reviews", status_code=201)
def review(app: App, reviewer: Reviewer, body: ReviewBody) -> JsonObject:
    """Say of the next draft, or unattended write, whether a person would have left it as it is."""
    said = climb.review(
        app.db,
        EffectId(body.effect_id),
        by=reviewer,
        is_agreed=body.is_agreed,
        note=body.note,
    )
    return object_to_json(said)


def _known(app: App, reader: Principal, workflow: str) -> WorkflowName:
    with app.db.reading() as tx:
        return _own(app.release(tx), reader, workflow).name


def _own(release: Release, reader: Principal, workflow: str) -> WorkflowSpec:
    spec = release.workflows.get(WorkflowName(workflow))
    if spec is None or spec.tenant != reader.tenant:
        raise NotFoundError(f"there is no workflow `{workflow[:80]}`")
    return spec


def _row(release: Release, spec: WorkflowSpec, environment: Environment) -> JsonObject:
    level = release.level(spec.name, environment)
    declared = spec.autonomy.get(environment)
    rung = release.ladder.get(rung_key(spec.name, environment))
    by, reason = ("", "nothing is declared") if declared is None else (declared.by, declared.reason)
    found: JsonObject = {
        "workflow": spec.name,
        "environment": environment,
        "level": level,
        "meaning": LEVELS[level],
        "since": None,
        "by": by,
        "confirmed_by": None,
        "reason": reason,
        "ceiling": spec.ceiling.get(environment, HIGHEST),
    }
    if rung is None:
        return found
    signed: JsonObject = {
        "since": rung.since,
        "by": rung.by,
        "confirmed_by": rung.confirmed_by,
        "reason": rung.reason,
    }
    return found | signed
