"""Who asks at the gateway: a session, and what its client says that it can do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from interlock.domain.run import Run

TASKS: Final = "io.modelcontextprotocol/tasks"
"""The extension of MCP by which a call may be answered with a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """The run of a session, and the key that it was opened with.

    `is_modern` if the request is of a revision in which every request says what its client can do:
    `opens_links` if it can lead a person to an address, `takes_tasks` if it can ask for the end of
    a call by a task.
    """

    run: Run
    key_id: str
    is_modern: bool = False
    opens_links: bool = False
    takes_tasks: bool = False

    @property
    def principal(self) -> str:
        """Return what nobody else is: not even the next session of the same key."""
        return f"{self.run.run_id} {self.key_id}"

    def declaring(self, ctx: ServerRequestContext[Any]) -> Visitor:
        """Return the visitor with what its client says in this request."""
        client = ctx.session.client_capabilities
        if client is None or ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return self
        return replace(
            self,
            is_modern=True,
            opens_links=client.elicitation is not None and client.elicitation.url is not None,
            takes_tasks=TASKS in (client.extensions or {}),
        )
