"""The reference MCP servers as their packages bring them, and what a person says of their tools."""

from __future__ import annotations

import hashlib
import io
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import psutil
import pytest
from mcp_types import CallToolResult
from ruamel.yaml import YAML

from interlock.domain.canonical import JsonObject
from scripts import peers
from tests.acceptance.test_gateway_crash import connected
from tests.cli.terminal import Server, done, interlock
from tests.serve.gateway.door import meta_of, text_of

SYSTEMS = ("git", "time", "filesystem", "memory", "everything")
NPM = ("filesystem", "memory", "everything")
RESULT = "interlock__result"
LIMIT_S = 60
ZONES = {"dev": "Etc/UTC", "stage": "Asia/Tokyo"}
"""Where the time servers are told to be, which changes what they say of their tools."""
_READ: JsonObject = {"group": "read", "effect": {"class": "read"}}
_WRITE: JsonObject = {"group": "write", "effect": {"class": "blind"}}
# It looks at the path before it touches anything.
_CHECKED: JsonObject = {"group": "write", "effect": {"class": "blind", "no_effect": ["error"]}}
REVIEWED: Mapping[str, JsonObject] = {
    "git.status.call": _READ,
    "git.log.call": _READ,
    "git.add.call": _WRITE,
    "git.commit.call": _WRITE,
    "time.current_time.get": {
        **_READ,
        "environments": {"dev": {"server": "time-dev"}, "stage": {"server": "time-stage"}},
    },
    "time.time.convert": _READ,
    "filesystem.text_file.read": _READ,
    "filesystem.file.write": _CHECKED,
    "memory.graph.read": _READ,
    "memory.entities.create": _WRITE,
    "everything.echo.call": _READ,
    "everything.env.get": _READ,
    "everything.sum.get": _READ,
    "everything.structured_content.get": _READ,
    "everything.tiny_image.get": _READ,
    "everything.long_running_operation.trigger": _READ,
}
"""What is said of the tools that an agent gets; the others stay as they were proposed."""
_PROJECT = """
interlock: v1
kind: Project
name: servers
title: The reference MCP servers
include: [defaults]
teams: [platform, security]
"""
_SYSTEM = """
interlock: v1
kind: System
name: {name}
title: The reference server {name}
owner: platform
"""
_SERVER = """
interlock: v1
kind: Server
name: {name}-{environment}
system: {name}
environment: {environment}
protocol: mcp-stdio
argv: [{argv}]
variables: [{variables}]
"""
_AGENT = """
interlock: v1
kind: Agent
name: helper
version: 1
title: An agent that works with files
owner: platform
sponsor: sam
outside: true
"""
_SESSIONS = """
interlock: v1
kind: Workflow
name: {workflow}
version: 1
title: What the helper does in {environment}
owner: platform
department: it
triggers: {{gateway: {{session: helper, environment: {environment}}}}}
inputs: {{type: object, additionalProperties: false}}
agents: {{helper: {{tools: [{tools}]}}}}
approvals: [{approvals}]
fallbacks: [{{code: "*", then: stop}}]
success: {{end_state: closed, counts: [closed, expired], objective: 0.9, within_s: 86400}}
autonomy: {{dev: {{level: 2, by: platform, reason: tests}}}}
"""
_CLOCK = """
interlock: v1
kind: Workflow
name: clock
version: 1
title: Tell the time elsewhere
owner: platform
department: it
triggers: {by_hand: {manual: true}}
inputs:
  type: object
  additionalProperties: false
  required: [time]
  properties: {time: {type: string, maxLength: 5}}
tools: [time.time.convert]
steps:
  - name: convert
    tool: time.time.convert
    args: {source_timezone: Etc/UTC, time: "input:/time", target_timezone: Asia/Tokyo}
approvals: []
fallbacks: [{code: "*", then: stop}]
success: {end_state: told, counts: [told], objective: 0.9, within_s: 60}
autonomy: {dev: {level: 1, by: platform, reason: it only reads}}
"""
_POLICIES = """
@id("writes") @owner("platform") @why("The helper works with files")
permit (principal in Workflow::"files", action in Action::"write", resource);
"""
_REPOSITORIES = """
@id("repositories") @owner("platform") @why("The helper works in its own repositories")
forbid (principal, action in [{actions}], resource)
unless {{ [{places}].contains(context.args.repo_path) }};
"""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A server to which the reference servers are registered, and what they work on."""

    server: Server
    folder: Path
    approver: str
    """The key of a person who approves."""
    names_before: list[str] = field(default_factory=list)
    """The tools that the agent was told of before anybody had reviewed them."""

    @property
    def files(self) -> Path:
        """Return the folder that the filesystem server may use."""
        return self.folder / "files"

    def seat(self, workflow: str = "files", environment: str = "dev") -> Seat:
        """Open a session of the agent."""
        key = ("key", "create", "helper", "--agent", f"{workflow}/helper", "--env", environment)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("INTERLOCK_AGENT_KEY", interlock(*key).out.strip())
            return Seat(url=self.server.url, token=done("token", "mint"))

    def kill(self, program: str) -> None:
        """Kill the process of an MCP server, if it runs, and wait until it is gone."""
        for child in psutil.Process(self.server.process.pid).children():
            if any(program in word for word in child.cmdline()):
                child.kill()
                psutil.wait_procs([child], timeout=10)


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A session of the agent, which calls what a test says."""

    url: str
    token: str

    def names(self) -> list[str]:
        """Return the tools that the agent is told of."""

        async def listed() -> list[str]:
            async with connected(self.url, self.token) as client:
                return [tool.name for tool in (await client.list_tools()).tools]

        return anyio.run(listed)

    def call(self, tool: str, arguments: JsonObject) -> CallToolResult:
        """Call a tool by its name in the registry."""

        async def called() -> CallToolResult:
            async with connected(self.url, self.token) as client:
                found = await client.call_tool(tool.replace(".", "__"), arguments)
                assert isinstance(found, CallToolResult)
                return found

        return anyio.run(called)

    def ended(self, asked: CallToolResult, *, waits_for: str | None = None) -> CallToolResult:
        """Ask for the end of a pending call until it has one, or waits for something else."""
        handle = meta_of(asked)["interlock/handle"]
        rest, until_s = threading.Event(), time.monotonic() + LIMIT_S
        while True:
            found = self.call(RESULT, {"handle": handle})
            is_pending = meta_of(found)["interlock/state"] == "pending"
            if waits_for in text_of(found) if waits_for else not is_pending:
                return found
            assert time.monotonic() < until_s, text_of(found)
            rest.wait(0.1)


def argv(system: str, environment: str, folder: Path) -> list[str]:
    """Return the command of a server as its package brings it."""
    if system not in NPM:
        zone = [f"--local-timezone={ZONES[environment]}"] if system == "time" else []
        return [str(peers.install("servers") / "bin" / f"mcp-server-{system}"), *zone]
    place = peers.install(peers.NODE)
    package = peers.package(place, f"@modelcontextprotocol/server-{system}")
    command = [str(peers.node(place)), str(package / "dist" / "index.js")]
    return [*command, str(folder / "files")] if system == "filesystem" else command


VARIABLES: Mapping[str, str] = {
    "git": "PATH",
    "memory": "MEMORY_FILE_PATH",
    "everything": "GREETING",
}


def project(folder: Path) -> dict[str, str]:
    """Return the files of a project that knows the servers and none of their tools."""
    files = {"project.yaml": _PROJECT, "agents/helper.yaml": _AGENT}
    for name in SYSTEMS:
        files[f"systems/{name}.yaml"] = _SYSTEM.format(name=name)
        files[f"servers/{name}-dev.yaml"] = _server(name, "dev", folder)
    return files | {"servers/time-stage.yaml": _server("time", "stage", folder)}


def seats(tools: Sequence[str]) -> dict[str, str]:
    """Return the files of a seat in `dev` with these tools."""
    asked = "{tool: git.commit.call, by: platform, why: a person reads what is kept}"
    return {"workflows/files.yaml": _sessions("files", "dev", tools, asked)}


def review(folder: Path, repositories: Sequence[Path]) -> dict[str, str]:
    """Return the files that change once somebody has looked at the tools, and says who may what."""
    actions = ", ".join(f'Action::"{name}"' for name in REVIEWED if name.startswith("git."))
    places = ", ".join(f'"{path}"' for path in repositories)
    return {
        **{f"tools/{name}.yaml": _said(folder, name, said) for name, said in REVIEWED.items()},
        **seats(list(REVIEWED)),
        "workflows/there.yaml": _sessions("there", "stage", ["time.current_time.get"], ""),
        "workflows/clock.yaml": _CLOCK,
        "policies/grants/files.cedar": _POLICIES,
        "policies/guardrails/git.cedar": _REPOSITORIES.format(actions=actions, places=places),
    }


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files of a project."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def repository(place: Path) -> Path:
    """Make a Git repository with one commit and a file that is not in it."""
    place.mkdir()
    (place / "first.txt").write_text("first")
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["config", "user.name", "Helper"],
        ["config", "user.email", "helper@desk.example"],
        ["add", "first.txt"],
        ["commit", "--quiet", "--message=first"],
    ):
        git(place, *command)
    (place / "second.txt").write_text("second")
    return place


def git(place: Path, *command: str) -> str:
    """Ask Git about a repository, past all MCP servers."""
    found = subprocess.run(
        ["git", "-C", str(place), *command], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def _server(system: str, environment: str, folder: Path) -> str:
    command = argv(system, environment, folder)
    program = hashlib.sha256(Path(command[0]).read_bytes()).hexdigest()
    text = _SERVER.format(
        name=system,
        environment=environment,
        argv=", ".join(command),
        variables=VARIABLES.get(system, ""),
    )
    return text if environment == "dev" else f"{text}program_pin: sha256:{program}\n"


def _sessions(workflow: str, environment: str, tools: Sequence[str], approvals: str) -> str:
    return _SESSIONS.format(
        workflow=workflow,
        environment=environment,
        tools=", ".join(tools),
        approvals=approvals,
    )


def _said(folder: Path, name: str, said: JsonObject) -> str:
    """Edit a proposal that was applied as its reviewer does: as the next version of the tool."""
    yaml = YAML()
    manifest = yaml.load((folder / "tools" / f"{name}.yaml").read_text())
    manifest.update(said)
    manifest["version"] = 2
    manifest["source"] = {"labels": [], "trusted": True}
    manifest["sink"] = {"accepts": [], "external": False}
    text = io.StringIO()
    yaml.dump(manifest, text)
    return text.getvalue()
