"""The MCP server of the gateway: lists what a session may call, and makes its calls."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
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
    CompleteRequestParams,
    CompleteResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    InputResponseRequestParams,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    PromptReference,
    ReadResourceRequestParams,
    ReadResourceResult,
    RequestParams,
)
from starlette.concurrency import run_in_threadpool
from uuid_utils import uuid7

from interlock.app import Interlock
from interlock.calls.road import CallResult, CallState
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError, InterlockError, NotFoundError
from interlock.domain.ids import RunId, ToolName
from interlock.domain.tool import McpKind, ToolVersion
from interlock.runtime.outside.desk import Asked, Pending
from interlock.serve.gateway import library, links, words
from interlock.serve.gateway.links import Links, Return, approved_as
from interlock.serve.gateway.tasks import TaskParams, Tasks, check_name
from interlock.serve.gateway.visitor import TASKS, Visitor

_KEY: Final = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_LISTED_MS: Final = 5_000
_PEOPLE_S: Final = 20.0
"""How long a request that came back waits for people, before it is sent back again."""
UNKNOWN_TOOL: Final = "tool.unknown"
QUARANTINED: Final = "tool.quarantined"
_Page = PaginatedRequestParams | None
_log = structlog.get_logger(__name__)
_INSTRUCTIONS: Final = (
    "Tools of this organisation. Every call is checked, may wait for people, and is recorded. "
    "A call that is refused says why; one that is pending is asked for again by its handle."
)


def build_server(interlock: Interlock, visitor: ContextVar[Visitor]) -> Server[Any]:
    """Return a server for all visitors; `visitor` holds whose request is being answered."""
    calls = _Calls(interlock)

    def handler(answer: Callable[[Visitor, Any], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def handle(ctx: ServerRequestContext[Any], params: object) -> object:
            if isinstance(params, TaskParams):
                check_name(ctx, params)
            with _discreet():
                return await answer(visitor.get().declaring(ctx), params)

        return handle

    server: Server[Any] = Server(
        "interlock",
        version=version("interlock"),
        title="Interlock",
        instructions=_INSTRUCTIONS,
        on_list_tools=handler(calls.list_tools),
        on_call_tool=handler(calls.call_tool),
        on_list_resources=handler(calls.list_resources),
        on_list_resource_templates=handler(calls.list_resource_templates),
        on_read_resource=handler(calls.read_resource),
        on_list_prompts=handler(calls.list_prompts),
        on_get_prompt=handler(calls.get_prompt),
        on_completion=handler(calls.complete),
        get_tool_input_schema=lambda name: calls.schema_of(visitor.get(), name),
    )
    for method, (taken, answer) in calls.tasks.methods.items():
        server.add_request_handler(method, taken, handler(answer))
    server.extensions[TASKS] = {}
    # Spans are ours; the SDK's own would be a second record of the same call.
    server.middleware[:] = [links.boundary(interlock, lambda: visitor.get().principal)]
    return server


@contextmanager
def _discreet() -> Iterator[None]:
    """Tell an agent no more of a fault of ours than that there was one: the SDK would."""
    try:
        yield
    except MCPError:
        raise
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
        self._links = Links(interlock)
        self.tasks = Tasks(interlock, self._links, self._shown)

    async def list_tools(self, who: Visitor, _params: _Page) -> ListToolsResult:
        """Return the tools that some arguments could let this session call."""
        tools = words.listed(await self._offered(who, "tool"))
        return ListToolsResult(tools=tools, ttl_ms=_LISTED_MS)

    async def list_resources(self, who: Visitor, _params: _Page) -> ListResourcesResult:
        """Return the resources that this session may read, but for those with arguments."""
        found = library.resources(await self._offered(who, "resource"))
        return ListResourcesResult(resources=found, ttl_ms=_LISTED_MS)

    async def list_resource_templates(
        self, who: Visitor, _params: _Page
    ) -> ListResourceTemplatesResult:
        """Return the resources with arguments, of which some could let this session read them."""
        found = library.templates(await self._offered(who, "resource"))
        return ListResourceTemplatesResult(resource_templates=found, ttl_ms=_LISTED_MS)

    async def list_prompts(self, who: Visitor, _params: _Page) -> ListPromptsResult:
        """Return the prompts that this session may get."""
        found = library.prompts(await self._offered(who, "prompt"))
        return ListPromptsResult(prompts=found, ttl_ms=_LISTED_MS)

    async def call_tool(
        self, who: Visitor, params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult | JsonObject:
        """Make one call, go on with one that waited, or tell what became of an earlier one."""
        try:
            if params.name == words.RESULT_TOOL:
                return await self._result_of(who, params.arguments or {})
            back = await self._links.take(who.run.run_id, params)
            asked = _asked(_name(params.name), params.arguments or {}, params, back)
            found = await self._waited(who, asked, back)
            if isinstance(found, CallResult):
                return words.shown(found, self._granted(who, asked.tool))
            task = await self.tasks.begin(who, found) if who.takes_tasks else None
            led = task or await self._led(who, asked, found, back)
            handle = words.handle_of(who.run.run_id, asked.key)
            return led or words.shown_pending(found, handle=handle)
        except InterlockError as error:
            return words.shown_error(error)

    async def read_resource(
        self, who: Visitor, params: ReadResourceRequestParams
    ) -> ReadResourceResult | InputRequiredResult:
        """Read a resource: the call of the tool that it is here."""
        found = library.find(await self._offered(who, "resource"), params.uri)
        if found is None:
            raise library.no_resource(params.uri)
        tool, arguments = found
        result = await self._read(who, tool, arguments, params)
        if isinstance(result, InputRequiredResult):
            return result
        if result.code == UNKNOWN_TOOL:
            raise library.no_resource(params.uri)
        return library.contents(result, params.uri)

    async def get_prompt(
        self, who: Visitor, params: GetPromptRequestParams
    ) -> GetPromptResult | InputRequiredResult:
        """Get the messages of a prompt: the call of the tool that it is here."""
        tool = await self._prompt(who, params.name)
        result = await self._read(who, tool, {**(params.arguments or {})}, params)
        if isinstance(result, InputRequiredResult):
            return result
        if result.code == UNKNOWN_TOOL:
            raise library.no_prompt(params.name)
        return library.messages(result)

    async def complete(self, who: Visitor, params: CompleteRequestParams) -> CompleteResult:
        """Return what the contract allows for an argument of a prompt or a resource."""
        ref = params.ref
        if isinstance(ref, PromptReference):
            tool = await self._prompt(who, ref.name)
        else:
            found = library.find(await self._offered(who, "resource"), ref.uri)
            if found is None:
                raise library.no_resource(ref.uri)
            tool = found[0]
        values = library.completion(tool, params.argument.name, params.argument.value)
        return CompleteResult(completion=values)

    def schema_of(self, who: Visitor, name: str) -> Mapping[str, Any] | None:
        """Return the contract of a tool's arguments if the seat has it; never raises."""
        tool = self._granted(who, words.name_of(name))
        return None if tool is None else tool.input_schema

    async def _offered(self, who: Visitor, kind: McpKind) -> list[ToolVersion]:
        def read() -> list[ToolVersion]:
            with self._interlock.db.reading() as tx:
                return self._interlock.offered(tx, who.run, kind=kind)

        return await run_in_threadpool(read)

    async def _prompt(self, who: Visitor, name: str) -> ToolVersion:
        wanted = _name(name)
        found = (tool for tool in await self._offered(who, "prompt") if tool.name == wanted)
        tool = next(found, None)
        if tool is None:
            raise library.no_prompt(name)
        return tool

    def _granted(self, who: Visitor, name: ToolName) -> ToolVersion | None:
        tools = self._interlock.granted(who.run)
        return next((tool for tool in tools if tool.name == name), None)

    async def _read(
        self,
        who: Visitor,
        tool: ToolVersion,
        arguments: JsonObject,
        params: InputResponseRequestParams,
    ) -> CallResult | InputRequiredResult:
        """Make a call that reads; raises `MCPError` with its handle if it has not ended."""
        back = await self._links.take(who.run.run_id, params)
        asked = _asked(tool.name, arguments, params, back)
        found = await self._waited(who, asked, back)
        if isinstance(found, CallResult):
            return found
        handle = words.handle_of(who.run.run_id, asked.key)
        led = await self._led(who, asked, found, back)
        if led is None:
            raise library.pending(words.told_pending(found, handle=handle), handle)
        return led

    async def _waited(
        self, who: Visitor, asked: Asked, back: Return | None
    ) -> CallResult | Pending:
        """Make a call; wait a while for people if the client comes back to hear their answer."""
        run_id = who.run.run_id
        found = await self._made(who, run_id, asked)
        if back is None or not back.is_waiting:
            return found
        until_s = time.monotonic() + _PEOPLE_S
        while (effect_id := approved_as(found)) is not None:
            if not await self._links.answered(effect_id, until_s=until_s):
                break
            found = await self._made(who, run_id, asked)
        return found

    async def _led(
        self, who: Visitor, asked: Asked, found: Pending, back: Return | None
    ) -> InputRequiredResult | None:
        """Lead to where people answer, if somebody can be led there and wants to."""
        effect_id = approved_as(found)
        is_declined = back is not None and not back.is_waiting
        if effect_id is None or is_declined or not who.opens_links:
            return None
        led = await self._links.ask(asked.tool, effect_id, key=asked.key, before=back)
        meta = words.pending_meta(found, handle=words.handle_of(who.run.run_id, asked.key))
        return led and led.model_copy(update={"meta": meta})

    async def _made(self, who: Visitor, run_id: RunId, asked: Asked) -> CallResult | Pending:
        found = await self._interlock.call_in_session(run_id, asked)
        return found if isinstance(found, Pending) else await self._told(who, asked.tool, found)

    async def _shown(self, who: Visitor, tool: ToolName, found: CallResult) -> CallToolResult:
        return words.shown(await self._told(who, tool, found), self._granted(who, tool))

    async def _told(self, who: Visitor, tool: ToolName, found: CallResult) -> CallResult:
        """Return how a call ended, as its session may be told."""
        if found.state is not CallState.DENIED:
            return found
        return await run_in_threadpool(self._as_unknown, who, tool, found)

    async def _result_of(self, who: Visitor, arguments: Mapping[str, Json]) -> CallToolResult:
        """Return the end of a call by its handle, which is no right: its session has to be ours."""
        run_id, _, key = str(arguments.get("handle", "")).partition("/")

        def find() -> Asked | None:
            with self._interlock.db.reading() as tx:
                return self._interlock.find_asked(tx, RunId(run_id), key, key_id=who.key_id)

        asked = await run_in_threadpool(find)
        if asked is None:
            raise NotFoundError("there is no call of this handle")
        found = await self._made(who, RunId(run_id), asked)
        if isinstance(found, Pending):
            return words.shown_pending(found, handle=words.handle_of(RunId(run_id), asked.key))
        return words.shown(found, self._granted(who, asked.tool))

    def _as_unknown(self, who: Visitor, tool: ToolName, denied: CallResult) -> CallResult:
        """Return a denial; of a tool that the session is not told of, as if there were none.

        One that was granted and is quarantined says so: its agent may have been told of it before.
        """
        if denied.code == QUARANTINED and self._granted(who, tool) is not None:
            return denied
        with self._interlock.db.reading() as tx:
            is_offered = any(each.name == tool for each in self._interlock.offered(tx, who.run))
        if is_offered:
            return denied
        return CallResult(
            state=denied.state,
            effect_id=denied.effect_id,
            code=UNKNOWN_TOOL,
            message=f"there is no tool `{tool}` for this seat",
        )


def _name(given: str) -> ToolName:
    if not _NAME.fullmatch(given):
        raise InputError("the name of a tool is letters, digits, `_`, `-` and `.`")
    return words.name_of(given)


def _asked(
    tool: ToolName, arguments: JsonObject, params: RequestParams, back: Return | None
) -> Asked:
    key = _key_of(params) if back is None else back.key
    return Asked(key=key or str(uuid7()), tool=tool, arguments=arguments, is_new=key is None)


def _key_of(params: RequestParams) -> str | None:
    """Return the name that the caller gives its attempt; None if it gives none."""
    given = (params.meta or {}).get(words.KEY_META)
    if given is None:
        return None
    if not isinstance(given, str) or not _KEY.fullmatch(given):
        raise InputError(f"`{words.KEY_META}` is at most 128 letters, digits and `. _ : @ / -`")
    return given
