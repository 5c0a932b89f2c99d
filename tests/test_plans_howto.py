"""The howto about plans, run as it stands: its project loads, its plan is shown and made."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from interlock.calls import approve
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Role
from interlock.domain.run import RunState
from interlock.manifest.load import load
from interlock.observe.plans import plans_of
from interlock.store import approvals
from tests.runtime.plane import GRANT, open_plane, text

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "plans.md").read_text(encoding="utf-8")
HEAD = "interlock: v1\nkind: "
PROJECT = f"{HEAD}Project\nname: desk\ntitle: Desk\ninclude: [defaults]\n"
TOOL = """\
interlock: v1
kind: Tool
name: desk.issue.{verb}
version: 1
owner: it
title: {verb} issues
description: {verb} issues
system: desk
group: {group}
connector: python
function: desk.issue.{verb}
contract:
  input:
    type: object
    additionalProperties: false
    properties: {{title: {{type: string}}}}
    required: [title]
  output: {{type: object, properties: {{found: {{type: string}}, id: {{type: string}}}}}}
effect: {{class: {effect}}}
source: {{labels: [], trusted: true}}
sink: {{accepts: [], external: false}}
environments: {{dev: {{server: desk-dev}}}}
"""
UNDO = 'compensation: {tool: desk.issue.retire@1, args: {title: "out:/id"}}\n'


def project() -> dict[str, str]:
    """Return the files of the page, and beside them those that it takes for granted."""
    blocks = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    server = "name: desk-dev\nsystem: desk\nenvironment: dev\nprotocol: python\n"
    return {
        "project.yaml": f"{PROJECT}labels: [pii]\nteams: [it, desk-owners, security]\n",
        "systems/desk.yaml": f"{HEAD}System\nname: desk\ntitle: Desk\nowner: it\n",
        "servers/dev.yaml": f"{HEAD}Server\n{server}",
        "tools/find.yaml": TOOL.format(verb="find", group="read", effect="read"),
        "tools/create.yaml": TOOL.format(verb="create", group="write", effect="blind") + UNDO,
        "tools/retire.yaml": TOOL.format(verb="retire", group="write", effect="blind"),
        f"policies/{GRANT.path}": GRANT.text,
        **dict(blocks),
    }


def test_the_howto_runs_as_it_stands(tmp_path: Path) -> None:
    """Its project loads, its plan waits for one answer, and is made in its order."""
    (answer,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    olga = Principal(
        name="olga",
        kind=PrincipalKind.USER,
        roles=frozenset({Role.APPROVER}),
        groups=frozenset({"desk-owners"}),
    )
    with open_plane(tmp_path) as plane:
        plane.models["Plan how the reported trouble is followed up"] = lambda _m, _i: text(answer)
        plane.apply(load(project()))
        run_id = plane.start()
        decided = []
        while open_approvals := plane.read(partial(approvals.list_open, tenant=DEFAULT_TENANT)):
            (view,) = plane.read(partial(plans_of, run=plane.get(run_id)))
            decided.append((view.state, [(call.decision, call.state) for call in view.calls]))
            shown = plane.read(partial(approve.shown_digest, approval=open_approvals[0]))
            approve.answer(
                plane.db,
                plane.engine.dispatch,
                open_approvals[0].approval_id,
                by=olga,
                answer="approve",
                digest=shown,
            )
            plane.engine.run_until_idle()

        asked = ("allow", "planned"), ("needs_approval", "proposed"), ("when_known", "planned")
        later = (
            ("allow", "succeeded"),
            ("needs_approval", "succeeded"),
            ("when_known", "proposed"),
        )
        assert [("asked", [*asked]), ("running", [*later])] == decided
        assert ["VPN is down", "vpn"] == plane.desk.titles
        assert RunState.SUCCEEDED is plane.get(run_id).state
