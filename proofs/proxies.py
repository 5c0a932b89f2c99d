"""The upstream of `gateway-cost`, and the proxies without governance that it compares with.

`proxies.py ROLE PORT [UPSTREAM]`: `upstream`; `lowlevel`, of the MCP SDK's own server and one
client that stays; `fastmcp`, that library's proxy as it comes; `fastmcp_reused`, with one client.
All but the upstream want `PROXY_TOKEN` as bearer token. Runs where FastMCP is installed, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import sys
from typing import Any

import uvicorn
from mcp.client import Client
from mcp.server.lowlevel.server import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    TextContent,
    Tool,
)
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

VARIABLE = "PROXY_TOKEN"
READ, WRITE = "find", "add"
ANSWER = {"found": ["a", "b"]}
INPUT = {
    "type": "object",
    "properties": {"word": {"type": "string", "maxLength": 100}},
    "required": ["word"],
    "additionalProperties": False,
}
OUTPUT = {
    "type": "object",
    "properties": {"found": {"type": "array", "maxItems": 10, "items": {"type": "string"}}},
    "required": ["found"],
}


def upstream() -> ASGIApp:
    """Return two tools that answer at once."""
    tools = [
        Tool(name=name, description=name, input_schema=INPUT, output_schema=OUTPUT)
        for name in (READ, WRITE)
    ]

    async def listed(_context: object, _params: object) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def called(_context: object, _params: CallToolRequestParams) -> CallToolResult:
        text = TextContent(type="text", text='{"found":["a","b"]}')
        return CallToolResult(content=[text], structured_content=dict(ANSWER))

    server = Server(
        "upstream",
        on_list_tools=listed,
        on_call_tool=called,
        get_tool_input_schema=lambda _name: INPUT,
    )
    return server.streamable_http_app(json_response=True, stateless_http=True)


def lowlevel(client: Client) -> ASGIApp:
    """Return the SDK's server that hands each request to a client; it checks Host and Origin."""

    async def listed(_context: object, _params: object) -> ListToolsResult:
        return await client.list_tools()

    async def called(_context: object, params: CallToolRequestParams) -> CallToolResult:
        return await client.call_tool(params.name, params.arguments or {})

    server = Server(
        "proxy",
        on_list_tools=listed,
        on_call_tool=called,
        get_tool_input_schema=lambda _name: INPUT,
    )
    return server.streamable_http_app(json_response=True, stateless_http=True)


def fastmcp(target: Any) -> ASGIApp:  # noqa: ANN401  # what FastMCP takes: an address or a client
    """Return FastMCP's proxy to an address, or to a client of its own that is connected."""
    from fastmcp.server import create_proxy  # noqa: PLC0415  # not installed for the other roles

    proxy = create_proxy(target, name="proxy")
    app: ASGIApp = proxy.http_app(
        json_response=True, stateless_http=True, host_origin_protection=True
    )
    return app


class Checked:
    """Lets only requests in that carry the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._wanted = hashlib.sha256(f"Bearer {token}".encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or go on."""
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(hashlib.sha256(given).digest(), self._wanted):
                await Response(status_code=401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def main(role: str, port: int, target: str) -> None:
    """Serve until told to end."""
    match role:
        case "upstream":
            await _serve(upstream(), port)
        case "lowlevel":
            async with Client(target) as client:
                await _serve(Checked(lowlevel(client), os.environ[VARIABLE]), port)
        case "fastmcp":
            await _serve(Checked(fastmcp(target), os.environ[VARIABLE]), port)
        case "fastmcp_reused":
            from fastmcp import Client as Own  # noqa: PLC0415  # see above

            async with Own(target) as own:
                await _serve(Checked(fastmcp(own), os.environ[VARIABLE]), port)
        case _:
            sys.exit(f"there is no role `{role}`")


async def _serve(app: ASGIApp, port: int) -> None:
    await uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical")).serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), "".join(sys.argv[3:])))
