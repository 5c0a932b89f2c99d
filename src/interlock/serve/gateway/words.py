"""What outside agents read: tools as we describe them, and how a call ended, in MCP's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mcp_types import CallToolResult, ContentBlock, TextContent, Tool, ToolAnnotations
from pydantic import TypeAdapter, ValidationError

from interlock.calls.road import WITHDRAWN, CallResult, CallState, answer_of
from interlock.domain.canonical import Json, JsonObject, canonical_text
from interlock.domain.errors import InterlockError
from interlock.domain.ids import RunId, ToolName
from interlock.domain.tool import EffectClass, Group, McpCall, ToolVersion
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
_BLOCKS: Final[TypeAdapter[list[ContentBlock]]] = TypeAdapter(list[ContentBlock])
_WAITS: Final = {
    "approval": "people are asked to approve it",
    "person": "its outcome is not known, and a person looks into it",
    "rate": "too many calls came at once, and it waits for its turn",
    "server": "its server does not answer, and it waits until that works again",
    "switch": "an operator has stopped calls of this kind, and it waits until they may go on",
    "reply": "it has not answered yet",
}


def listed(tools: list[ToolVersion]) -> list[Tool]:
    """Return tools as an agent is told of them, with the one that asks for results."""
    return [*map(_tool, tools), _RESULT]


def name_of(name: str) -> ToolName:
    """Return the registry's name of a tool, which may be given as we list it or with dots."""
    return ToolName(name.replace("__", "."))


def shown_name(name: ToolName) -> str:
    """Return the name that agents are told, of which a dot could be no part."""
    return name.replace(".", "__")


def shown(result: CallResult, tool: ToolVersion | None) -> CallToolResult:
    """Return how a call ended: its output, or a sentence that says why there is none.

    Content blocks that an MCP server answered with are content blocks again.
    """
    meta: JsonObject = {STATE_META: result.state.value, EFFECT_META: result.effect_id}
    if result.code is not None:
        meta[CODE_META] = result.code
    if result.state is not CallState.SUCCEEDED:
        return _result(_text(answer_of(result)), meta=meta, is_error=True)
    output = result.output
    blocks = _blocks(output) if tool is not None and _is_content(tool) else None
    if blocks is not None:
        return _result(blocks, meta=meta)
    return _result(
        _text(output), meta=meta, structured=output if isinstance(output, dict) else None
    )


def shown_pending(pending: Pending, *, handle: str) -> CallToolResult:
    """Return a call that has not ended: why, and how to ask for its end."""
    meta = pending_meta(pending, handle=handle)
    # Not a result of the tool, so that it need not keep the tool's contract.
    return _result(_text(told_pending(pending, handle=handle)), meta=meta, is_error=True)


def pending_meta(pending: Pending, *, handle: str) -> JsonObject:
    """Return what the answer to a call that has not ended says of itself."""
    meta: JsonObject = {STATE_META: "pending", HANDLE_META: handle}
    if pending.effect_id is not None:
        meta[EFFECT_META] = pending.effect_id
    return meta


def told_pending(pending: Pending, *, handle: str) -> str:
    """Say why a call has not ended, and how to ask for its end."""
    return (
        f"pending: {_WAITS[pending.waits_for]}. Do not make the call again: go on with something"
        f' else, and later ask for its end with {RESULT_TOOL} {{"handle": "{handle}"}}'
    )


def task_message(stands: CallResult | Pending) -> str | None:
    """Return what a task says of a call that has not ended, or was taken back."""
    if isinstance(stands, Pending):
        return _WAITS[stands.waits_for]
    return stands.message if stands.code == WITHDRAWN.code else None


def handle_of(run_id: RunId, key: str) -> str:
    """Return by what the end of a call can be asked for; no right."""
    return f"{run_id}/{key}"


def shown_error(error: InterlockError) -> CallToolResult:
    """Return why a call was not made."""
    meta: JsonObject = {STATE_META: "refused", CODE_META: error.code}
    text = f"refused ({error.code}): {error.message}"
    return _result(_text(text), meta=meta, is_error=True)


def _result(
    content: Sequence[ContentBlock],
    *,
    meta: JsonObject,
    structured: JsonObject | None = None,
    is_error: bool = False,
) -> CallToolResult:
    return CallToolResult(
        content=list(content), structured_content=structured, is_error=is_error, _meta=meta
    )


def _text(answer: Json) -> list[ContentBlock]:
    text = answer if isinstance(answer, str) else canonical_text(answer)
    return [TextContent(type="text", text=text)]


def _is_content(tool: ToolVersion) -> bool:
    """Whether the contract of a tool's result is a list of content blocks, and nothing else."""
    properties = tool.output_schema.get("properties")
    if not isinstance(tool.request, McpCall) or not isinstance(properties, dict):
        return False
    content = properties.get("content")
    is_list = isinstance(content, dict) and content.get("type") == "array"
    return is_list and len(properties) == 1


def _blocks(output: Json) -> list[ContentBlock] | None:
    """Return the content blocks of a result, None if it is something else after all."""
    if not isinstance(output, dict):
        return None
    try:
        blocks = _BLOCKS.validate_python(output.get("content"))
    except ValidationError:
        return None
    # What an upstream says to clients beside its answer was reviewed by nobody.
    return [block.model_copy(update={"meta": None, "annotations": None}) for block in blocks]


def _tool(tool: ToolVersion) -> Tool:
    is_structured = tool.output_schema.get("type") == "object" and not _is_content(tool)
    return Tool(
        name=shown_name(tool.name),
        title=tool.title,
        description=tool.description or tool.title,
        input_schema=tool.input_schema,
        output_schema=tool.output_schema if is_structured else None,
        annotations=ToolAnnotations(
            read_only_hint=not tool.is_write,
            destructive_hint=tool.group is Group.DESTRUCTIVE,
            idempotent_hint=tool.effect.effect_class in {EffectClass.READ, EffectClass.KEYED},
            open_world_hint=tool.is_egress,
        ),
    )
