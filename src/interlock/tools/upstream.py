"""What an MCP server says of its tools: compared, never believed, never shown to agents.

A pin is a digest over all of it. When it changes, whoever owns the tool looks at the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from mcp_types import Prompt, Resource, ResourceTemplate, Tool

from interlock.domain.canonical import Json, JsonObject, digest
from interlock.domain.errors import JsonError
from interlock.domain.ids import ToolName
from interlock.domain.release import Release
from interlock.domain.tool import Environment, McpCall, McpKind, Server, ToolVersion

State = Literal["same", "changed", "removed", "unpinned"]
MEMBERS = (
    *("name", "title", "description", "inputSchema", "outputSchema", "annotations"),
    *("uri", "uriTemplate", "mimeType", "arguments"),
)
TOOLS: tuple[McpKind, ...] = ("tool",)
KINDS: tuple[McpKind, ...] = ("tool", "resource", "prompt")
Offer = Tool | Resource | ResourceTemplate | Prompt
"""What a server offers: a tool, a resource, resources by a template of their URI, or a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a registered tool stands to what its server says now.

    `members` are those of its definition that differ from the pinned one, all of them if that was
    never seen; `pin` is that of now.
    """

    tool: ToolName
    environment: Environment
    upstream: str
    state: State
    pin: str | None = None
    members: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Say why the tool is not called; in our words, since agents may read it."""
        if self.state == "removed":
            return "its server does not offer it any more"
        what = ", ".join(self.members) or "definition"
        return f"its server changed its {what} since it was reviewed"


def definitions(offers: Iterable[Offer]) -> dict[str, JsonObject]:
    """Return what a server says of its offers, whole; what it leaves out is absent.

    Each stands under its `McpCall.offer`. One that is offered twice has both definitions, and so
    none that was ever reviewed.
    """
    found: dict[str, JsonObject] = {}
    for offer in offers:
        key = call_of(offer).offer
        dumped = offer.model_dump(by_alias=True, mode="json", exclude_none=True)
        definition = {name: cast("Json", dumped[name]) for name in MEMBERS if name in dumped}
        first = found.get(key)
        found[key] = definition if first is None else {"offered": [first, definition]}
    return found


def call_of(offer: Offer) -> McpCall:
    """Return what a tool declares that calls this offer, without a pin."""
    match offer:
        case Tool():
            return McpCall(upstream=offer.name)
        case Resource():
            return McpCall(upstream=offer.uri, kind="resource")
        case ResourceTemplate():
            return McpCall(upstream=offer.uri_template, kind="resource")
        case Prompt():
            return McpCall(upstream=offer.name, kind="prompt")


def pin_of(definition: JsonObject) -> str | None:
    """Return the digest of a definition; None if it is no strict JSON and so can have none."""
    try:
        return digest(definition)
    except JsonError:
        return None


def reviewed(release: Release, server: Server) -> dict[ToolName, ToolVersion]:
    """Return the live tools that are called on an MCP server."""
    live = ((name, release.live(name, server.environment)) for name in sorted(release.tools))
    return {
        name: tool
        for name, tool in live
        if tool is not None and isinstance(tool.request, McpCall) and _is_on(tool, server)
    }


def compare(
    tools: Iterable[ToolVersion],
    server: Server,
    *,
    offered: Mapping[str, JsonObject],
    known: Mapping[str, JsonObject],
) -> tuple[Standing, ...]:
    """Compare registered tools with what their server offers by name.

    `known` are the definitions of pins that were seen before.
    """
    return tuple(_standing(tool, server, offered, known) for tool in tools)


def _standing(
    tool: ToolVersion,
    server: Server,
    offered: Mapping[str, JsonObject],
    known: Mapping[str, JsonObject],
) -> Standing:
    request = tool.request
    # INVARIANT: `reviewed` has chosen MCP tools.
    assert isinstance(request, McpCall)
    now = offered.get(request.offer)
    pin = None if now is None else pin_of(now)
    state: State = "same"
    if request.pin is None:
        state = "unpinned"
    elif now is None:
        state = "removed"
    elif request.pin != pin:
        state = "changed"
    before = known.get(request.pin or "", {})
    members: tuple[str, ...] = ()
    if state == "changed" and now is not None:
        members = tuple(name for name in MEMBERS if before.get(name) != now.get(name))
    return Standing(
        tool=tool.name,
        environment=server.environment,
        upstream=request.offer,
        state=state,
        pin=pin,
        members=members,
    )


def _is_on(tool: ToolVersion, server: Server) -> bool:
    bound = tool.environments.get(server.environment)
    return bound is not None and bound.server == server.name
