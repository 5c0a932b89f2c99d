"""URL elicitation: who sits before an agent is led to the page where its call can be approved.

No answer that comes back approves anything: the client is the governed party. On the page only a
person who has signed in, and may answer, decides. What the client hands back is sealed, bound to
its session and to its request, and works once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    ElicitRequest,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    InputResponseRequestParams,
)
from starlette.concurrency import run_in_threadpool
from uuid_utils import uuid7

from interlock.app import Interlock
from interlock.calls.approve import is_open
from interlock.calls.road import CallResult
from interlock.domain.approval import Approval, team_of
from interlock.domain.canonical import Json, JsonObject, canonical_text, parse
from interlock.domain.ids import EffectId, RunId, ToolName
from interlock.runtime.outside.desk import Pending
from interlock.store import approvals, waits
from interlock.store.tx import Tx

_PURPOSE: Final = "mcp/request-state"
_LOOK_S: Final = 0.5
_STATE: Final = "client/state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """A request that came back: the key of the call it goes on with, and what was answered so far.

    `is_waiting` says whether nobody has declined to wait for people.
    """

    key: str
    answered: frozenset[str]
    is_waiting: bool


def boundary(interlock: Interlock, principal: Callable[[], str]) -> RequestStateBoundary:
    """Return what seals the state of requests; every server of the installation can open it.

    It is good for as long as people may answer what it waits for.
    """
    security = RequestStateSecurity(
        keys=[interlock.key_for(_PURPOSE)],
        ttl=interlock.config.approval_ttl_s,
        bind_principal=lambda _ctx: principal(),
    )
    return RequestStateBoundary(security, default_audience="interlock")


class Links:
    """Leads to the pages of approvals, and takes back the requests of who was led there."""

    def __init__(self, interlock: Interlock) -> None:
        self._interlock = interlock

    async def take(self, run_id: RunId, params: InputResponseRequestParams) -> Return | None:
        """Return what the opened state of a request says, and use it up; None if it has none.

        Raises `MCPError` if it was used before.
        """
        if params.request_state is None:
            return None
        state_id, key, before = _parts(params.request_state)

        def use_up(tx: Tx) -> bool:
            # A signal that nobody waits for: its key is good once in its run, and goes with it.
            return waits.put_signal(tx, run_id, _STATE, None, f"{_STATE}/{state_id}")

        if not await run_in_threadpool(self._interlock.db.run, "gateway.resume", use_up):
            raise _invalid()
        answers = params.input_responses or {}
        return Return(
            key=key,
            answered=before | answers.keys(),
            is_waiting=all(
                isinstance(answer, ElicitResult) and answer.action == "accept"
                for answer in answers.values()
            ),
        )

    async def ask(
        self, tool: ToolName, effect_id: EffectId, *, key: str, before: Return | None
    ) -> InputRequiredResult | None:
        """Return the request to open the pages of what a call waits for; None if there is no page.

        A page that was offered before in the same exchange is not offered again: the client then
        only comes back.
        """
        opened = {one.approval_id: one for one in await self.opened(effect_id)}
        answered = before.answered if before else frozenset[str]()
        fresh = [one for approval_id, one in opened.items() if approval_id not in answered]
        requests = self.requests(tool, fresh)
        if before is None and not requests:
            return None
        known: list[Json] = [*sorted(answered & opened.keys())]
        state: JsonObject = {"id": str(uuid7()), "key": key, "answered": known}
        return InputRequiredResult(
            input_requests=requests or None, request_state=canonical_text(state)
        )

    def requests(self, tool: ToolName, opened: Collection[Approval]) -> dict[str, InputRequest]:
        """Return the requests to open the pages of approvals, by their ids."""
        links = {approval: self._interlock.link_to(approval.approval_id) for approval in opened}
        return {
            approval.approval_id: ElicitRequest(
                params=ElicitRequestURLParams(message=_message(tool, approval), url=link)
            )
            for approval, link in links.items()
            if link is not None
        }

    async def opened(self, effect_id: EffectId) -> list[Approval]:
        """Return the approvals of a call that people can answer now."""

        def read() -> list[Approval]:
            with self._interlock.db.reading() as tx:
                found = approvals.list_for_effect(tx, effect_id)
                return [approval for approval in found if is_open(tx, approval)]

        return await run_in_threadpool(read)

    async def answered(self, effect_id: EffectId, *, until_s: float) -> bool:
        """Wait until people have answered one of the open approvals of a call.

        False if nobody has when the monotonic clock says `until_s`.
        """
        before = await self.opened(effect_id)
        while time.monotonic() < until_s:
            await asyncio.sleep(_LOOK_S)
            if not before or await self.opened(effect_id) != before:
                return True
        return False


def approved_as(found: CallResult | Pending) -> EffectId | None:
    """Return the effect of a call that waits for an approval; None for any other."""
    is_asked = isinstance(found, Pending) and found.waits_for == "approval"
    return found.effect_id if is_asked else None


def _parts(state: str) -> tuple[str, str, frozenset[str]]:
    match parse(state.encode()):
        case {"id": str(state_id), "key": str(key), "answered": list(answered)}:
            return state_id, key, frozenset(map(str, answered))
        case _:
            # Sealed by another version of this program.
            raise _invalid()


def _invalid() -> MCPError:
    # As the boundary says it of a state that was changed or is too old.
    return MCPError(
        INVALID_PARAMS, "Invalid or expired requestState", {"reason": "invalid_request_state"}
    )


def _message(tool: ToolName, approval: Approval) -> str:
    team = team_of(approval.group)
    return (
        f"`{tool}` waits for an answer of `{team}`. On this page, people of that group"
        " see what would be sent and decide, once they have signed in. Whatever is answered here"
        " approves nothing."
    )
