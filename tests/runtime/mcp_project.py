"""A project with one MCP tool, whose server offers what a file says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from interlock.domain.canonical import Json, JsonObject

PROGRAM = str(Path(__file__).with_name("mcp_file.py"))
TOOL = "files.note.write"
WORKFLOW = "notes"
OFFERED: JsonObject = {
    "name": "write_note",
    "title": "Write",
    "description": "Write a note",
    "inputSchema": {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    },
    "annotations": {"readOnlyHint": False},
}


def offer(folder: Path, *tools: JsonObject) -> Path:
    """Let the server offer these tools from now on, and return the file that says so."""
    path = folder / "tools.json"
    offered: list[Json] = [*tools]
    path.write_text(json.dumps(offered))
    return path


def files(
    path: Path, *, pin: str | None, version: int = 1, environment: str = "dev"
) -> dict[str, str]:
    """Return the project; its server reads `path`, its tool has this pin."""
    pinned = "" if pin is None else f", pin: '{pin}'"
    argv = json.dumps([sys.executable, PROGRAM, str(path)])
    return {
        "project.yaml": f"""
interlock: v1
kind: Project
name: files
title: Notes in files
include: [defaults]
teams: [platform, security]
---
interlock: v1
kind: System
name: files
title: Notes
owner: platform
---
interlock: v1
kind: Server
name: files-{environment}
system: files
environment: {environment}
protocol: mcp-stdio
argv: {argv}
---
interlock: v1
kind: Tool
name: {TOOL}
version: {version}  # reviewed by ann
owner: platform
title: Write a note
description: Write a note
system: files
connector: mcp
upstream: {{tool: write_note{pinned}}}
contract:
  input:
    type: object
    additionalProperties: false
    required: [text]
    properties: {{text: {{type: string, maxLength: 99}}}}
  output: {{type: object}}
sink: {{accepts: [], external: false}}
environments: {{{environment}: {{server: files-{environment}}}}}
---
interlock: v1
kind: Workflow
name: {WORKFLOW}
version: 1
title: One note
owner: platform
department: it
triggers:
  start: {{manual: true, environment: dev}}
inputs:
  type: object
  additionalProperties: false
  required: [text]
  properties: {{text: {{type: string}}}}
agents: {{}}
tools: [{TOOL}]
steps:
  - {{name: write, tool: {TOOL}, args: {{text: 'input:/text'}}}}
approvals: []
fallbacks:
  - {{code: "*", then: stop}}
success: {{end_state: done, counts: [done], objective: 0.9, within_s: 60}}
autonomy: {{dev: {{level: 3, by: ops, reason: tests}}}}
""",
        "policies/grants/files.cedar": """
@id("notes-may-write") @owner("platform") @why("The tests write")
permit (principal, action in Action::"write", resource in System::"files");
""",
    }
