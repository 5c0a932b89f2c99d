"""A project whose tools, one per effect class, are those of the recording tool server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CLASSES = ("read", "keyed", "conditional", "probed", "blind")
WORKFLOW_OF = {name: f"call_{name}" for name in CLASSES}
TOOL_OF = {
    "read": "recorder.item.find",
    "keyed": "recorder.item.create_keyed",
    "conditional": "recorder.item.create_linked",
    "probed": "recorder.item.create_probed",
    "blind": "recorder.item.create_blind",
}

_PROJECT = """
interlock: v1
kind: Project
name: recorder
title: Tools of the recording server
include: [defaults]
teams: [platform, security, data-owners]
"""
_SYSTEM = """
interlock: v1
kind: System
name: recorder
title: The recording tool server
owner: platform
"""
_SERVER = """
interlock: v1
kind: Server
name: recorder-dev
system: recorder
environment: dev
protocol: http
url: {url}
"""
_GRANT = """
@id("calls-may-write") @owner("platform") @why("The test workflows write")
permit (principal, action in Action::"write", resource in System::"recorder");
"""
_TOOL = """
interlock: v1
kind: Tool
name: {name}
version: 1
owner: platform
title: {title}
description: {title}
system: recorder
group: {group}
risk: {risk}
connector: http
request: {request}
contract:
  input: {input}
  output: {output}
  limits: {{timeout_s: {timeout_s}}}
effect: {effect}
records: {records}
source: {{labels: [], trusted: true}}
sink: {{accepts: [], external: false}}
environments: {{dev: {{server: recorder-dev}}}}
"""
_ITEM_INPUT = (
    "{type: object, additionalProperties: false, required: [text],"
    " properties: {text: {type: string, maxLength: 200}}}"
)
_ITEM_OUTPUT = (
    "{type: object, required: [id], properties:"
    " {id: {type: string}, version: {type: integer}, reference: {type: [string, 'null']}}}"
)
_FOUND = (
    "{type: object, required: [items], properties: {items: {type: array, items:"
    " {type: object, required: [id]}}}}"
)
_BODY = "{reference: 'effect:id', text: 'in:/text'}"
_CREATED = "[{mode: create, type: item, id: 'out:/id'}]"
_PROBE = (
    "{tool: recorder.item.find@1, args: {reference: 'effect:id'}, found: 'out:/items', lag_s: 0.1}"
)
_NO_EFFECT = "[400, 401, 403, 413, 415, 429, 503]"
_WORKFLOW = """
interlock: v1
kind: Workflow
name: {name}
version: 1
title: One {effect_class} call
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
tools: [{tools}]
steps:
  - {{name: call, tool: {tool}, args: {args}, share: outcome}}
approvals: {approvals}
fallbacks:
  - {{code: "*", then: stop}}
success: {{end_state: done, counts: [done], objective: 0.9, within_s: 60}}
autonomy: {{dev: {{level: {level}, by: ops, reason: tests}}}}
"""


SESSIONS = "outside"
"""The workflow of sessions of the outside agent `OUTSIDE_AGENT`."""
OUTSIDE_AGENT = "helper"
_AGENT = """
interlock: v1
kind: Agent
name: helper
version: 1
title: An agent of another framework
owner: platform
sponsor: sam
outside: true
"""
_SESSIONS = """
interlock: v1
kind: Workflow
name: outside
version: 1
title: What the helper does
owner: platform
department: it
triggers:
  gateway: {{session: helper, environment: dev}}
inputs: {{type: object, additionalProperties: false}}
agents:
  helper: {{tools: [{tools}]}}
approvals: {approvals}
fallbacks:
  - {{code: "*", then: stop}}
success: {{end_state: closed, counts: [closed, expired], objective: 0.9, within_s: 86400}}
autonomy: {{dev: {{level: {level}, by: ops, reason: tests}}}}
"""


def session_files(
    url: str,
    *,
    granted: Sequence[str] = CLASSES,
    approved: Sequence[str] = (),
    level: int = 3,
    timeout_s: float = 5.0,
) -> dict[str, str]:
    """Return the project for a recording server, with sessions of an outside agent.

    It is granted the tools of the classes `granted`; those of `approved` wait for `data-owners`.
    """
    texts = files(url, timeout_s=timeout_s)
    texts |= {f"workflows/{name}.yaml": "" for name in WORKFLOW_OF.values()}
    rules = [f"{{tool: {TOOL_OF[name]}, by: data-owners, why: tests}}" for name in approved]
    texts["agents/helper.yaml"] = _AGENT
    texts["workflows/outside.yaml"] = _SESSIONS.format(
        tools=", ".join(TOOL_OF[name] for name in granted),
        approvals=f"[{', '.join(rules)}]",
        level=level,
    )
    return {path: text for path, text in texts.items() if text}


def files(
    url: str, *, approve: bool = False, level: int = 3, timeout_s: float = 5.0
) -> dict[str, str]:
    """Return the project for a recording server at `url`.

    With `approve`, each write waits for `data-owners`; `level` is the autonomy of the workflows.
    """
    texts = {
        "project.yaml": _PROJECT,
        "systems/recorder.yaml": _SYSTEM,
        "servers/recorder-dev.yaml": _SERVER.format(url=url),
        "policies/grants/recorder.cedar": _GRANT,
    }
    for effect_class, name in TOOL_OF.items():
        texts[f"tools/{name}.yaml"] = _tool(effect_class, name, timeout_s)
        texts[f"workflows/{WORKFLOW_OF[effect_class]}.yaml"] = _workflow(
            effect_class, approve=approve, level=level
        )
    return texts


def _tool(effect_class: str, name: str, timeout_s: float) -> str:
    is_read = effect_class == "read"
    return _TOOL.format(
        name=name,
        title=f"A {effect_class} operation on items",
        group="read" if is_read else "write",
        risk=1,
        request=_REQUESTS[effect_class],
        input="{type: object, additionalProperties: false, properties: {reference: {type: string}}}"
        if is_read
        else _ITEM_INPUT,
        output=_FOUND if is_read else _ITEM_OUTPUT,
        timeout_s=timeout_s,
        effect=_EFFECTS[effect_class],
        records="[]" if is_read else _CREATED,
    )


_REQUESTS: Mapping[str, str] = {
    "read": "{method: GET, path: /read/items, query: {reference: 'in:/reference'}}",
    "keyed": f"{{method: POST, path: /keyed/items, key_header: Idempotency-Key, body: {_BODY}}}",
    "conditional": f"{{method: POST, path: /conditional/items, body: {_BODY}}}",
    "probed": f"{{method: POST, path: /probed/items, body: {_BODY}}}",
    "blind": f"{{method: POST, path: /blind/items, body: {_BODY}}}",
}
_EFFECTS: Mapping[str, str] = {
    "read": "{class: read}",
    "keyed": f"{{class: keyed, key_ttl_s: 3600, no_effect: {_NO_EFFECT}, key_reused: [409]}}",
    "conditional": (
        "{class: conditional, guard: {kind: one_time_link, obtain: POST /conditional/links,"
        f" link: 'out:/link', refused: [400]}}, no_effect: [401, 503], probe: {_PROBE}}}"
    ),
    "probed": f"{{class: probed, no_effect: {_NO_EFFECT}, probe: {_PROBE}}}",
    "blind": f"{{class: blind, no_effect: {_NO_EFFECT}}}",
}


def _workflow(effect_class: str, *, approve: bool, level: int) -> str:
    tool = TOOL_OF[effect_class]
    is_read = effect_class == "read"
    return _WORKFLOW.format(
        name=WORKFLOW_OF[effect_class],
        effect_class=effect_class,
        tool=tool,
        tools=tool if is_read else f"{tool}, {TOOL_OF['read']}",
        args="{reference: 'input:/text'}" if is_read else "{text: 'input:/text'}",
        approvals=f"[{{tool: {tool}, by: data-owners, why: writes are approved}}]"
        if approve and not is_read
        else "[]",
        level=level,
    )
