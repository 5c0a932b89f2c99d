"""Checks of MCP servers over REST: by who may stop what others call."""

from __future__ import annotations

from pathlib import Path

from interlock.domain.ids import TenantId
from interlock.domain.principal import Role
from interlock.serve import doctor
from interlock.tools.upstream import pin_of
from tests.runtime.mcp_project import OFFERED, TOOL, files, offer
from tests.serve.plane import API, Plane, body_of, error_of, rows

SERVER = "files-dev"


async def test_an_operator_has_a_server_checked(plane: Plane, tmp_path: Path) -> None:
    """What changed is quarantined, and the doctor says what to do."""
    path = offer(tmp_path, OFFERED)
    plane.apply(files(path, pin=str(pin_of(OFFERED))))
    token = plane.key(Role.OPERATOR, name="dana")
    offer(tmp_path, {**OFFERED, "title": "Read"})

    checked = await plane.send("POST", f"{API}/servers/{SERVER}/check", token=token)

    [tool] = rows(body_of(checked), "tools")
    assert (200, TOOL, "changed") == (checked.status_code, tool["tool"], tool["state"])
    found = {check.name: check for check in doctor.examine(plane.interlock, plane.app.state.queues)}
    assert not found["tools"].is_ok
    assert f"`{TOOL}@dev` (its server changed its name" in found["tools"].message


async def test_a_shared_server_is_not_for_another_tenant_to_check(
    plane: Plane, tmp_path: Path
) -> None:
    """A check may stop what others call; a server that speaks no MCP has nothing to check."""
    plane.apply(files(offer(tmp_path, OFFERED), pin=None))
    foreign = plane.key(Role.OPERATOR, tenant=TenantId("other"))

    refused = await plane.send("POST", f"{API}/servers/{SERVER}/check", token=foreign)
    unknown = await plane.send("POST", f"{API}/servers/none/check", token=plane.key(Role.OPERATOR))

    assert (403, 404) == (refused.status_code, unknown.status_code)
    assert f"the server `{SERVER}` is shared; ask the owner of the installation" in error_of(
        refused
    )
