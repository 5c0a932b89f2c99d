"""REST: runs, their steps, traces, shared state, and what may be done to them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from pydantic import Field

from interlock.domain.canonical import MAX_SAFE_INTEGER, Json, JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.principal import Principal, Role
from interlock.domain.record import object_to_json, to_json
from interlock.domain.run import Run, RunState
from interlock.domain.tool import Environment
from interlock.observe import trace
from interlock.observe.plans import PlanView, plans_of
from interlock.serve.auth import App, needs
from interlock.serve.strict import Body, StrictRoute
from interlock.store import blackboard, gates, runs, waits
from interlock.store.tx import Tx

router = APIRouter(prefix="/runs", tags=["runs"], route_class=StrictRoute)
READERS = (Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.OWNER, Role.ADMIN, Role.AUDITOR)
Reader = Annotated[Principal, Depends(needs(*READERS))]
Operator = Annotated[Principal, Depends(needs(Role.OPERATOR))]
Limit = Annotated[int, Query(ge=1, le=500)]
Before = Annotated[int | None, Query(ge=0, le=MAX_SAFE_INTEGER)]


class StartBody(Body):
    """Start a run by hand; `input` must fit the workflow's input contract."""

    workflow: str
    environment: Environment | None = None
    input: JsonObject = Field(default_factory=dict)


class SignalBody(Body):
    """What a `wait` step of that topic returns."""

    topic: str = Field(min_length=1, max_length=200)
    value: Json = None


@router.get("")
def list_runs(
    app: App,
    reader: Reader,
    *,
    workflow: WorkflowName | None = None,
    state: Annotated[list[RunState] | None, Query()] = None,
    limit: Limit = 50,
    before_us: Before = None,
) -> JsonObject:
    """List runs, newest first; `before_us` pages on."""
    with app.db.reading() as tx:
        found = runs.list_runs(
            tx,
            tenant=reader.tenant,
            workflow=workflow,
            states=tuple(state or ()),
            limit=limit,
            before_us=before_us,
        )
    return {"runs": [object_to_json(run) for run in found]}


@router.post("", status_code=201)
def start_run(
    app: App,
    operator: Operator,
    body: StartBody,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> JsonObject:
    """Start a run; the same `Idempotency-Key` returns the same run."""
    run_id, is_new = app.start_run(
        WorkflowName(body.workflow),
        environment=body.environment or app.config.environment,
        value=body.input,
        by=operator,
        key=idempotency_key,
    )
    return {"run_id": run_id, "is_new": is_new}


@router.get("/{run_id}")
def show_run(app: App, reader: Reader, run_id: str) -> JsonObject:
    """Return a run: what is done, running, waiting and still to come, and what it waits for."""
    with app.db.reading() as tx:
        run = own_run(tx, reader, run_id)
        return object_to_json(run) | {
            "steps": to_json(app.progress(tx, run)),
            "plans": [_plan(view) for view in plans_of(tx, run)],
            "waits": to_json(tuple(waits.list_waits(tx, run.run_id))),
            "full_gates": to_json(tuple(gates.list_full(tx, run.run_id))),
            "children": [child.run_id for child in runs.children(tx, run.run_id)],
            "cost_micro_usd": app.cost_of(tx, run),
        }


@router.get("/{run_id}/plan")
def show_plan(app: App, reader: Reader, run_id: str) -> JsonObject:
    """Return the plans of a run: each call, what policy said, what is done and what remains."""
    with app.db.reading() as tx:
        run = own_run(tx, reader, run_id)
        plans: list[Json] = [_plan(view) for view in plans_of(tx, run)]
    return {"run_id": run.run_id, "state": run.state, "plans": plans}


@router.get("/{run_id}/trace")
def show_trace(app: App, reader: Reader, run_id: str) -> JsonObject:
    """Return the trace of a run tree: spans with decisions, effects and cost, nested."""
    with app.db.reading() as tx:
        run = own_run(tx, reader, run_id)
        return object_to_json(trace.build(tx, run.run_id))


@router.get("/{run_id}/blackboard")
def show_blackboard(app: App, reader: Reader, run_id: str) -> JsonObject:
    """Return the shared state of a run tree: each entry with version, writer and labels."""
    with app.db.reading() as tx:
        run = own_run(tx, reader, run_id)
        entries: Json = to_json(tuple(blackboard.history(tx, run.request.root_id or run.run_id)))
    return {"entries": entries}


@router.post("/{run_id}/cancel")
def cancel_run(app: App, operator: Operator, run_id: str) -> JsonObject:
    """Ask a run and its children to stop: no new send after the current one."""
    with app.db.reading() as tx:
        run = own_run(tx, operator, run_id)
    return {"is_cancelling": app.cancel_run(run.run_id)}


@router.post("/{run_id}/pause")
def pause_run(app: App, operator: Operator, run_id: str) -> JsonObject:
    """Let a run and those below it stand still at their next operation, until resumed."""
    with app.db.reading() as tx:
        run = own_run(tx, operator, run_id)
    return {"is_pausing": app.pause_run(run.run_id)}


@router.post("/{run_id}/resume")
def resume_run(app: App, operator: Operator, run_id: str) -> JsonObject:
    """Let a paused or dead-lettered run and those below it go on."""
    with app.db.reading() as tx:
        run = own_run(tx, operator, run_id)
    return {"is_resumed": app.resume_run(run.run_id)}


@router.post("/{run_id}/signals", status_code=201)
def signal_run(
    app: App,
    operator: Operator,
    run_id: str,
    body: SignalBody,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> JsonObject:
    """Send a signal that a `wait` step of the run's workflow names; kept until the run asks.

    The same `Idempotency-Key` sends it once.
    """
    with app.db.reading() as tx:
        run = own_run(tx, operator, run_id)
    is_new = app.signal_run(run, body.topic, body.value, by=operator, key=idempotency_key)
    return {"is_new": is_new}


@router.get("/{run_id}/compensation")
def preview_compensation(app: App, reader: Reader, run_id: str) -> JsonObject:
    """Say which effects of a run an undo would undo, latest first; changes nothing."""
    with app.db.reading() as tx:
        run = own_run(tx, reader, run_id)
        return {"effects": to_json(app.preview_compensation(tx, run))}


@router.post("/{run_id}/compensate", status_code=201)
def compensate_run(app: App, operator: Operator, run_id: str) -> JsonObject:
    """Start the undo of an ended run; each undo takes the road like any call."""
    with app.db.reading() as tx:
        run = own_run(tx, operator, run_id)
    undo_id, is_new = app.compensate_run(run, by=operator)
    return {"run_id": undo_id, "is_new": is_new}


def _plan(view: PlanView) -> JsonObject:
    """Return a plan without arguments: those are shown on approvals, and redacted in the trace."""
    calls: list[Json] = [
        {key: value for key, value in object_to_json(call).items() if key != "args"}
        for call in view.calls
    ]
    return object_to_json(view) | {"calls": calls}


def own_run(tx: Tx, reader: Principal, run_id: str) -> Run:
    """Return a run of the reader's tenant; another tenant's does not exist for it."""
    run = runs.find(tx, RunId(run_id))
    if run is None or run.request.tenant != reader.tenant:
        raise NotFoundError(f"there is no run `{run_id}`")
    return run
