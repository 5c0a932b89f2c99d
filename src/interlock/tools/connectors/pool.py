"""The connectors of all servers: built at first use, kept, replaced when their entry changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import assert_never

from interlock.domain.tool import Server
from interlock.tools.connectors.http import HttpConnector
from interlock.tools.connectors.mcp.connector import McpConnector
from interlock.tools.connectors.port import Connector
from interlock.tools.connectors.python import PythonConnector
from interlock.tools.connectors.sandbox import SandboxConnector
from interlock.tools.connectors.sql import SqlConnector
from interlock.tools.functions import PythonFunction


class ConnectorPool:
    """One connector for each server. Belongs to the event loop that uses it first.

    `functions` are the registered Python tools by name; `variables` is where a stdio server's
    listed environment variables are taken from (none by default).
    """

    def __init__(
        self,
        functions: Mapping[str, PythonFunction] | None = None,
        *,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._functions = dict(functions or {})
        self._variables = dict(variables or {})
        self._open: dict[str, tuple[Server, Connector]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, server: Server) -> Connector:
        """Return the connector of a server; raises `InputError` if it may not be reached.

        If the entry changed, a new connector takes over and the old one closes after the calls
        that are under way.
        """
        known = self._open.get(server.name)
        if known is not None and known[0] == server:
            return known[1]
        connector = self._built(server)
        if known is not None:
            self._retire(known[1])
        self._open[server.name] = (server, connector)
        return connector

    async def aclose(self) -> None:
        """Wait for the calls under way, then close every connector."""
        for _, connector in self._open.values():
            self._retire(connector)
        self._open.clear()
        if self._closing:
            await asyncio.gather(*self._closing)

    def _built(self, server: Server) -> Connector:
        match server.kind:
            case "http":
                return HttpConnector(server)
            case "mcp-http" | "mcp-stdio":
                return McpConnector(server, variables=self._variables)
            case "python":
                return PythonConnector(self._functions)
            case "python-sandbox":
                return SandboxConnector(server)
            case "postgres":
                return SqlConnector(server)
            case _:
                assert_never(server.kind)

    def _retire(self, connector: Connector) -> None:
        task = asyncio.create_task(connector.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
