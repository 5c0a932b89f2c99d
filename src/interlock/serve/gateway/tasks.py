"""Tasks of MCP: a call that waits, as its client asks for its end and takes it back.

A task is the row of its call, so any server can answer for it. Its id is the handle of the call,
which is no right: only the session that made the call is told of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    InputRequest,
    InputResponses,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.concurrency import run_in_threadpool

from interlock.app import Interlock
from interlock.calls.road import WITHDRAWN, CallResult
from interlock.domain.canonical import JsonObject
from interlock.domain.clock import iso
from interlock.domain.ids import RunId, ToolName
from interlock.runtime.outside.desk import Pending
from interlock.runtime.outside.session import Seen, look
from interlock.runtime.outside.withdraw import Withdrawal, withdraw
from interlock.serve.gateway import words
from interlock.serve.gateway.links import Links, approved_as
from interlock.serve.gateway.visitor import TASKS, Visitor
from interlock.store import waits
from interlock.store.tx import Tx

_POLL_MS: Final = 2_000
_IN_HAND_S: Final = 3.0
"""How long a call is asked again to be taken back: a worker lets go of a quiet session in one."""
_LOOK_S: Final = 0.25
_OFFERED: Final = "client/offered"
"""Signals that nobody waits for: which pages the tasks of a session have offered."""

Shown = Callable[[Visitor, ToolName, CallResult], Awaitable[CallToolResult]]
"""Returns how a call ended, as the answer to the call would have said it."""
Answer = Callable[[Visitor, Any], Awaitable[JsonObject]]
"""Answers a request of a visitor."""


class TaskParams(RequestParams):
    """Names a task."""

    task_id: str


class UpdateParams(TaskParams):
    """Answers what a task has asked for."""

    input_responses: InputResponses


class Tasks:
    """Answers for the calls of a visitor's session as tasks."""

    def __init__(self, interlock: Interlock, links: Links, shown: Shown) -> None:
        self._interlock = interlock
        self._links = links
        self._shown = shown

    @property
    def methods(self) -> Mapping[str, tuple[type[TaskParams], Answer]]:
        """Return what the extension adds: by method, what a request holds and who answers it."""
        return {
            "tasks/get": (TaskParams, self.get),
            "tasks/update": (UpdateParams, self.update),
            "tasks/cancel": (TaskParams, self.cancel),
        }

    async def begin(self, who: Visitor, waiting: Pending) -> JsonObject | None:
        """Return the task of a call that waits; None if nothing of the call is stored yet."""
        seen = await run_in_threadpool(self._look, who.run.run_id, waiting.key)
        if seen is None:
            return None
        # Who has the call in hand knows best what it waits for.
        return _task(who, replace(seen, stands=waiting), "working") | {"resultType": "task"}

    async def get(self, who: Visitor, params: TaskParams) -> JsonObject:
        """Return how a task stands, with its result if the call has ended."""
        seen = await self._find(who, params)
        stands = seen.stands
        if isinstance(stands, CallResult):
            if stands.code == WITHDRAWN.code:
                return _task(who, seen, "cancelled")
            result = await self._shown(who, seen.asked.tool, stands)
            shown = result.model_dump(by_alias=True, mode="json", exclude_none=True)
            return _task(who, seen, "completed") | {"result": shown}
        requests = await self._requests(who, seen)
        if not requests:
            return _task(who, seen, "working")
        asked: JsonObject = {
            name: request.model_dump(by_alias=True, mode="json", exclude_none=True)
            for name, request in requests.items()
        }
        return _task(who, seen, "input_required") | {"inputRequests": asked}

    async def update(self, who: Visitor, params: UpdateParams) -> JsonObject:
        """Take note that pages were offered, so that they are not again; nothing is approved."""
        seen = await self._find(who, params)
        answered = (await self._requests(who, seen)).keys() & params.input_responses.keys()

        def note(tx: Tx) -> None:
            for approval_id in sorted(answered):
                waits.put_signal(tx, who.run.run_id, _OFFERED, None, _offered(approval_id))

        if answered:
            await run_in_threadpool(self._interlock.db.run, "gateway.update", note)
        return {}

    async def cancel(self, who: Visitor, params: TaskParams) -> JsonObject:
        """Take back a call that has not begun; `_meta` says whether it was.

        A call that was made, or is being made, goes on.
        """
        seen = await self._find(who, params)
        until_s = time.monotonic() + _IN_HAND_S
        done = await run_in_threadpool(self._withdraw, who.run.run_id, seen.asked.key)
        while done == "in_hand" and time.monotonic() < until_s:
            await asyncio.sleep(_LOOK_S)
            done = await run_in_threadpool(self._withdraw, who.run.run_id, seen.asked.key)
        return {"_meta": {words.STATE_META: done}}

    async def _find(self, who: Visitor, params: TaskParams) -> Seen:
        """Return the call of a task; raises `MCPError`, the same for one that is not ours."""
        if not who.is_modern:
            raise MCPError(METHOD_NOT_FOUND, "Method not found")
        if not who.takes_tasks:
            needed: JsonObject = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
            message = "Missing required client capability"
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, message, needed)
        run_id, _, key = params.task_id.partition("/")
        seen = None
        if run_id == who.run.run_id:
            seen = await run_in_threadpool(self._look, who.run.run_id, key)
        if seen is None:
            raise MCPError(INVALID_PARAMS, "there is no such task in this session")
        return seen

    async def _requests(self, who: Visitor, seen: Seen) -> dict[str, InputRequest]:
        """Return the requests to open pages that a task's client can be asked, and was not yet."""
        effect_id = approved_as(seen.stands)
        if effect_id is None or not who.opens_links:
            return {}
        requests = self._links.requests(seen.asked.tool, await self._links.opened(effect_id))

        def read() -> frozenset[str]:
            with self._interlock.db.reading() as tx:
                return waits.sent(tx, who.run.run_id, [*map(_offered, requests)])

        offered = await run_in_threadpool(read)
        return {name: each for name, each in requests.items() if _offered(name) not in offered}

    def _look(self, run_id: RunId, key: str) -> Seen | None:
        with self._interlock.db.reading() as tx:
            return look(tx, run_id, key)

    def _withdraw(self, run_id: RunId, key: str) -> Withdrawal:
        return self._interlock.db.run(
            "call.withdraw", lambda tx: withdraw(tx, self._interlock.dispatch, run_id, key)
        )


def check_name(ctx: ServerRequestContext[Any], params: TaskParams) -> None:
    """Raise `MCPError` unless the header that routers go by names the task of the request."""
    request = ctx.request
    given = None if request is None else request.headers.get(MCP_NAME_HEADER)
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and (
        decode_header_value(given) != params.task_id
    ):
        message = f"the header `{MCP_NAME_HEADER}` does not match `taskId` of the request"
        raise MCPError(HEADER_MISMATCH, message)


def _offered(approval_id: str) -> str:
    return f"{_OFFERED}/{approval_id}"


def _task(who: Visitor, seen: Seen, status: str) -> JsonObject:
    deadline_us = who.run.request.deadline_us
    task: JsonObject = {
        "taskId": words.handle_of(who.run.run_id, seen.asked.key),
        "status": status,
        "createdAt": iso(seen.asked_us),
        "lastUpdatedAt": iso(seen.changed_us),
        # It is kept as long as its session, outside of which nobody is told of it.
        "ttlMs": None if deadline_us is None else (deadline_us - seen.asked_us) // 1000,
        "pollIntervalMs": _POLL_MS,
    }
    said = words.task_message(seen.stands)
    return task if said is None else task | {"statusMessage": said}
