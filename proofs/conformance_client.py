"""Our connector as a client of the conformance suite: `conformance_client.py URL`.

It lists what is offered, and calls what the suite names, else all with the least arguments.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from mcp_types import ResourceTemplate, Tool

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.tool import ConnectorKind, McpCall, Server
from interlock.testing.connectors.outside import outgoing, tool_of
from interlock.tools.connectors.mcp.connector import McpConnector
from interlock.tools.upstream import KINDS, Offer, call_of

_ECHO, _ECHOED = "json_schema_echo", "json_schema_2020_12_tool"
_CONTEXT = "MCP_CONFORMANCE_CONTEXT"
_LEAST: Mapping[str, Json] = {
    "string": "x",
    "integer": 5,
    "number": 3,
    "boolean": False,
    "object": {},
    "array": [],
}


async def main(url: str) -> None:
    """Speak to the suite's server as to any server of a project."""
    server = Server(name="suite-dev", system="outside", environment="dev", kind="mcp-http", url=url)
    connector = McpConnector(server)
    try:
        for declared, arguments in _calls(await connector.list_offers(KINDS)):
            tool = tool_of(ConnectorKind.MCP, declared)
            reply = await connector.send(outgoing(tool, server, arguments))
            print(declared.offer, reply.transport, reply.problem or "", file=sys.stderr)
    finally:
        await connector.aclose()


def _calls(offers: Sequence[Offer]) -> Iterable[tuple[McpCall, JsonObject]]:
    context = json.loads(os.environ.get(_CONTEXT) or "{}")
    if "toolCalls" in context:
        listed = {call_of(offer).offer for offer in offers}
        return [
            (McpCall(upstream=one["name"]), one.get("arguments") or {})
            for one in context["toolCalls"]
            if one["name"] in listed
        ]
    focal = {offer.name: offer.input_schema for offer in offers if isinstance(offer, Tool)}
    if _ECHO in focal:
        return [(McpCall(upstream=_ECHO), {"schema": focal[_ECHOED]})]
    return [
        (call_of(offer), _least(offer.input_schema) if isinstance(offer, Tool) else {})
        for offer in offers
        if not isinstance(offer, ResourceTemplate)
    ]


def _least(schema: JsonObject) -> JsonObject:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    return {str(name): _of_type(properties.get(str(name))) for name in required}


def _of_type(schema: Json) -> Json:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return _LEAST.get(kind, "x") if isinstance(kind, str) else "x"


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
