"""Looks at what an MCP server or registered functions offer, and proposes manifests of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import cast

from mcp_types import Tool

from interlock.domain.canonical import JsonObject
from interlock.domain.tool import Server
from interlock.tools.connectors.mcp import McpConnector
from interlock.tools.functions import FunctionContract
from interlock.tools.proposal import Draft, Proposal, propose, words_of
from interlock.tools.upstream import definitions, pin_of

CONTENT_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "content": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"type": "string"}, "text": {"type": "string"}},
                "required": ["type"],
            },
        }
    },
    "required": ["content"],
}
"""What a result without structured content becomes: the list of its content blocks."""


async def from_mcp(
    server: Server,
    *,
    owner: str,
    secret: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Proposal:
    """Ask an MCP server, which must be a registered entry, for its tools.

    Its annotations are not read: every tool is proposed as `write` + `blind`. Raises
    `UnavailableError` if the server cannot be reached.
    """
    tools = await offered(server, secret=secret, variables=variables)
    pins = {name: pin_of(one) for name, one in definitions(tools).items()}
    return _joined(_of_mcp(server, owner, tool, pins[tool.name]) for tool in tools)


async def offered(
    server: Server, *, secret: str | None = None, variables: Mapping[str, str] | None = None
) -> list[Tool]:
    """Return what an MCP server offers now; raises `UnavailableError`."""
    connector = McpConnector(server, variables=variables)
    try:
        return await connector.list_tools(secret=secret)
    finally:
        await connector.aclose()


def from_functions(
    functions: Iterable[FunctionContract], server: Server, *, owner: str
) -> Proposal:
    """Propose one tool for each function, registered or of a sandbox."""
    return _joined(
        propose(
            Draft(
                server=server,
                owner=owner,
                words=words_of(function.name),
                upstream=function.name,
                connector="python",
                reach={"function": function.name},
                input_schema=function.input_schema,
                output_schema=function.output_schema,
                said=function.title,
            )
        )
        for function in functions
    )


def _of_mcp(server: Server, owner: str, tool: Tool, pin: str | None) -> Proposal:
    output = cast("JsonObject | None", tool.output_schema)
    return propose(
        Draft(
            server=server,
            owner=owner,
            words=words_of(tool.name),
            upstream=tool.name,
            connector="mcp",
            reach={"upstream": {"tool": tool.name, **({} if pin is None else {"pin": pin})}},
            input_schema=cast("JsonObject", tool.input_schema),
            output_schema=CONTENT_SCHEMA if output is None else output,
            said=tool.description or "",
        )
    )


def _joined(proposals: Iterable[Proposal]) -> Proposal:
    return reduce(Proposal.join, proposals, Proposal(files={}))
