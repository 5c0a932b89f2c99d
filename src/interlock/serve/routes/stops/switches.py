"""REST: kill switches, which calls operators have stopped, and letting them go on."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Query
from pydantic import Field

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import Effect
from interlock.domain.errors import InputError
from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.record import object_to_json
from interlock.domain.switch import KillSwitch, Scope
from interlock.domain.tool import Environment
from interlock.runtime import control
from interlock.serve.auth import App
from interlock.serve.routes.runs import Limit, Operator, Reader
from interlock.serve.strict import TEXT_MOST, Body, StrictRoute
from interlock.store import switches
from interlock.store.tx import Tx

router = APIRouter(prefix="/kill-switches", tags=["kill switches"], route_class=StrictRoute)

_MONTH_S = 31 * 86_400
_log = structlog.get_logger(__name__)
Reason = Annotated[str, Field(min_length=3, max_length=TEXT_MOST)]


class ScopeBody(Body):
    """What is stopped: what fits every part that is given."""

    environment: Environment | None = None
    department: str | None = None
    workflow: WorkflowName | None = None
    agent: AgentName | None = None
    tool: ToolName | None = None
    system: str | None = None
    model: str | None = None
    writes_only: bool = False

    def scope(self) -> Scope:
        """Return it as the domain has it."""
        return Scope(**self.model_dump())


class SetBody(Body):
    """What to stop, why, and for how long (None: until it is lifted).

    A scope without any part stops everything, and has to be meant: `everything`.
    """

    scope: ScopeBody
    reason: Reason
    for_s: int | None = Field(default=None, ge=1, le=_MONTH_S)
    everything: bool = False


class LiftBody(Body):
    """Why it may go, and what of it stays stopped; None: nothing."""

    reason: Reason
    leaving: ScopeBody | None = None


@router.get("")
def list_switches(
    app: App,
    reader: Reader,
    *,
    past: Annotated[bool, Query(description="also those that are lifted or over")] = False,
    limit: Limit = 100,
) -> JsonObject:
    """List the switches that stop something now, or all; each says what, why and by whom."""
    with app.db.reading() as tx:
        found = (
            switches.list_all(tx, reader.tenant, limit=limit)
            if past
            else switches.list_in_force(tx, reader.tenant)
        )
        return {"kill_switches": [_row(each, tx.now_us) for each in found]}


@router.post("")
def set_switch(app: App, operator: Operator, body: SetBody) -> JsonObject:
    """Stop calls and model requests from now on; returns the switch and what is under way."""
    scope = body.scope.scope()
    if body.everything is not (scope == Scope()):
        raise InputError("name what is to be stopped, or say `everything` and name nothing")
    done = control.set_switch(
        app.db,
        app.live,
        scope,
        by=operator,
        reason=body.reason,
        for_us=None if body.for_s is None else body.for_s * 1_000_000,
        models=app.config.models,
    )
    switch = done.switch
    _log.warning("kill.set", switch_id=switch.switch_id, by=operator.name, scope=str(scope))
    with app.db.reading() as tx:
        return _shown(tx, switch, done.in_flight)


@router.get("/{switch_id}")
def show_switch(app: App, reader: Reader, switch_id: str) -> JsonObject:
    """Return a switch, and the calls in its scope that are under way now."""
    with app.db.reading() as tx:
        switch = switches.get(tx, reader.tenant, switch_id)
        return _shown(tx, switch, control.in_flight(tx, app.live, switch))


@router.post("/{switch_id}/lift")
def lift_switch(app: App, operator: Operator, switch_id: str, body: LiftBody) -> JsonObject:
    """Let calls go on, all or those that are not named; in `prod` a second person has to agree."""
    leaving = None if body.leaving is None else body.leaving.scope()
    switch, narrower = control.lift_switch(
        app.db, switch_id, by=operator, reason=body.reason, leaving=leaving
    )
    is_lifted = switch.lifted_us is not None
    event = "kill.lifted" if is_lifted else "kill.lift_asked"
    _log.warning(event, switch_id=switch_id, by=operator.name)
    with app.db.reading() as tx:
        return {
            "is_lifted": is_lifted,
            "kill_switch": _row(switch, tx.now_us),
            "leaving": None if narrower is None else _row(narrower, tx.now_us),
        }


def _shown(tx: Tx, switch: KillSwitch, found: tuple[Effect, ...]) -> JsonObject:
    in_flight: list[Json] = [
        {
            "effect_id": effect.effect_id,
            "run_id": effect.run_id,
            "tool": effect.tool,
            "environment": effect.environment,
            "workflow": effect.workflow,
            "since_us": effect.intent_us,
        }
        for effect in found
    ]
    return {"kill_switch": _row(switch, tx.now_us), "in_flight": in_flight}


def _row(switch: KillSwitch, now_us: int) -> JsonObject:
    return object_to_json(switch) | {
        "stops": str(switch.scope),
        "is_in_force": switch.is_in_force_at(now_us),
    }
