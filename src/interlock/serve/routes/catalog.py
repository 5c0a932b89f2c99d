"""REST: what may run, as the live release has it: tools, workflows, and who made it so."""

from __future__ import annotations

from fastapi import APIRouter

from interlock.domain.canonical import JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import ToolName, WorkflowName
from interlock.domain.principal import Principal
from interlock.domain.record import object_to_json, to_json
from interlock.domain.release import Release, pin_of
from interlock.domain.tool import ToolVersion
from interlock.domain.workflow import WorkflowSpec
from interlock.serve.auth import App
from interlock.serve.routes.runs import Reader
from interlock.serve.strict import StrictRoute
from interlock.store import registry

router = APIRouter(tags=["catalog"], route_class=StrictRoute)


@router.get("/tools")
def list_tools(app: App, _reader: Reader) -> JsonObject:
    """List the live tools: version, owner, class, risk, labels and environments."""
    with app.db.reading() as tx:
        release = app.release(tx)
    return {"tools": [_row(tool) for _, tool in sorted(release.tools.items())]}


@router.get("/tools/{name}")
def show_tool(app: App, _reader: Reader, name: str) -> JsonObject:
    """Return one tool: its manifest, its pin, and which seats may propose it."""
    with app.db.reading() as tx:
        release = app.release(tx)
    tool = release.tools.get(ToolName(name))
    if tool is None:
        raise NotFoundError(f"there is no tool `{name}`")
    seats = [
        f"{workflow.name}/{seat.agent}"
        for workflow in release.workflows.values()
        for seat in workflow.seats
        if name in seat.tools
    ]
    return object_to_json(tool) | {
        "pin": pin_of(tool),
        "seats": to_json(sorted(seats)),
        "quarantine": to_json(
            {k: why for k, why in release.quarantine.items() if k.startswith(f"{name}@")}
        ),
    }


@router.get("/workflows")
def list_workflows(app: App, reader: Reader) -> JsonObject:
    """List the live workflows of the reader's tenant."""
    with app.db.reading() as tx:
        release = app.release(tx)
    own = [flow for _, flow in sorted(release.workflows.items()) if flow.tenant == reader.tenant]
    return {"workflows": [object_to_json(flow) for flow in own]}


@router.get("/workflows/{name}")
def show_workflow(app: App, reader: Reader, name: str) -> JsonObject:
    """Return one workflow: triggers, seats, approvals, failure modes, success criteria."""
    with app.db.reading() as tx:
        return object_to_json(own_workflow(app.release(tx), reader, name))


@router.get("/releases")
def list_releases(app: App, _reader: Reader) -> JsonObject:
    """List what was applied, newest first: number, digest, by whom, when."""
    with app.db.reading() as tx:
        return {"releases": to_json(tuple(registry.list_releases(tx)))}


def own_workflow(release: Release, reader: Principal, name: str) -> WorkflowSpec:
    """Return a live workflow of the reader's tenant; raises `NotFoundError`."""
    found = release.workflows.get(WorkflowName(name))
    if found is None or found.tenant != reader.tenant:
        raise NotFoundError(f"there is no workflow `{name}`")
    return found


def _row(tool: ToolVersion) -> JsonObject:
    return {
        "name": tool.name,
        "version": tool.version,
        "title": tool.title,
        "owner": tool.owner,
        "system": tool.system,
        "group": tool.group.value,
        "effect_class": tool.effect.effect_class.value,
        "risk": tool.risk,
        "is_egress": tool.is_egress,
        "source_labels": to_json(tool.source.labels),
        "accepts": to_json(tool.sink.accepts),
        "environments": to_json(sorted(tool.environments)),
    }
