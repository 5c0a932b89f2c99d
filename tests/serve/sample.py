"""A project with one workflow that a signed webhook, a schedule or a person starts."""

from __future__ import annotations

REFERENCE = "secret://desk/dev/hook"
WORKFLOW = "look"

_PROJECT = """\
interlock: v1
kind: Project
name: desk
title: Desk
include: [defaults]
teams: [platform, security]
"""
_LOOK = """\
interlock: v1
kind: Workflow
name: look
version: 1
title: Look at what comes in
owner: platform
department: it
triggers:
  delivery:
    webhook: desk
    secret: secret://desk/dev/hook
    when: [{at: "body:/type", equals: created}]
    input: {title: "body:/title"}
  hourly: {cron: "0 * * * *", environment: dev, input: {title: "tick:/at"}}
  by_hand: {manual: true}
inputs:
  type: object
  additionalProperties: false
  required: [title]
  properties: {title: {type: string, maxLength: 80}}
agents: {}
steps:
  - {name: hold, wait: go, timeout_s: 3600}
approvals: []
fallbacks:
  - {code: "*", then: stop}
success: {end_state: done, counts: [done], objective: 0.9, within_s: 60}
"""


def files() -> dict[str, str]:
    """Return the project's files."""
    return {"project.yaml": _PROJECT, "workflows/look.yaml": _LOOK}
