"""REST: what an MCP server says of its tools now, compared with what was reviewed."""

from __future__ import annotations

from fastapi import APIRouter

from interlock.domain.canonical import JsonObject
from interlock.domain.record import object_to_json
from interlock.serve.auth import App
from interlock.serve.routes.runs import Operator
from interlock.serve.routes.stops.breakers import check_own
from interlock.serve.strict import StrictRoute

router = APIRouter(prefix="/servers", tags=["catalog"], route_class=StrictRoute)


@router.post("/{server}/check")
def check_server(app: App, operator: Operator, server: str) -> JsonObject:
    """Ask an MCP server for its tools now; those that differ from their pins are quarantined."""
    with app.db.reading() as tx:
        check_own(app, tx, operator, server)
    return object_to_json(app.upstreams.check(server, by=operator.name))
