"""Resources and prompts: tools that read, as agents find them in MCP's own lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Completion,
    GetPromptResult,
    Prompt,
    PromptArgument,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
)
from pydantic import ValidationError

from interlock.calls.road import CallResult, CallState, answer_of
from interlock.domain import uri
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.tool import McpCall, McpKind, ToolVersion
from interlock.serve.gateway import words

_MOST_COMPLETIONS: Final = 100
_REFUSED: Final = "call.refused"


def of_kind(tools: Iterable[ToolVersion], kind: McpKind) -> list[ToolVersion]:
    """Return the tools that agents know as tools, as resources or as prompts."""
    return [tool for tool in tools if tool.mcp_kind == kind]


def resources(tools: Iterable[ToolVersion]) -> list[Resource]:
    """Return the resources that have no arguments."""
    return [
        Resource(name=tool.name, title=tool.title, uri=at, description=tool.description)
        for tool, at in _addresses(tools)
        if not uri.variables(at)
    ]


def templates(tools: Iterable[ToolVersion]) -> list[ResourceTemplate]:
    """Return the resources that have arguments."""
    return [
        ResourceTemplate(
            name=tool.name, title=tool.title, uri_template=at, description=tool.description
        )
        for tool, at in _addresses(tools)
        if uri.variables(at)
    ]


def prompts(tools: Iterable[ToolVersion]) -> list[Prompt]:
    """Return the prompts, by names that are ours like those of tools."""
    return [
        Prompt(
            name=words.shown_name(tool.name),
            title=tool.title,
            description=tool.description,
            arguments=[
                PromptArgument(name=name, required=name in _required(tool))
                for name in _properties(tool)
            ],
        )
        for tool in of_kind(tools, "prompt")
    ]


def find(tools: Iterable[ToolVersion], wanted: str) -> tuple[ToolVersion, JsonObject] | None:
    """Return the tool that reads a URI, and its arguments; a URI in full goes before a template."""
    known = list(_addresses(tools))
    exact = [(tool, at) for tool, at in known if at == wanted]
    for tool, at in (*exact, *known):
        values = uri.match(at, wanted)
        if values is not None:
            return tool, {**values}
    return None


def contents(result: CallResult, wanted: str) -> ReadResourceResult:
    """Return what a resource holds; raises `MCPError` if it could not be read."""
    output = _output(result, {"uri": wanted})
    try:
        return ReadResourceResult.model_validate(output)
    except ValidationError:
        raise _broken("resource") from None


def messages(result: CallResult) -> GetPromptResult:
    """Return the messages of a prompt; raises `MCPError` if they could not be had."""
    output = _output(result, {})
    try:
        return GetPromptResult.model_validate(output)
    except ValidationError:
        raise _broken("prompt") from None


def completion(tool: ToolVersion, argument: str, begun: str) -> Completion:
    """Return the values of an argument that its contract lists and that begin like this."""
    schema = _properties(tool).get(argument)
    allowed = schema.get("enum") if isinstance(schema, dict) else None
    values = [
        value
        for value in (allowed if isinstance(allowed, list) else ())
        if isinstance(value, str) and value.startswith(begun)
    ]
    return Completion(
        values=values[:_MOST_COMPLETIONS],
        total=len(values),
        has_more=len(values) > _MOST_COMPLETIONS,
    )


def no_resource(wanted: str) -> MCPError:
    """Return the error for a URI that the session has no resource for, if there is one or not."""
    return MCPError(INVALID_PARAMS, "there is no such resource for this seat", {"uri": wanted})


def no_prompt(name: str) -> MCPError:
    """Return the error for a prompt that the session does not have, if there is one or not."""
    return MCPError(INVALID_PARAMS, "there is no such prompt for this seat", {"name": name})


def pending(text: str, handle: str) -> MCPError:
    """Return the error for a call that has not ended, with what it can be asked for again by."""
    return MCPError(INTERNAL_ERROR, text, {words.HANDLE_META: handle})


def _output(result: CallResult, about: Mapping[str, str]) -> Json:
    if result.state is CallState.SUCCEEDED:
        return result.output
    code = INVALID_PARAMS if result.code == _REFUSED else INTERNAL_ERROR
    data = {**about, words.CODE_META: result.code, words.EFFECT_META: result.effect_id}
    raise MCPError(code, str(answer_of(result)), data)


def _broken(what: str) -> MCPError:
    return MCPError(INTERNAL_ERROR, f"what the server holds there is no {what} of MCP")


def _addresses(tools: Iterable[ToolVersion]) -> Iterable[tuple[ToolVersion, str]]:
    for tool in of_kind(tools, "resource"):
        # INVARIANT: only what an MCP server has is a resource.
        assert isinstance(tool.request, McpCall)
        yield tool, tool.request.upstream


def _properties(tool: ToolVersion) -> JsonObject:
    found = tool.input_schema.get("properties")
    return found if isinstance(found, dict) else {}


def _required(tool: ToolVersion) -> list[Json]:
    found = tool.input_schema.get("required")
    return found if isinstance(found, list) else []
