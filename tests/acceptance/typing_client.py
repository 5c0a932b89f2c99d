"""A client as a process: connects, tells the tools, and calls what each line of its input says.

Runs in the client's own environment, beside the programs of the how-to. Its argument is one of them
that has a `gateway`, or a `.mcp.json`: then the headers are those that Claude Code would send.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

LENIENT = {"agent_fastmcp": {"raise_on_error": False}}


async def main(name: str) -> None:
    """Work until the input ends; each answer is a line of JSON."""
    connecting = as_claude(Path(name)) if name.endswith(".json") else as_program(name)
    async with connecting as client:
        listed = await client.list_tools()
        tell([tool.name for tool in getattr(listed, "tools", listed)])
        while line := await asyncio.to_thread(sys.stdin.readline):
            tool, arguments = json.loads(line)
            result = await client.call_tool(tool, arguments, **LENIENT.get(name, {}))
            tell([block.text for block in result.content])


def as_program(name: str) -> AbstractAsyncContextManager[Any]:
    """Connect as a program of the page does."""
    connecting: AbstractAsyncContextManager[Any] = importlib.import_module(name).gateway()
    return connecting


def as_claude(path: Path) -> AbstractAsyncContextManager[Any]:
    """Connect to the address of a configuration, with what its helper prints as headers."""
    server = json.loads(path.read_text())["mcpServers"]["interlock"]
    helper = subprocess.run(["sh", "-c", server["headersHelper"]], capture_output=True, check=True)
    return with_headers(os.path.expandvars(server["url"]), json.loads(helper.stdout))


@asynccontextmanager
async def with_headers(url: str, headers: dict[str, str]) -> AsyncIterator[Any]:
    """Connect the MCP SDK."""
    import httpx2  # noqa: PLC0415  # not in every environment
    from mcp.client import Client  # noqa: PLC0415
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

    http = httpx2.AsyncClient(headers=headers, timeout=60)
    async with http, Client(streamable_http_client(url, http_client=http)) as client:
        yield client


def tell(value: object) -> None:
    """Answer with one line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
