"""A small project as texts, which loads; tests change single lines of it."""

from __future__ import annotations

import pytest

from interlock.domain.errors import ManifestError
from interlock.domain.release import Release
from interlock.manifest.load import load

PROJECT = """\
interlock: v1
kind: Project
name: desk
title: Desk
include: [defaults]
labels: [pii]
teams: [it, owners, security]
"""
SYSTEM = """\
interlock: v1
kind: System
name: desk
title: Desk
owner: it
"""
SERVER = """\
interlock: v1
kind: Server
name: desk-dev
system: desk
environment: dev
protocol: http
url: http://127.0.0.1:9000
auth: bearer
"""
FIND = """\
interlock: v1
kind: Tool
name: desk.issue.find
version: 1
owner: it
title: Find issues
description: Find issues by reference.
system: desk
group: read
connector: http
request: {method: GET, path: /issues, query: {ref: "in:/ref"}}
contract:
  input: schemas/find.json
  output:
    type: object
    additionalProperties: false
    properties: {found: {type: array, items: {type: object}}}
effect: {class: read}
source: {labels: [], trusted: true}
sink: {accepts: [pii], external: false}
environments:
  dev: {server: desk-dev, credentials: "secret://desk/dev/bot"}
"""
CREATE = """\
interlock: v1
kind: Tool
name: desk.issue.create
version: 2
owner: it
title: Open an issue
description: Open one issue.
system: desk
group: write
risk: 2
connector: http
request:
  method: POST
  path: /issues
  body: {title: "in:/title", ref: "effect:id"}
contract:
  input:
    type: object
    additionalProperties: false
    properties: {title: {type: string}}
    required: [title]
  output: {type: object, additionalProperties: false, properties: {id: {type: string}}}
effect:
  class: probed
  probe: {tool: desk.issue.find@1, args: {ref: "effect:id"}, found: "out:/found", lag_s: 1}
business_key: {parts: [{at: "in:/title", fold: words}]}
records: [{mode: create, type: issue, id: "out:/id"}]
source: {labels: [pii], trusted: false}
sink: {accepts: [pii], external: false}
environments:
  dev: {server: desk-dev, credentials: "secret://desk/dev/bot"}
"""
PROD_SERVER = (
    SERVER.replace("dev", "prod")
    .replace("http:", "https:")
    .replace("127.0.0.1:9000", "desk.example")
)
_IN_DEV = '  dev: {server: desk-dev, credentials: "secret://desk/dev/bot"}\n'
FIND_IN_PROD = FIND.replace(_IN_DEV, _IN_DEV + _IN_DEV.replace("dev", "prod"))
"""The first version, bound in `dev` and `prod`; the project then needs `PROD_SERVER`."""
FIND_2 = FIND.replace("version: 1", "version: 2").replace("Find issues\n", "Find them\n")
"""The second version, bound in `dev` only."""
TWO_VERSIONS = {
    "servers/prod.yaml": PROD_SERVER,
    "tools/find.yaml": FIND_IN_PROD,
    "tools/find.v2.yaml": FIND_2,
}
AGENT = """\
interlock: v1
kind: Agent
name: clerk
version: 1
title: Clerk
owner: it
sponsor: ann
instructions: agents/clerk.md
output:
  type: object
  additionalProperties: false
  properties: {outcome: {type: string}}
  required: [outcome]
"""
WORKFLOW = """\
interlock: v1
kind: Workflow
name: triage
version: 1
title: Triage
owner: owners
department: it
triggers:
  delivery:
    webhook: tracker
    secret: secret://desk/dev/hook
    when: [{at: "body:/type", equals: created}]
    input: {ref: "body:/ref"}
  nightly: {cron: "0 3 * * *", timezone: Europe/Berlin, input: {ref: "tick:/at"}}
  by_hand: {manual: true}
inputs: schemas/find.json
agents:
  clerk: {tools: [desk.issue.find, desk.issue.create]}
tools: [desk.issue.find]
steps:
  - {name: look, tool: desk.issue.find, args: {ref: "input:/ref"}, share: seen}
  - {name: work, agent: clerk, input: {seen: "shared:seen/found"}}
  - {name: tell, wait: answer, timeout_s: 60, when: [{at: "step:work/outcome", equals: ask}]}
approvals:
  - tool: desk.issue.create
    by: owners
    why: Only known issues
    when: [{at: "in:/title", one_of: ["a", "b"]}]
fallbacks:
  - {code: "model.", then: end, end: handed_over}
  - {code: "*", then: stop}
success: {end_state: "step:work/outcome", counts: [done], objective: 0.9, within_s: 60}
autonomy: {dev: {level: 2, by: ann, reason: test}}
"""
FILES = {
    "project.yaml": PROJECT,
    "systems/desk.yaml": SYSTEM,
    "servers/dev.yaml": SERVER,
    "tools/find.yaml": FIND,
    "tools/create.yaml": CREATE,
    "agents/clerk.yaml": AGENT,
    "agents/clerk.md": "You are the clerk.\n",
    "workflows/triage.yaml": WORKFLOW,
    "schemas/find.json": """{"type": "object", "additionalProperties": false,
        "properties": {"ref": {"type": "string"}}, "required": ["ref"]}""",
    "policies/grants/desk.cedar": """@id("desk-writes") @owner("it") @why("Triage opens issues")
permit (principal in Workflow::"triage", action in Action::"write", resource in System::"desk");
""",
}


def changed(path: str, old: str, new: str) -> dict[str, str]:
    """Return the project with one text replaced in one file."""
    assert old in FILES[path]
    return {**FILES, path: FILES[path].replace(old, new, 1)}


def problems(files: dict[str, str], *, previous: Release | None = None) -> list[str]:
    """Return what is wrong with a project that does not load."""
    with pytest.raises(ManifestError) as caught:
        load(files, previous=previous)
    return [str(problem) for problem in caught.value.problems]
