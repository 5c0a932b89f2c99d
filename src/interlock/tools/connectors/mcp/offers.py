"""What an MCP server offers: its lists, page by page."""

from __future__ import annotations

from collections.abc import Collection

from mcp import ClientSession
from mcp_types import PaginatedRequestParams

from interlock.domain.errors import UnavailableError
from interlock.domain.tool import McpKind
from interlock.tools.upstream import Offer

_MOST_PAGES = 50


async def listed(session: ClientSession, kinds: Collection[McpKind]) -> list[Offer]:
    """Return all offers of these kinds; none of a kind that the server does not have.

    Raises `UnavailableError` for a list without an end, and what the session raises.
    """
    has = session.server_capabilities
    found: list[Offer] = []
    for kind in kinds:
        if kind == "tool":
            found += await _paged(session, "tools")
        elif kind == "prompt" and has is not None and has.prompts is not None:
            found += await _paged(session, "prompts")
        elif kind == "resource" and has is not None and has.resources is not None:
            found += await _paged(session, "resources")
            found += await _paged(session, "resource_templates")
    return found


async def _paged(session: ClientSession, what: str) -> list[Offer]:
    ask = getattr(session, f"list_{what}")
    found: list[Offer] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await ask(params=PaginatedRequestParams(cursor=cursor))
        found.extend(getattr(page, what))
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise UnavailableError(f"the server lists its {what} on more than {_MOST_PAGES} pages")
