"""Pages of runs: the list, and one run as waterfall or table with the stations of each call."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from interlock.app import Interlock
from interlock.domain.approval import Approval
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.principal import Principal
from interlock.domain.run import Run, RunState
from interlock.observe import trace
from interlock.observe.plans import PlanView, plans_of
from interlock.serve.auth import App, Caller, SignedIn
from interlock.serve.card import Card, card_of
from interlock.serve.console import calls, waterfall
from interlock.serve.console.page import PageRoute, page, render
from interlock.serve.routes.runs import Before, Reader, own_run
from interlock.serve.stream import Live, follow
from interlock.store import approvals, blackboard, gates, runs, switches, versions, waits
from interlock.store.tx import Tx

router = APIRouter(route_class=PageRoute, include_in_schema=False)

View = Literal["waterfall", "table"]
PAGE_SIZE: Final = 50
_SECOND_US: Final = 1_000_000
_GROWS_EVERY_S: Final = {
    RunState.RUNNING: 1,
    RunState.COMPENSATING: 1,
    RunState.QUEUED: 5,
    RunState.WAITING: 5,
}
"""How often the page of a run is drawn anew only because time goes by."""


@router.get("/runs")
def list_runs(
    app: App,
    caller: SignedIn,
    reader: Reader,
    *,
    state: Annotated[list[RunState] | None, Query()] = None,
    workflow: Annotated[str | None, Query(max_length=200)] = None,
    before_us: Before = None,
) -> HTMLResponse:
    """Show the runs, newest first, by state and workflow."""
    wanted = _Wanted(states=tuple(state or ()), workflow=workflow or None, before_us=before_us)
    with app.db.reading() as tx:
        values = _list_values(app, tx, reader, wanted)
        values |= chrome_of(tx, caller) | {"mark": versions.of_runs(tx, reader.tenant)}
    return page("runs.html", values, caller=caller)


@router.get("/runs/live", response_class=EventSourceResponse)
async def follow_runs(
    request: Request,
    app: App,
    reader: Reader,
    *,
    state: Annotated[list[RunState] | None, Query()] = None,
    workflow: Annotated[str | None, Query(max_length=200)] = None,
    after: str = "",
) -> AsyncIterator[ServerSentEvent]:
    """Stream the first page of the list whenever a run starts, moves on or ends."""
    wanted = _Wanted(states=tuple(state or ()), workflow=workflow or None)
    live = Live(
        mark=lambda tx: versions.of_runs(tx, reader.tenant),
        fragment=lambda tx: render("_runs.html", _list_values(app, tx, reader, wanted)),
    )
    async for event in follow(request, live, after=after):
        yield event


@router.get("/runs/{run_id}")
def show_run(
    app: App, caller: SignedIn, reader: Reader, run_id: str, *, view: View = "waterfall"
) -> HTMLResponse:
    """Show one run with everything that it did."""
    with app.db.reading() as tx:
        run = own_run(tx, reader, run_id)
        values = _run_values(app, tx, run, view)
        values |= chrome_of(tx, caller) | {"mark": _mark(tx, run.run_id)}
    return page("run.html", values, caller=caller)


def found_run(app: App, reader: Reader, run_id: str) -> Run:
    """Return the run of an address before its stream begins."""
    with app.db.reading() as tx:
        return own_run(tx, reader, run_id)


@router.get("/runs/{run_id}/live", response_class=EventSourceResponse)
async def follow_run(
    request: Request,
    app: App,
    run: Annotated[Run, Depends(found_run)],
    *,
    view: View = "waterfall",
    after: str = "",
) -> AsyncIterator[ServerSentEvent]:
    """Stream the body of a run's page whenever the run moves on, and as its open bars grow."""

    def fragment(tx: Tx) -> str:
        return render("_run.html", _run_values(app, tx, runs.get(tx, run.run_id), view))

    live = Live(mark=lambda tx: _mark(tx, run.run_id), fragment=fragment)
    async for event in follow(request, live, after=after):
        yield event


def chrome_of(tx: Tx, caller: Caller) -> dict[str, object]:
    """Return what the frame of every page shows."""
    tenant = caller.principal.tenant
    return {
        "open_count": len(first_of_plans(approvals.list_open(tx, tenant=tenant))),
        "stopped": switches.list_in_force(tx, tenant),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Which runs a list shows."""

    states: tuple[RunState, ...]
    workflow: str | None
    before_us: int | None = None


def _list_values(app: Interlock, tx: Tx, reader: Principal, wanted: _Wanted) -> dict[str, object]:
    found = runs.list_runs(
        tx,
        tenant=reader.tenant,
        workflow=None if wanted.workflow is None else WorkflowName(wanted.workflow),
        states=wanted.states,
        limit=PAGE_SIZE + 1,
        before_us=wanted.before_us,
    )
    shown = found[:PAGE_SIZE]
    return {
        "environment": app.config.environment,
        "runs": shown,
        "costs": {run.run_id: app.cost_of(tx, run) for run in shown if not run.request.parent_id},
        "counts": runs.count_by_state(tx, tenant=reader.tenant),
        "states": wanted.states,
        "workflow": wanted.workflow,
        "is_first": wanted.before_us is None,
        "older_us": shown[-1].created_us if len(found) > PAGE_SIZE else None,
        "now_us": tx.now_us,
    }


def _mark(tx: Tx, run_id: RunId) -> str:
    run = runs.get(tx, run_id)
    mark = versions.of_tree(tx, run.request.root_id or run.run_id)
    grows_every_s = _GROWS_EVERY_S.get(run.state)
    return mark if grows_every_s is None else f"{mark}.{tx.now_us // _SECOND_US // grows_every_s}"


def first_of_plans(asked: Iterable[Approval]) -> list[Approval]:
    """Return approvals without those that are answered together with an earlier one."""
    first: dict[tuple[str, ...], Approval] = {}
    for approval in asked:
        alone = (approval.approval_id,)
        together = (approval.run_id, approval.plan or "", approval.group)
        first.setdefault(alone if approval.plan is None else together, approval)
    return list(first.values())


def _counted(plan: PlanView) -> list[tuple[str, int]]:
    """Return how many calls of a plan are how far."""
    return list(Counter(call.stage for call in plan.calls).items())


def _run_values(app: Interlock, tx: Tx, run: Run, view: View) -> dict[str, object]:
    root = trace.build(tx, run.run_id)
    run_ids = list(dict.fromkeys(node.run_id for node in trace.walk(root)))
    stations = calls.of_runs(tx, run_ids)
    release = app.release(tx)
    asked: list[tuple[Approval, Card]] = [
        (approval, card_of(tx, release, approval))
        for approval in first_of_plans(
            approval
            for call in stations.values()
            for approval in call.approvals
            if approval.state == "pending"
        )
    ]
    flow = release.workflows.get(run.request.workflow)
    return {
        "environment": app.config.environment,
        "run": run,
        "title": run.request.workflow if flow is None else flow.title,
        "view": view,
        "steps": app.progress(tx, run),
        "plans": plans_of(tx, run),
        "counted": _counted,
        "waterfall": waterfall.draw(root, tx.now_us),
        "total_micro_usd": root.total_micro_usd,
        "calls": stations,
        "asked": asked,
        "waits": [
            wait
            for wait in waits.list_waits(tx, run.run_id)
            if not wait.topic.startswith(("approval/", "gate/"))
        ],
        "full_gates": gates.list_full(tx, run.run_id),
        "parent_id": run.request.parent_id,
        "notes": blackboard.history(tx, run.request.root_id or run.run_id),
        "now_us": tx.now_us,
    }
