"""REST: breakers, which servers are not called now and why; opening and closing one by hand."""

from __future__ import annotations

import structlog
from fastapi import APIRouter
from pydantic import Field

from interlock.app import Interlock
from interlock.domain.breaker import Breaker, topic_of
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import ForbiddenError, NotFoundError
from interlock.domain.principal import DEFAULT_TENANT, Principal
from interlock.domain.release import Release
from interlock.domain.tool import Server
from interlock.serve.auth import App
from interlock.serve.routes.runs import Operator, Reader
from interlock.serve.strict import TEXT_MOST, Body, StrictRoute
from interlock.store import breakers
from interlock.store.tx import Tx

router = APIRouter(prefix="/breakers", tags=["breakers"], route_class=StrictRoute)

_DAY_S = 86_400
_log = structlog.get_logger(__name__)


class OpenBody(Body):
    """For how long a server is not called, and why."""

    reason: str = Field(min_length=3, max_length=TEXT_MOST)
    for_s: int = Field(default=3600, ge=1, le=_DAY_S)


@router.get("")
def list_breakers(app: App, reader: Reader) -> JsonObject:
    """List the servers that the reader's tenant may use: whether calls to them are sent."""
    with app.db.reading() as tx:
        release, waiting = app.release(tx), breakers.count_waiting(tx)
        held = {breaker.server: breaker for breaker in breakers.list_all(tx)}
        rows = [
            _row(server, held.get(name), waiting=waiting.get(topic_of(name), 0), now_us=tx.now_us)
            for name, server in sorted(release.servers.items())
            if _tenant_of(release, server) in (None, reader.tenant)
        ]
    return {"breakers": [*rows]}


@router.post("/{server}/open")
def open_breaker(app: App, operator: Operator, server: str, body: OpenBody) -> JsonObject:
    """Send no calls to a server for a time: their runs wait; after it one call probes."""

    def write(tx: Tx) -> Breaker:
        check_own(app, tx, operator, server)
        for_us = body.for_s * 1_000_000
        return breakers.open_by_hand(
            tx, server, for_us=for_us, reason=body.reason, by=operator.name
        )

    opened = app.db.run("breaker.open", write)
    _log.warning("breaker.opened", server=server, by=operator.name, until_us=opened.until_us)
    return {"until_us": opened.until_us}


@router.post("/{server}/close")
def close_breaker(app: App, operator: Operator, server: str) -> JsonObject:
    """Send calls to a server again, those that wait one after the other."""

    def write(tx: Tx) -> bool:
        check_own(app, tx, operator, server)
        return breakers.close(tx, server)

    was_open = app.db.run("breaker.close", write)
    _log.warning("breaker.closed", server=server, by=operator.name, was_open=was_open)
    return {"was_open": was_open}


def check_own(app: Interlock, tx: Tx, caller: Principal, name: str) -> None:
    """Raise unless the server is the caller's tenant's; a shared one is the default tenant's."""
    release = app.release(tx)
    server = release.servers.get(name)
    tenant = None if server is None else _tenant_of(release, server)
    if server is None or tenant not in (None, caller.tenant):
        raise NotFoundError(f"there is no server `{name}`")
    if (tenant or DEFAULT_TENANT) != caller.tenant:
        raise ForbiddenError(f"the server `{name}` is shared; ask the owner of the installation")


def _tenant_of(release: Release, server: Server) -> str | None:
    system = release.systems.get(server.system)
    return None if system is None else system.tenant


def _row(server: Server, held: Breaker | None, *, waiting: int, now_us: int) -> JsonObject:
    return {
        "server": server.name,
        "system": server.system,
        "environment": server.environment,
        "state": "closed" if held is None else held.state_at(now_us),
        "opened_us": None if held is None else held.opened_us,
        "until_us": None if held is None else held.until_us,
        "reason": None if held is None else held.reason,
        "by": None if held is None else held.by,
        "waiting": waiting,
    }
