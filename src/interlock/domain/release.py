"""Releases: the applied state of a project folder; each apply makes one, a run is pinned to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from interlock.domain.agent import AgentSpec
from interlock.domain.canonical import digest
from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.record import object_to_json
from interlock.domain.tool import Binding, Environment, Server, System, ToolVersion
from interlock.domain.workflow import WorkflowSpec

RELEASE_FORMAT = 1
"""How a release is written as JSON; raised by a change that older programs could not read right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """One authored policy file; `path` (`grants/triage.cedar`) says which kind it holds."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Everything that may run: definitions by name, each in the version that is live.

    `old_tools` are published versions that are not live but still referred to (probes,
    compensations, runs under way), keyed `name@version`.
    """

    number: int = 0
    systems: Mapping[str, System] = field(default_factory=dict)
    servers: Mapping[str, Server] = field(default_factory=dict)
    tools: Mapping[ToolName, ToolVersion] = field(default_factory=dict)
    old_tools: Mapping[str, ToolVersion] = field(default_factory=dict)
    agents: Mapping[AgentName, AgentSpec] = field(default_factory=dict)
    workflows: Mapping[WorkflowName, WorkflowSpec] = field(default_factory=dict)
    policies: tuple[PolicyFile, ...] = ()
    labels: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    quarantine: Mapping[str, str] = field(default_factory=dict)

    def tool_version(self, name: ToolName, version: int) -> ToolVersion | None:
        """Return that version if it is live or kept, else None."""
        live = self.tools.get(name)
        if live is not None and live.version == version:
            return live
        return self.old_tools.get(f"{name}@{version}")

    def versions_of(self, name: ToolName) -> list[int]:
        """Return the versions of a tool that are live or kept, in their order."""
        old = [tool.version for tool in self.old_tools.values() if tool.name == name]
        live = self.tools.get(name)
        return sorted([*old, *([] if live is None else [live.version])])

    def binding(self, name: ToolName, environment: Environment) -> Binding | None:
        """Return the live version of a tool in an environment, or None if it has none there."""
        tool = self.tools.get(name)
        return None if tool is None else self.bind(tool, environment)

    def bind(
        self, tool: ToolVersion, environment: Environment, workflow: WorkflowName | None = None
    ) -> Binding | None:
        """Return a given version of a tool as bound in an environment, or None.

        A call names its `workflow`, since credentials may be for some only.
        """
        target = tool.environments.get(environment)
        server = None if target is None else self.servers.get(target.server)
        if target is None or server is None:
            return None
        reason = self.quarantine.get(f"{tool.name}@{environment}")
        credentials = target.credentials_of(workflow)
        return Binding(
            tool=tool,
            environment=environment,
            server=server,
            pin=pin_of(tool),
            credentials=credentials,
            rate=target.rate,
            is_quarantined=reason is not None,
            reason=reason,
            lacks_credentials=target.credentials is not None and credentials is None,
        )


def pin_of(tool: ToolVersion) -> str:
    """Return the digest that fixes a tool version: its manifest without `environments`."""
    known = _pins.get(id(tool))
    if known is not None and known[0] is tool:
        return known[1]
    body = object_to_json(tool)
    del body["environments"]
    pin = digest(body)
    if len(_pins) >= _PINS_KEPT:
        _pins.clear()
    _pins[id(tool)] = (tool, pin)
    return pin


# By identity, since versions hold schemas and so have no hash; the version is kept beside its pin,
# so that no other object gets its identity.
_pins: dict[int, tuple[ToolVersion, str]] = {}
_PINS_KEPT = 4096
