"""The catalog over REST: what a reader is told of tools, and nothing of another tenant's."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import TenantId
from interlock.domain.principal import Role
from interlock.testing import recorder_project
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF
from tests.runtime.mcp_project import OFFERED, TOOL, files, offer
from tests.serve.plane import API, Plane, body_of, rows

OWN = TenantId("acme")


async def test_a_tool_of_another_tenants_system_is_unknown(plane: Plane, tmp_path: Path) -> None:
    """As one that does not exist; its own readers see it with the seats of their workflows."""
    project = files(offer(tmp_path, OFFERED), pin=None)
    text = project["project.yaml"]
    for line in ("title: Notes\n", "department: it\n"):
        text = text.replace(line, f"{line}tenant: {OWN}\n")
    plane.apply({**project, "project.yaml": text})
    own, foreign = plane.key(Role.VIEWER, tenant=OWN), plane.key(Role.VIEWER)

    told = {
        token: (
            [row["name"] for row in rows(body_of(await get(plane, token, "/tools")), "tools")],
            (await get(plane, token, f"/tools/{TOOL}")).status_code,
            (await get(plane, token, f"/tools/{TOOL}/diff?before=1")).status_code,
        )
        for token in (own, foreign)
    }

    assert ([TOOL], 200, 200) == told[own]
    assert ([], 404, 404) == told[foreign]


async def test_seats_are_those_of_the_readers_workflows(plane: Plane, tmp_path: Path) -> None:
    """A shared tool does not tell who else uses it."""
    plane.apply(files(offer(tmp_path, OFFERED), pin=None))
    own, foreign = plane.key(Role.VIEWER), plane.key(Role.VIEWER, tenant=OWN)

    seats = [
        body_of(await get(plane, token, f"/tools/{TOOL}"))["seats"] for token in (own, foreign)
    ]

    assert [["notes/workflow"], []] == seats


async def test_credentials_are_told_for_the_readers_workflows(plane: Plane) -> None:
    """By reference, in list and manifest; of other tenants' workflows nothing is told."""
    tool, given = TOOL_OF["keyed"], {WORKFLOW_OF["keyed"]: "secret://recorder/dev/one"}
    project = recorder_project.files("http://127.0.0.1:9")
    bound = f"{{server: recorder-dev, credentials: {json.dumps(given)}}}"
    plane.apply(
        {
            path: text.replace("{server: recorder-dev}", bound)
            + ("auth: bearer\n" if path == "servers/recorder-dev.yaml" else "")
            for path, text in project.items()
        }
    )

    for token, told in (
        (plane.key(Role.VIEWER), given),
        (plane.key(Role.VIEWER, tenant=OWN), dict[str, str]()),
    ):
        listed = rows(body_of(await get(plane, token, "/tools")), "tools")
        [row] = [row for row in listed if row["name"] == tool]
        shown = body_of(await get(plane, token, f"/tools/{tool}"))
        assert [told] == [binding["credentials"] for binding in rows(row, "bindings")]
        assert told == _of(_of(shown, "environments"), "dev")["credentials"]


async def test_a_tool_is_tried_out_by_those_who_run_it(plane: Plane) -> None:
    """With what would be sent, to nobody's surprise; a reader may not reach out to servers."""
    plane.apply(recorder_project.files("http://127.0.0.1:9"))
    path = f"{API}/tools/{TOOL_OF['keyed']}/test"
    value: JsonObject = {"arguments": {"text": "hi"}}

    tried = await plane.send("POST", path, token=plane.key(Role.OWNER), body=value)
    refused = await plane.send("POST", path, token=plane.key(Role.VIEWER), body=value)
    unknown = await plane.send(
        "POST", f"{API}/tools/none/test", token=plane.key(Role.OWNER), body={}
    )

    assert (200, 403, 404) == (tried.status_code, refused.status_code, unknown.status_code)
    [trial] = rows(body_of(tried), "environments")
    assert ("dev", False) == (trial["environment"], body_of(tried)["is_ok"])
    assert "http://127.0.0.1:9/keyed/items" == _of(trial, "request")["url"]


async def test_another_tenant_tries_out_no_shared_server(plane: Plane) -> None:
    """Its program would be started, or its address reached, for somebody else."""
    plane.apply(recorder_project.files("http://127.0.0.1:9"))
    token = plane.key(Role.OPERATOR, tenant=OWN)

    refused = await plane.send("POST", f"{API}/tools/{TOOL_OF['keyed']}/test", token=token, body={})

    assert 403 == refused.status_code


async def test_usage_names_who_has_a_tool_and_who_called_it(plane: Plane) -> None:
    """A workflow that has it and made no call is there; those of other tenants are not."""
    plane.apply(recorder_project.files("http://127.0.0.1:9"))
    path = f"/tools/{TOOL_OF['keyed']}/usage"

    own = body_of(await get(plane, plane.key(Role.VIEWER), path))
    foreign = body_of(await get(plane, plane.key(Role.VIEWER, tenant=OWN), path))
    refused = await get(plane, plane.key(Role.VIEWER), f"{path}?days=0")

    idle: JsonObject = {
        "workflow": WORKFLOW_OF["keyed"],
        "owner": "platform",
        "has_it": True,
        "environment": None,
        "version": None,
        "calls": 0,
    }
    assert ([idle], []) == (own["callers"], foreign["callers"])
    assert refused.status_code in {400, 422}


async def test_tools_are_listed_by_the_kind_of_their_system(plane: Plane) -> None:
    """An undeclared kind is `other`."""
    project = recorder_project.files("http://127.0.0.1:9")
    project["systems/recorder.yaml"] += "system_kind: ticketing\n"
    plane.apply(project)
    token = plane.key(Role.VIEWER)

    counts = [
        len(rows(body_of(await get(plane, token, f"/tools?kind={kind}")), "tools"))
        for kind in ("ticketing", "crm")
    ]

    assert [len(TOOL_OF), 0] == counts


def _of(body: JsonObject, name: str) -> JsonObject:
    found = body[name]
    assert isinstance(found, dict)
    return found


async def get(plane: Plane, token: str, path: str) -> httpx2.Response:
    """Read one resource with a key."""
    return await plane.send("GET", f"{API}{path}", token=token)
