"""An MCP server over stdio whose tools are those of a file, as it stands when they are asked for.

    python tests/runtime/mcp_file.py TOOLS.json

`TOOLS.json` is a list of tools as `tools/list` returns them. Every call answers `{"ok": true}`.
"""

from __future__ import annotations

import sys

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
)
from pydantic import TypeAdapter

_TOOLS = TypeAdapter(list[Tool])


async def _serve(name: str) -> None:
    path = anyio.Path(name)

    async def list_tools(
        _ctx: ServerRequestContext, _params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=_TOOLS.validate_json(await path.read_bytes()))

    async def call_tool(
        _ctx: ServerRequestContext, _params: CallToolRequestParams
    ) -> CallToolResult:
        return CallToolResult(content=[], structured_content={"ok": True})

    server: Server[dict[str, object]] = Server(
        "file", version="1", on_list_tools=list_tools, on_call_tool=call_tool
    )
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(_serve, sys.argv[1])
