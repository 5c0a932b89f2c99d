"""Compares what MCP servers say of their tools with what was reviewed; what changed is not called.

By one process at a time, and by hand. Nothing that a server says changes what is registered: the
binding of a changed or removed tool is quarantined until its owner pins a new version.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

import structlog

from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InputError, InterlockError, UnavailableError
from interlock.domain.ids import ExecutorId
from interlock.domain.release import Release
from interlock.domain.text import difference
from interlock.domain.tool import McpCall, Server
from interlock.store import ladder, leases, registry, upstreams
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.tools import upstream
from interlock.tools.discover import offered
from interlock.tools.upstream import TOOLS

ROLE = "upstreams"
EVERY_S = 600.0
_FIRST_S = 20.0
_STOP_S = 5.0
_KINDS = frozenset({"mcp-http", "mcp-stdio"})

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How the tools of a server stand, and its tools that nobody has registered.

    `differences` are lines for people, by our name of the tool; they hold the server's words.
    """

    server: str
    tools: tuple[upstream.Standing, ...]
    unregistered: tuple[str, ...]
    differences: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstreams:
    """What a look at MCP servers needs; `variables` are for processes, as for their calls."""

    db: Database
    resolve: Callable[[str], str]
    variables: Mapping[str, str]

    def check(self, name: str, *, by: str) -> Checked:
        """Ask a server of the live release for its tools; quarantine what differs from its pin.

        Raises `InputError` if it is no MCP server, `UnavailableError` if it cannot be asked.
        """
        with self.db.reading() as tx:
            release = _live(tx)
        server = release.servers.get(name)
        if server is None or server.kind not in _KINDS:
            raise InputError(f"there is no MCP server `{name}`")
        now = asyncio.run(self._offered(release, server))
        return self.db.run("upstream.check", partial(_compare, server=name, offered=now, by=by))

    async def _offered(self, release: Release, server: Server) -> dict[str, JsonObject]:
        tools = upstream.reviewed(release, server).values()
        bound = (tool.environments[server.environment].references for tool in tools)
        reference = next(chain.from_iterable(bound), None)
        secret = None if reference is None else self.resolve(reference)
        calls = (tool.request for tool in tools)
        kinds = {call.kind for call in calls if isinstance(call, McpCall)} | {*TOOLS}
        listed = await offered(server, kinds, secret=secret, variables=self.variables)
        return upstream.definitions(listed)


class UpstreamWatch:
    """A thread that looks at every MCP server every ten minutes, if it leads."""

    def __init__(self, upstreams_: Upstreams, executor_id: ExecutorId) -> None:
        self._upstreams = upstreams_
        self._executor_id = executor_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interlock-upstreams", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; a server that is being asked has a few seconds to answer."""
        self._stop.set()
        self._thread.join(_STOP_S)

    def run_once(self) -> bool:
        """Look at every server that has pinned tools; False if another process leads."""
        if not self._leads():
            return False
        with self._upstreams.db.reading() as tx:
            release = _live(tx)
        for name, server in sorted(release.servers.items()):
            tools = upstream.reviewed(release, server).values()
            pinned = (isinstance(t.request, McpCall) and t.request.pin for t in tools)
            if self._stop.is_set() or server.kind not in _KINDS or not any(pinned):
                continue
            try:
                self._upstreams.check(name, by="interlock")
            except InterlockError as error:
                _log.warning("upstream.unavailable", server=name, reason=error.message)
        return True

    def _leads(self) -> bool:
        def take(tx: Tx) -> bool:
            ttl_us = round(2 * EVERY_S * 1_000_000)
            return leases.take_leadership(tx, ROLE, self._executor_id, ttl_us)

        return self._upstreams.db.run("upstream.lead", take)

    def _run(self) -> None:
        pause_s = _FIRST_S
        while not self._stop.wait(pause_s):
            pause_s = EVERY_S
            try:
                self.run_once()
            except UnavailableError as error:
                _log.warning("upstream.unavailable", reason=error.message)
            except Exception:  # noqa: BLE001  # tried again later; calls do not depend on it
                if not self._stop.is_set():
                    _log.exception("upstream.failed")


def _compare(tx: Tx, *, server: str, offered: dict[str, JsonObject], by: str) -> Checked:
    """Compare with the release that is live now, which may be newer than the one looked at."""
    release = _live(tx)
    entry = release.servers.get(server)
    if entry is None:
        raise InputError(f"there is no MCP server `{server}`")
    tools = upstream.reviewed(release, entry).values()
    requests = [tool.request for tool in tools if isinstance(tool.request, McpCall)]
    known = upstreams.find(tx, [one.pin for one in requests if one.pin is not None])
    standings = upstream.compare(tools, entry, offered=offered, known=known)
    differences: dict[str, list[str]] = {}
    for standing, request in zip(standings, requests, strict=True):
        now = offered.get(standing.upstream)
        if now is not None and standing.pin is not None and standing.state == "same":
            # Of what was reviewed only: a server could change its words for ever.
            upstreams.put(tx, standing.pin, now)
        if standing.state in {"changed", "removed"}:
            before = known.get(request.pin or "")
            differences[standing.tool] = difference(before, now, names=("reviewed", "now"))
    bad = {
        f"{one.tool}@{one.environment}": one.reason
        for one in standings
        if one.state in {"changed", "removed"}
    }
    if registry.quarantine(tx, bad, by=by) is not None:
        ladder.quarantined(tx, bad)
        _log.warning("tool.quarantined", server=server, bindings=sorted(bad), by=by)
    registered = {request.offer for request in requests}
    return Checked(
        server=server,
        tools=standings,
        unregistered=tuple(sorted(offered.keys() - registered)),
        differences=differences,
    )


def _live(tx: Tx) -> Release:
    number = registry.live_number(tx)
    return registry.get_release(tx, number) if number else Release()
