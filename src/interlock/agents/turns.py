"""Where an agent stands: names of its calls, and whether it goes round in circles.

All of it is derived from recorded model responses, in their order, so a replay counts the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pydantic_ai.messages import ModelResponse, ModelResponsePart, ToolCallPart

from interlock.domain.agent import AgentLimits
from interlock.domain.canonical import Json, digest, parse
from interlock.domain.errors import InvariantError, JsonError, StepFailedError
from interlock.domain.ids import StepName, ToolName

STUCK = "agent.stuck"


def offered_name(tool: ToolName) -> str:
    """Return the name that models see, since theirs may not have dots.

    >>> offered_name(ToolName("servicedesk.issue.create"))
    'servicedesk__issue__create'
    """
    return tool.replace(".", "__")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """One tool call of the current response: its durable name and the arguments as they came."""

    name: StepName
    index: int
    tool: ToolName
    raw: str | dict[str, Json]

    def arguments(self) -> Json:
        """Return the arguments; raises `JsonError` if their text is not strict JSON."""
        return parse(self.raw or "{}") if isinstance(self.raw, str) else self.raw


class Turns:
    """Counts the turns of one agent in one step of one run; `tools` are those it was offered."""

    def __init__(self, step: StepName, limits: AgentLimits, *, tools: Iterable[ToolName]) -> None:
        self._step = step
        self._limits = limits
        self._tools = {offered_name(tool): tool for tool in tools}
        self._turn = 0
        self._calls: dict[str, PlannedCall] = {}
        self._refused: dict[int, bool] = {}
        self._refusals_in_a_row = 0
        self._seen: Counter[str] = Counter()

    def begin(self) -> StepName:
        """Start the next turn and return the name of its model request.

        Raises `StepFailedError` (`agent.stuck`) after too many refusals in a row.
        """
        for _, is_refused in sorted(self._refused.items()):
            self._refusals_in_a_row = self._refusals_in_a_row + 1 if is_refused else 0
            if self._refusals_in_a_row >= self._limits.refusals_in_a_row:
                raise self._stuck(f"{self._refusals_in_a_row} of its calls in a row were refused")
        self._calls, self._refused = {}, {}
        self._turn += 1
        return StepName(f"{self._step}/{self._turn}/model")

    def received(self, response: ModelResponse) -> None:
        """Take note of the calls that a recorded response asks for.

        Raises `StepFailedError` (`agent.stuck`) if one of them was asked for too often.
        """
        for index, part in enumerate(response.tool_calls, start=1):
            tool = self._tools.get(part.tool_name, ToolName(part.tool_name))
            call = PlannedCall(
                name=StepName(f"{self._step}/{self._turn}/{index}/{tool}"),
                index=index,
                tool=tool,
                raw=part.args or {},
            )
            self._calls[part.tool_call_id] = call
            same = _call_digest(call)
            self._seen[same] += 1
            if self._seen[same] >= self._limits.equal_calls:
                raise self._stuck(f"it called `{call.tool}` {self._seen[same]} times alike")

    def call(self, tool_call_id: str | None) -> PlannedCall:
        """Return the call that the agent loop is about to make."""
        planned = self._calls.get(tool_call_id or "")
        if planned is None:
            raise InvariantError(f"the response has no tool call `{tool_call_id}`")
        return planned

    def answered(self, call: PlannedCall, *, is_refused: bool) -> None:
        """Take note of how a call ended."""
        self._refused[call.index] = is_refused

    def _stuck(self, why: str) -> StepFailedError:
        return StepFailedError(f"the agent is stuck: {why}", error_code=STUCK, step_name=self._step)


def with_unique_ids(response: ModelResponse) -> ModelResponse:
    """Return the response with tool call ids that differ, which some servers do not see to."""
    seen: set[str] = set()
    parts: list[ModelResponsePart] = []
    for index, part in enumerate(response.parts):
        if isinstance(part, ToolCallPart) and part.tool_call_id in seen:
            parts.append(replace(part, tool_call_id=f"{part.tool_call_id}_{index}"))
        else:
            parts.append(part)
        seen |= {part.tool_call_id} if isinstance(part, ToolCallPart) else set()
    return replace(response, parts=parts)


def _call_digest(call: PlannedCall) -> str:
    try:
        return digest([call.tool, call.arguments()])
    except JsonError:
        return digest([call.tool, "unreadable", str(call.raw)])
