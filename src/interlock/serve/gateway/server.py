"""The MCP server of the gateway: lists what a session may call, and makes its calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import structlog
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
)
from starlette.concurrency import run_in_threadpool
from uuid_utils import uuid7

from interlock.app import Interlock
from interlock.calls.road import CallResult, CallState
from interlock.domain.canonical import Json
from interlock.domain.errors import InputError, InterlockError, NotFoundError
from interlock.domain.ids import RunId, ToolName
from interlock.domain.run import Run
from interlock.runtime.outside.desk import Asked, Pending
from interlock.serve.gateway import words

_KEY: Final = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_LISTED_MS: Final = 5_000
_log = structlog.get_logger(__name__)
_INSTRUCTIONS: Final = (
    "Tools of this organisation. Every call is checked, may wait for people, and is recorded. "
    "A call that is refused says why; one that is pending is asked for again by its handle."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who asks: the run of a session, and the key that it was opened with."""

    run: Run
    key_id: str


def build_server(interlock: Interlock, visitor: ContextVar[Visitor]) -> Server[Any]:
    """Return a server for all visitors; `visitor` holds whose request is being answered."""
    calls = _Calls(interlock)

    async def list_tools(
        _ctx: ServerRequestContext[Any], _params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        with _discreet():
            return await calls.list_tools(visitor.get())

    async def call_tool(
        _ctx: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        with _discreet():
            return await calls.call_tool(visitor.get(), params)

    server: Server[Any] = Server(
        "interlock",
        version=version("interlock"),
        title="Interlock",
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda name: calls.schema_of(visitor.get(), name),
    )
    # Spans are ours; the SDK's own would be a second record of the same call.
    server.middleware.clear()
    return server


@contextmanager
def _discreet() -> Iterator[None]:
    """Tell an agent no more of a fault of ours than that there was one: the SDK would."""
    try:
        yield
    except InterlockError as error:
        raise MCPError(INTERNAL_ERROR, error.message) from None
    except Exception:  # noqa: BLE001  # an edge: whatever it is, it is not for the agent
        _log.exception("gateway.failed")
        message = "something went wrong on our side; the log has the details"
        raise MCPError(INTERNAL_ERROR, message) from None


class _Calls:
    """What the gateway does for a visitor."""

    def __init__(self, interlock: Interlock) -> None:
        self._interlock = interlock

    async def list_tools(self, who: Visitor) -> ListToolsResult:
        """Return the tools that some arguments could let this session call."""

        def read() -> ListToolsResult:
            with self._interlock.db.reading() as tx:
                tools = self._interlock.offered(tx, who.run)
            return ListToolsResult(
                tools=words.listed(tools), ttl_ms=_LISTED_MS, cache_scope="private"
            )

        return await run_in_threadpool(read)

    async def call_tool(self, who: Visitor, params: CallToolRequestParams) -> CallToolResult:
        """Make one call, or tell what became of an earlier one."""
        try:
            if params.name == words.RESULT_TOOL:
                return await self._result_of(who, params.arguments or {})
            if not _NAME.fullmatch(params.name):
                raise InputError("the name of a tool is letters, digits, `_`, `-` and `.`")
            key = _key_of(params)
            asked = Asked(
                key=key or str(uuid7()),
                tool=words.name_of(params.name),
                arguments=params.arguments or {},
                is_new=key is None,
            )
            return await self._answered(who, who.run.run_id, asked)
        except InterlockError as error:
            return words.shown_error(error)

    def schema_of(self, who: Visitor, name: str) -> Mapping[str, Any] | None:
        """Return the contract of a tool's arguments if the seat has it; never raises."""
        tool = self._interlock.granted(who.run, words.name_of(name))
        return None if tool is None else tool.input_schema

    async def _answered(self, who: Visitor, run_id: RunId, asked: Asked) -> CallToolResult:
        found = await self._interlock.call_in_session(run_id, asked)
        if isinstance(found, Pending):
            return words.shown_pending(found, handle=f"{run_id}/{asked.key}")
        if found.state is CallState.DENIED:
            found = await run_in_threadpool(self._as_unknown, who, asked.tool, found)
        return words.shown(found, self._interlock.granted(who.run, asked.tool))

    async def _result_of(self, who: Visitor, arguments: Mapping[str, Json]) -> CallToolResult:
        """Return the end of a call by its handle, which is no right: its session has to be ours."""
        run_id, _, key = str(arguments.get("handle", "")).partition("/")

        def find() -> Asked | None:
            with self._interlock.db.reading() as tx:
                return self._interlock.find_asked(tx, RunId(run_id), key, key_id=who.key_id)

        asked = await run_in_threadpool(find)
        if asked is None:
            raise NotFoundError("there is no call of this handle")
        return await self._answered(who, RunId(run_id), asked)

    def _as_unknown(self, who: Visitor, tool: ToolName, denied: CallResult) -> CallResult:
        """Return a denial; of a tool that the session is not told of, as if there were none."""
        with self._interlock.db.reading() as tx:
            is_offered = any(each.name == tool for each in self._interlock.offered(tx, who.run))
        if is_offered:
            return denied
        return CallResult(
            state=denied.state,
            effect_id=denied.effect_id,
            code="tool.unknown",
            message=f"there is no tool `{tool}` for this seat",
        )


def _key_of(params: CallToolRequestParams) -> str | None:
    """Return the name that the caller gives its attempt; None if it gives none."""
    given = (params.meta or {}).get(words.KEY_META)
    if given is None:
        return None
    if not isinstance(given, str) or not _KEY.fullmatch(given):
        raise InputError(f"`{words.KEY_META}` is at most 128 letters, digits and `. _ : @ / -`")
    return given
