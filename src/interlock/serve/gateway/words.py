"""What outside agents read: tools as we describe them, and how a call ended, in MCP's form."""

from __future__ import annotations

from typing import Final

from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations

from interlock.calls.road import CallResult, CallState, answer_of
from interlock.domain.canonical import Json, JsonObject, canonical_text
from interlock.domain.errors import InterlockError
from interlock.domain.ids import ToolName
from interlock.domain.tool import EffectClass, Group, ToolVersion
from interlock.runtime.outside.desk import Pending

KEY_META: Final = "interlock/idempotency-key"
"""The `_meta` member by which a caller names its attempt: the same again is the same call."""
STATE_META: Final = "interlock/state"
CODE_META: Final = "interlock/code"
HANDLE_META: Final = "interlock/handle"
EFFECT_META: Final = "interlock/effect-id"

RESULT_TOOL: Final = "interlock__result"
_RESULT: Final = Tool(
    name=RESULT_TOOL,
    title="Result of an earlier call",
    description="Ask what became of a call that was pending. Takes the handle that came with it.",
    input_schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["handle"],
        "properties": {"handle": {"type": "string", "maxLength": 300}},
    },
    annotations=ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    ),
)
_WAITS: Final = {
    "approval": "people are asked to approve it",
    "person": "its outcome is not known, and a person looks into it",
    "rate": "too many calls came at once, and it waits for its turn",
    "server": "its server does not answer, and it waits until that works again",
    "reply": "it has not answered yet",
}


def listed(tools: list[ToolVersion]) -> list[Tool]:
    """Return tools as an agent is told of them, with the one that asks for results."""
    return [*map(_tool, tools), _RESULT]


def name_of(name: str) -> ToolName:
    """Return the registry's name of a tool, which may be given as we list it or with dots."""
    return ToolName(name.replace("__", "."))


def shown(result: CallResult) -> CallToolResult:
    """Return how a call ended: its output, or a sentence that says why there is none."""
    meta: JsonObject = {STATE_META: result.state.value, EFFECT_META: result.effect_id}
    if result.code is not None:
        meta[CODE_META] = result.code
    answer = answer_of(result)
    is_error = result.state is not CallState.SUCCEEDED
    return _result(answer, meta=meta, is_error=is_error, is_structured=not is_error)


def shown_pending(pending: Pending, *, handle: str) -> CallToolResult:
    """Return a call that has not ended: why, and how to ask for its end."""
    meta: JsonObject = {STATE_META: "pending", HANDLE_META: handle}
    if pending.effect_id is not None:
        meta[EFFECT_META] = pending.effect_id
    text = (
        f"pending: {_WAITS[pending.waits_for]}. Do not make the call again: go on with something"
        f' else, and later ask for its end with {RESULT_TOOL} {{"handle": "{handle}"}}'
    )
    # Not a result of the tool, so that it need not keep the tool's contract.
    return _result(text, meta=meta, is_error=True, is_structured=False)


def shown_error(error: InterlockError) -> CallToolResult:
    """Return why a call was not made."""
    meta: JsonObject = {STATE_META: "refused", CODE_META: error.code}
    text = f"refused ({error.code}): {error.message}"
    return _result(text, meta=meta, is_error=True, is_structured=False)


def _result(
    answer: Json, *, meta: JsonObject, is_error: bool, is_structured: bool
) -> CallToolResult:
    text = answer if isinstance(answer, str) else canonical_text(answer)
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=answer if is_structured and isinstance(answer, dict) else None,
        is_error=is_error,
        _meta=meta,
    )


def _tool(tool: ToolVersion) -> Tool:
    is_object = tool.output_schema.get("type") == "object"
    return Tool(
        name=tool.name.replace(".", "__"),
        title=tool.title,
        description=tool.description or tool.title,
        input_schema=tool.input_schema,
        output_schema=tool.output_schema if is_object else None,
        annotations=ToolAnnotations(
            read_only_hint=not tool.is_write,
            destructive_hint=tool.group is Group.DESTRUCTIVE,
            idempotent_hint=tool.effect.effect_class in {EffectClass.READ, EffectClass.KEYED},
            open_world_hint=tool.is_egress,
        ),
    )
