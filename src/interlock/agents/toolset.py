"""The toolset that agents hold: each call of theirs becomes a proposal on the road."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_ai import RunContext, ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool

from interlock.agents.turns import Turns, offered_name
from interlock.calls.durable import Durable
from interlock.calls.pipeline import call_tool
from interlock.calls.road import CallState, Proposal, Road, answer_of
from interlock.domain.canonical import Json
from interlock.domain.errors import JsonError
from interlock.domain.ids import ToolName
from interlock.domain.principal import Seat
from interlock.domain.tool import ToolVersion

_REFUSED = frozenset({CallState.DENIED, CallState.REJECTED})


class _Unchecked:
    """Lets any arguments through: the road parses and checks them, and answers what is wrong."""

    def validate_json(self, *_: Any, **__: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return nothing: the raw text is taken from the recorded response."""
        return {}

    def validate_python(self, *_: Any, **__: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return nothing, as `validate_json` does."""
        return {}


class GovernedToolset(AbstractToolset[None]):
    """Offers tools to one agent in one step; a call runs by way of `calls.pipeline` only.

    Writes of one response run one after the other, in the order asked for; reads side by side.
    """

    def __init__(
        self,
        road: Road,
        durable: Durable,
        *,
        tools: Mapping[ToolName, ToolVersion],
        seats: tuple[Seat, ...],
        turns: Turns,
        parent_span: str,
    ) -> None:
        self._road = road
        self._durable = durable
        self._seats = seats
        self._turns = turns
        self._parent_span = parent_span
        self._offered: dict[str, ToolsetTool[None]] = {}
        for tool in tools.values():
            definition = _definition(tool)
            self._offered[definition.name] = ToolsetTool(
                toolset=self, tool_def=definition, max_retries=0, args_validator=_Unchecked()
            )

    @property
    def id(self) -> str:
        """Return a name that is the same on every replay."""
        return "interlock"

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:  # noqa: ARG002
        """Return the tools of the seat, by the name that models see."""
        return self._offered

    async def call_tool(
        self,
        name: str,  # noqa: ARG002  # the recorded response says it too
        tool_args: dict[str, Any],  # noqa: ARG002
        ctx: RunContext[None],
        tool: ToolsetTool[None],  # noqa: ARG002
    ) -> Json:
        """Propose the call and return its output, or a sentence that says why there is none."""
        call = self._turns.call(ctx.tool_call_id)
        try:
            arguments = call.arguments()
        except JsonError as error:
            self._turns.answered(call, is_refused=True)
            return f"refused ({error.code}): {error.message}"
        result = await call_tool(
            self._road,
            self._durable,
            Proposal(
                step_name=call.name,
                tool=call.tool,
                arguments=arguments,
                seats=self._seats,
                parent_span=self._parent_span,
            ),
        )
        self._turns.answered(call, is_refused=result.state in _REFUSED)
        return answer_of(result)


def _definition(tool: ToolVersion) -> ToolDefinition:
    return ToolDefinition(
        name=offered_name(tool.name),
        description=tool.description or tool.title,
        parameters_json_schema=tool.input_schema,
        sequential=tool.is_write,
    )
