"""REST: triggers, what they did last, and pausing or firing a schedule by hand."""

from __future__ import annotations

from fastapi import APIRouter

from interlock.app import Interlock
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import WorkflowName
from interlock.domain.principal import Principal
from interlock.domain.record import object_to_json, to_json
from interlock.runtime import schedule
from interlock.runtime.schedule import TriggerState
from interlock.serve.auth import App
from interlock.serve.routes.runs import Operator, Reader
from interlock.serve.strict import StrictRoute
from interlock.store.tx import Tx

router = APIRouter(prefix="/triggers", tags=["triggers"], route_class=StrictRoute)


@router.get("")
def list_triggers(app: App, reader: Reader) -> JsonObject:
    """List all triggers of the live release, schedules with their last and next tick."""
    with app.db.reading() as tx:
        return {"triggers": to_json(_own(app, tx, reader))}


@router.get("/{workflow}/{name}")
def show_trigger(app: App, reader: Reader, workflow: str, name: str) -> JsonObject:
    """Return one trigger."""
    with app.db.reading() as tx:
        return object_to_json(_get(app, tx, reader, workflow, name))


@router.post("/{workflow}/{name}/pause")
def pause_trigger(app: App, operator: Operator, workflow: str, name: str) -> JsonObject:
    """Let a schedule fire no more until it is resumed."""
    with app.db.reading() as tx:
        _get(app, tx, operator, workflow, name)
    schedule.set_paused(app.intake, WorkflowName(workflow), name, is_paused=True)
    return {"is_paused": True}


@router.post("/{workflow}/{name}/resume")
def resume_trigger(app: App, operator: Operator, workflow: str, name: str) -> JsonObject:
    """Let a paused schedule fire again."""
    with app.db.reading() as tx:
        _get(app, tx, operator, workflow, name)
    schedule.set_paused(app.intake, WorkflowName(workflow), name, is_paused=False)
    return {"is_paused": False}


@router.post("/{workflow}/{name}/fire", status_code=201)
def fire_trigger(app: App, operator: Operator, workflow: str, name: str) -> JsonObject:
    """Start one run of a schedule now, apart from its ticks."""
    with app.db.reading() as tx:
        _get(app, tx, operator, workflow, name)
    fired = schedule.fire(app.intake, WorkflowName(workflow), name, by=operator.name)
    return {"run_id": fired.run_id}


def _own(app: Interlock, tx: Tx, reader: Principal) -> tuple[TriggerState, ...]:
    release = app.release(tx)
    return tuple(
        state
        for state in schedule.overview(tx, release)
        if release.workflows[state.workflow].tenant == reader.tenant
    )


def _get(app: Interlock, tx: Tx, reader: Principal, workflow: str, name: str) -> TriggerState:
    for state in _own(app, tx, reader):
        if (state.workflow, state.trigger.name) == (workflow, name):
            return state
    raise NotFoundError(f"there is no trigger `{workflow}/{name}`")
