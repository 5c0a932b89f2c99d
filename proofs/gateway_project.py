"""Projects of proofs at the gateway: an agent outside, an MCP server, and tools between them."""

from __future__ import annotations

from collections.abc import Sequence

from interlock.policy.defaults import DEFAULT_POLICIES
from proofs import proxies

AGENT = "cost/caller"
SERVER = "upstream-dev"
_FEW_WRITES, _MANY_WRITES = (f"context.calls_this_tool >= {most}" for most in (20, 100_000))
_PROJECT = """
interlock: v1
kind: Project
name: cost
title: What the proof of the cost calls
teams: [platform, security]
"""
_SYSTEM = """
interlock: v1
kind: System
name: upstream
title: The upstream of the proof
owner: platform
"""
_SERVER = """
interlock: v1
kind: Server
name: upstream-dev
system: upstream
environment: dev
protocol: mcp-http
url: {url}
"""
_GRANT = """
@id("proof-write") @owner("platform") @why("The proof writes")
permit (principal, action in Action::"write", resource in System::"upstream");
"""
_TOOL = """
interlock: v1
kind: Tool
name: {name}
version: 1
owner: platform
title: {upstream}
description: {upstream}
system: upstream
group: {group}
risk: 1
connector: mcp
upstream: {{tool: {upstream}}}
contract:
  input:
    type: object
    properties: {{word: {{type: string, maxLength: 100}}}}
    required: [word]
    additionalProperties: false
  output:
    type: object
    properties: {{found: {{type: array, maxItems: 10, items: {{type: string}}}}}}
    required: [found]
effect: {{class: {effect}}}
records: []
source: {{labels: [], trusted: true}}
sink: {{accepts: [], external: false}}
environments: {{dev: {{server: upstream-dev}}}}
"""
_AGENT = """
interlock: v1
kind: Agent
name: caller
version: 1
title: Whoever calls
owner: platform
sponsor: sam
outside: true
"""
_WORKFLOW = """
interlock: v1
kind: Workflow
name: cost
version: 1
title: Calls that are counted
owner: platform
department: it
triggers: {{gateway: {{session: caller, environment: dev}}}}
inputs: {{type: object, additionalProperties: false}}
agents: {{caller: {{tools: [{tools}]}}}}
approvals: []
fallbacks: [{{code: "*", then: stop}}]
success: {{end_state: closed, counts: [closed], objective: 0.9, within_s: 60}}
autonomy: {{dev: {{level: 3, by: ops, reason: proofs}}}}
"""


def project(upstream: str) -> dict[str, str]:
    """Return the files of a project whose two tools are those of `proxies.upstream`.

    One reads and one writes.
    """
    tools = {
        f"upstream.word.{verb}": _TOOL.format(
            name=f"upstream.word.{verb}", upstream=verb, group=group, effect=effect
        )
        for verb, group, effect in (
            (proxies.READ, "read", "read"),
            (proxies.WRITE, "write", "blind"),
        )
    }
    return frame(upstream, list(tools)) | {
        f"tools/{name}.yaml": text for name, text in tools.items()
    }


def frame(upstream: str, tools: Sequence[str]) -> dict[str, str]:
    """Return the files of a project but for its tools, which an outside agent may call.

    They are those of the system `upstream`, on an MCP server at this address. The policies are the
    default ones, but a session may write more often than 20 times.
    """
    return {
        "project.yaml": _PROJECT,
        "systems/upstream.yaml": _SYSTEM,
        f"servers/{SERVER}.yaml": _SERVER.format(url=upstream),
        "policies/grants/cost.cedar": _GRANT,
        **{
            f"policies/{file.path}": file.text.replace(_FEW_WRITES, _MANY_WRITES)
            for file in DEFAULT_POLICIES
        },
        "agents/caller.yaml": _AGENT,
        "workflows/cost.yaml": _WORKFLOW.format(tools=", ".join(tools)),
    }
