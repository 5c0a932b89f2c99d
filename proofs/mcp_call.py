"""One call of an MCP tool as a bare request, so that the client costs and decides nothing."""

from __future__ import annotations

from interlock.domain.canonical import JsonObject

NEWEST, OLDER = "2026-07-28", "2025-11-25"


def request(
    tool: str, arguments: JsonObject, *, token: str, era: str = NEWEST, key: str = ""
) -> tuple[dict[str, str], JsonObject]:
    """Return headers and body of a call, in the words of an era; `key` names the attempt."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": era,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    meta: JsonObject = {"interlock/idempotency-key": key} if key else {}
    if era == NEWEST:
        meta |= {
            "io.modelcontextprotocol/protocolVersion": NEWEST,
            "io.modelcontextprotocol/clientInfo": {"name": "proof", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    params: JsonObject = {"name": tool, "arguments": arguments, "_meta": meta}
    return headers, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
