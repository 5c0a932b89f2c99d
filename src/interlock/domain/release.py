"""Releases: the applied state of a project folder; each apply makes one, a run is pinned to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from interlock.domain.agent import AgentSpec
from interlock.domain.autonomy import BARS, Bar, Rung, rung_key
from interlock.domain.budget import Budget
from interlock.domain.canonical import digest
from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.record import object_to_json
from interlock.domain.tool import (
    ENVIRONMENTS,
    Binding,
    Environment,
    Server,
    System,
    ToolVersion,
)
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
    """Everything that may run: definitions by name, each in its newest version.

    `old_tools` are the other published versions, keyed `name@version`: probes, compensations and
    calls under way refer to them. `live_versions` says which version of a tool each environment has
    (`name@environment`); of a tool that is absent there, all that are bound have the newest.
    `ladder` holds the levels that are earned (`workflow@environment`), `bars` what steps up take
    where the project says other than the defaults.
    """

    number: int = 0
    systems: Mapping[str, System] = field(default_factory=dict)
    servers: Mapping[str, Server] = field(default_factory=dict)
    tools: Mapping[ToolName, ToolVersion] = field(default_factory=dict)
    old_tools: Mapping[str, ToolVersion] = field(default_factory=dict)
    live_versions: Mapping[str, int] = field(default_factory=dict)
    agents: Mapping[AgentName, AgentSpec] = field(default_factory=dict)
    workflows: Mapping[WorkflowName, WorkflowSpec] = field(default_factory=dict)
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    policies: tuple[PolicyFile, ...] = ()
    labels: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    quarantine: Mapping[str, str] = field(default_factory=dict)
    ladder: Mapping[str, Rung] = field(default_factory=dict)
    bars: Mapping[str, Bar] = field(default_factory=dict)

    def level(self, workflow: WorkflowName, environment: Environment) -> int:
        """Return how far a workflow acts by itself: in `dev` as declared, elsewhere as earned."""
        spec = self.workflows.get(workflow)
        if environment == "dev":
            declared = None if spec is None else spec.autonomy.get(environment)
            return 0 if declared is None else declared.level
        rung = self.ladder.get(rung_key(workflow, environment))
        return 0 if rung is None else rung.level

    def bar(self, step: int) -> Bar:
        """Return what the step up to a level takes."""
        return self.bars.get(str(step), BARS[step])

    def tool_version(self, name: ToolName, version: int) -> ToolVersion | None:
        """Return that version if it is known, else None."""
        newest = self.tools.get(name)
        if newest is not None and newest.version == version:
            return newest
        return self.old_tools.get(f"{name}@{version}")

    def versions_of(self, name: ToolName) -> list[int]:
        """Return the known versions of a tool, in their order."""
        old = [tool.version for tool in self.old_tools.values() if tool.name == name]
        newest = self.tools.get(name)
        return sorted([*old, *([] if newest is None else [newest.version])])

    def live(self, name: ToolName, environment: Environment) -> ToolVersion | None:
        """Return the version of a tool that an environment has, or None if it has none."""
        version = self.live_versions.get(f"{name}@{environment}")
        tool = self.tools.get(name) if version is None else self.tool_version(name, version)
        target = None if tool is None else tool.environments.get(environment)
        return None if target is None or target.is_past else tool

    def every_live(self, name: ToolName) -> dict[Environment, ToolVersion]:
        """Return the version of a tool in each environment that has one."""
        found = {environment: self.live(name, environment) for environment in ENVIRONMENTS}
        return {environment: tool for environment, tool in found.items() if tool is not None}

    def callers(self, name: ToolName) -> list[WorkflowSpec]:
        """Return the workflows that have a tool in some seat, by name."""
        return [flow for _, flow in sorted(self.workflows.items()) if name in flow.every_tool]

    def at(self, environment: Environment) -> Release:
        """Return the release as one environment has it: its versions are the newest."""
        if not self.live_versions:
            return self
        tools = {name: self.live(name, environment) or tool for name, tool in self.tools.items()}
        every = {f"{tool.name}@{tool.version}": tool for tool in self.tools.values()}
        every |= self.old_tools
        for tool in tools.values():
            del every[f"{tool.name}@{tool.version}"]
        return replace(self, tools=tools, old_tools=every)

    def views(self) -> tuple[Release, ...]:
        """Return the release as its environments have it, once if they do not differ."""
        return tuple(map(self.at, ENVIRONMENTS)) if self.live_versions else (self,)

    def binding(self, name: ToolName, environment: Environment) -> Binding | None:
        """Return the live version of a tool in an environment, or None if it has none there."""
        tool = self.live(name, environment)
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
    """Return the digest that fixes a tool version: its manifest but for what may change later."""
    known = _pins.get(id(tool))
    if known is not None and known[0] is tool:
        return known[1]
    body = object_to_json(tool)
    del body["environments"], body["deprecation"]
    pin = digest(body)
    if len(_pins) >= _PINS_KEPT:
        _pins.clear()
    _pins[id(tool)] = (tool, pin)
    return pin


# By identity, since versions hold schemas and so have no hash; the version is kept beside its pin,
# so that no other object gets its identity.
_pins: dict[int, tuple[ToolVersion, str]] = {}
_PINS_KEPT = 4096
